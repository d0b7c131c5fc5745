"""An agent of several tiers: the next is asked where the last was not sure enough.

    START ─┬─ economy ─┬─ standard
           │           └─ END
           ├─ standard ─┬─ premium     not sure enough
           │            └─ END         sure enough; or it failed, turned to a person, said nothing
           └─ premium ─── END

It fits any slot that takes an agent, of any pattern, since a graph is one. What not even the last
is sure of leaves as it is: the pattern's judge, then a person, look at it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent, Where, may_ask, rungs_of
from kapelle.nodes.call import call
from kapelle.nodes.conversing import gated
from kapelle.nodes.effect import doing
from kapelle.nodes.here import here
from kapelle.nodes.services import Services
from kapelle.state.budget import Budget, Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.ladder import Climb, doubtful, first_rung, standing, unsure
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Result, Task, Tier

UNPAID = {"budget": Budget(), "per_task": Budget(), "per_agent": Budget()}
"""What the call around a climb has reserved already is not limited once more."""


class Rung(Protocol):
    """A node of one tier."""

    async def __call__(self, state: Climb, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What stands after it, as an update."""
        ...


class Ladder:
    """Several agents in the place of one, the cheapest first. Outside a pattern it is its first."""

    def __init__(self, card: AgentCard, agents: Sequence[Agent]) -> None:
        self.card = card
        self.agents = agents
        self.where: Where = agents[0].where

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, a ladder of {len(self.agents)}>"

    def rungs(self, policy: Policy) -> Sequence[Agent]:
        """All of them, if the policy asks how sure they are; else the first."""
        return self.agents if policy.min_confidence else self.agents[:1]

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """What its first may use."""
        return self.agents[0].estimate(task, brief)

    async def act(self, task: Task, brief: Brief) -> object:
        """Have the first do it."""
        return await self.agents[0].act(task, brief)


def ladder(name: str, agents: Sequence[Agent], *, skills: Sequence[str] | None = None) -> Ladder:
    """Make one agent of several, the cheapest first: for any slot of any pattern.

    Under `Policy(min_confidence=…)` the next is asked where the last was not sure enough, from the
    first whose tier is the task's own. `skills`: by default those of the first.

    Raises:
        Misbuilt: when there are none, or two have one name.
    """
    names = [agent.card.name for agent in agents]
    if not names or len(set(names)) < len(names):
        raise Misbuilt(f"a ladder needs agents with names of their own, not {names}")
    first, last = agents[0].card, agents[-1].card
    change = {
        "name": name,
        "top": last.tier,
        "skills": tuple(first.skills if skills is None else skills),
    }
    return Ladder(first.model_copy(update=change), tuple(agents))


def climbing(agent: Agent, policy: Policy) -> Agent:
    """The agent itself, `gated`; one of several tiers as a graph, if the policy asks how sure."""
    rungs = rungs_of(agent, policy)
    if len(rungs) == 1 and rungs[0] is agent:
        return gated(agent, policy)
    return Climbing(agent, rungs, policy)


class Climbing:
    """An agent of several tiers as a graph."""

    where: Where = "graph"

    def __init__(self, agent: Agent, rungs: Sequence[Agent], policy: Policy) -> None:
        self.within = agent
        self.card = agent.card.model_copy(update={"top": rungs[-1].card.tier})
        seats = {_node(each, agent): gated(each, policy) for each in rungs}
        self.asks = any(map(may_ask, seats.values()))
        self.graph = climb(seats, policy).compile(name=agent.card.name)

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, of several tiers>"

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """Nothing of its own: each tier reserves for itself."""
        return Usage()

    async def act(self, task: Task, brief: Brief) -> Result:
        """Climb as far as needed, within the node that calls it."""
        final = await self.graph.ainvoke({"task": task, "brief": brief})
        return Result.model_validate(final["result"])


def climb(rungs: Mapping[str, Agent], policy: Policy) -> StateGraph[Any, Any, Any, Any]:
    """The agents of a ladder, by the names of their nodes, as a graph."""
    graph = StateGraph(Climb, context_schema=Services)
    names, limits = list(rungs), policy.model_copy(update=UNPAID)
    for name, above in zip(names, [*names[1:], ""], strict=True):
        graph.add_node(name, rung(rungs[name], limits, above=above))
        nexts = [above, END] if above else [END]
        graph.add_conditional_edges(name, by_doubt(above, policy), nexts)
    graph.add_conditional_edges(START, by_tier(rungs), names)
    return graph


def rung(agent: Agent, policy: Policy, *, above: str) -> Rung:
    """The node of one tier; `above` it is that one, if there is any."""
    graph, name = getattr(agent, "graph", None), agent.card.name

    async def climb(state: Climb, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph  # LangGraph finds a nested graph in the node's closure
        place, whole, before = here(runtime), doing.get(), state.get("result")
        brief, task = state["brief"], state["task"].model_copy(update={"tier": agent.card.tier})
        if before is not None:
            feedback = (*brief.feedback, unsure(before))
            brief = brief.model_copy(update={"feedback": feedback})
        limit, check = (whole.limit, whole.check) if whole else (None, None)
        made = await call(
            agent, task, brief, here=place, policy=policy, limit=limit, check=check, whole=whole
        )
        stands = standing(before, made)
        if above and doubtful(stands, policy):
            place.tell("escalation", "to the next tier", task=task.id, agent=name,
                       why=unsure(stands))  # fmt: skip
        return {"result": stands}

    return climb


def by_tier(rungs: Mapping[str, Agent]) -> Callable[[Climb], str]:
    """To the first tier that is not below the task's own."""
    names = list(rungs)
    tiers: list[Tier] = [agent.card.tier for agent in rungs.values()]
    return lambda state: names[first_rung(tiers, state["task"].tier)]


def by_doubt(above: str, policy: Policy) -> Callable[[Climb], str]:
    """To the tier above, if there is one and nobody was sure enough."""
    return lambda state: above if above and doubtful(state["result"], policy) else END


def _node(rung: Agent, whole: Agent) -> str:
    """The name of its node: its own, or its tier's where all have the name of the whole."""
    return rung.card.tier if rung.card.name == whole.card.name else rung.card.name
