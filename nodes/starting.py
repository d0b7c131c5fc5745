"""Before the start: what a run is expected to use; where that is much, a person is asked first.

─ estimate ─┬─ allow ─┬─ the work
            │         └─ END       a person abandons it
            └─ the work            it is expected to use no more than `policy.ask_above`
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict

from langgraph.graph import END, START
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import JsonValue

from kapelle.nodes.estimating import estimate, expected_of
from kapelle.nodes.gating import Asked, gate, start_gate
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Pattern, must_be_node
from kapelle.nodes.services import Services
from kapelle.state.approval import Escalation
from kapelle.state.estimate import Forecast, Volume, above, ask_to_start
from kapelle.state.policy import Policy
from kapelle.state.task import Plan, Result, Task

ESTIMATE, ALLOW = "estimate", "allow"


class Ready(TypedDict):
    """What is looked at before the start."""

    task: Task


class Planned(TypedDict):
    """What is looked at once there is a plan: it, and what is done of it already."""

    task: Task
    plan: Plan | None
    results: dict[str, Result]
    escalation: Escalation | None
    result: Result | None


class Allowed(TypedDict):
    """What there is once a person has answered."""

    result: Result | None


class Estimator(Protocol):
    """The node that estimates."""

    async def __call__(self, state: Ready, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """An ask, if it is expected to use much, as an update."""
        ...


class PlanEstimator(Protocol):
    """The node that estimates by a plan."""

    async def __call__(self, state: Planned, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """An ask, if it is expected to use much, as an update."""
        ...


def starts(graph: Pattern, at: str, policy: Policy) -> None:
    """Let a graph start at a node; past a person, where more is expected than the policy allows."""
    if not policy.ask_above.bounded:
        graph.add_edge(START, at)
        return
    _add(graph, before_start(graph, policy), start_gate)
    graph.add_edge(START, ESTIMATE)
    graph.add_conditional_edges(ESTIMATE, by_cost(at), [ALLOW, at])
    graph.add_conditional_edges(ALLOW, by_leave(at), [at, END])


def goes_on(graph: Pattern, planners: list[str], at: str, policy: Policy) -> None:
    """Let a graph go on from who plans to a node; past a person, where the plan is dear."""
    for planner in planners:
        graph.add_edge(planner, ESTIMATE if policy.ask_above.bounded else at)
    if policy.ask_above.bounded:
        _add(graph, by_plan(graph, policy), gate(policy))
        graph.add_conditional_edges(ESTIMATE, by_cost(at), [ALLOW, at])
        graph.add_edge(ALLOW, at)


def _add(graph: Pattern, estimator: Any, allow: Any) -> None:
    for name in (ESTIMATE, ALLOW):
        must_be_node(name, graph.nodes)
    graph.add_node(ESTIMATE, estimator)
    graph.add_node(ALLOW, allow, input_schema=Asked)


def by_cost(at: str) -> Callable[[Mapping[str, Any]], str | list[Send]]:
    """To a person, if they are to be asked; else on."""

    def by_cost(state: Mapping[str, Any]) -> str | list[Send]:
        ask: Escalation | None = state["escalation"]
        if ask is None or ask.about != "estimate":
            return at
        return [Send(ALLOW, Asked(ask=ask, stopped=None))]

    return by_cost


def by_leave(at: str) -> Callable[[Allowed], str]:
    """On, if a person allows it; else the end."""

    def by_leave(state: Allowed) -> str:
        return at if state["result"] is None else END

    return by_leave


async def begin(place: Here, task: Task, policy: Policy) -> None:
    """Begin the run, where it was not begun before the start, to estimate it."""
    if not policy.ask_above.bounded:
        await place.begin(task)


def before_start(graph: Pattern, policy: Policy) -> Estimator:
    """The node that estimates a graph from its shape; it begins the run."""

    async def look(state: Ready, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task = here(runtime), state["task"]
        await place.begin(task)
        fresh: dict[str, Any] = {"escalation": None, "result": None}
        try:
            found = estimate(graph, task)
        except Exception as error:  # noqa: BLE001  an agent's estimate may raise anything
            why = f"Nobody knows what it will use: {type(error).__name__}: {error}."
            return fresh | _asked(task, None, why, {}, place)
        if not above(found.team.expected.usage, policy.ask_above):
            return fresh
        alone = found.alone.expected.model_dump(mode="json")
        return fresh | _asked(task, found.team, "", {"alone": alone, "items": found.items}, place)

    return look


def by_plan(graph: Pattern, policy: Policy) -> PlanEstimator:
    """The node that estimates a graph by the plan that is there."""

    async def look(state: Planned, runtime: Runtime[Services]) -> dict[str, Any]:
        plan, task = state["plan"], state["task"]
        if plan is None or state["escalation"] or state["result"]:
            return {}
        done = {name for name, result in state["results"].items() if result.status == "done"}
        ahead = [each for each in plan.tasks if each.id not in done]
        used = expected_of(graph, task, ahead)
        if not above(used, policy.ask_above):
            return {}
        shown: dict[str, JsonValue] = {"tasks": [t.model_dump(mode="json") for t in ahead]}
        once = Forecast(expected=Volume(usage=used))
        return _asked(task, once, "", shown, here(runtime))

    return look


def _asked(
    task: Task, found: Forecast | None, why: str, shown: Mapping[str, JsonValue], place: Here
) -> dict[str, Any]:
    ask = ask_to_start(task.id, task.goal, found, place.place, why=why, shown=shown)
    place.tell("escalation", "asked", task=task.id, why=ask.reason, mark="estimate")
    return {"escalation": ask}
