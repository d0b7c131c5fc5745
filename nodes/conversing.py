"""A chat model whose tools have consequences: its conversation as a graph of its own.

    START ─ think ─┬═ approve ×N ─ use    calls that a person must approve
                   ├─ use ─┬─ think       what the tools said
                   │       └═ approve ×N  nobody knows whether a call happened
                   └─ END                 with a result

It fits any slot that takes an agent, since a graph is one. What was said so far is its state: a
crash or an answer goes on from there, and nothing that was said or done is repeated.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from kapelle.nodes.agent import Agent, Unusable, Where
from kapelle.nodes.call import Check, call, ungated
from kapelle.nodes.effect import Doing, Unsure, doing
from kapelle.nodes.gating import Proposed, permit
from kapelle.nodes.here import here
from kapelle.nodes.model import ModelAgent, model_of
from kapelle.nodes.patience import OutOfTime, within
from kapelle.nodes.services import Services
from kapelle.nodes.toolbox import MOST_CALLS, Toolbox, message
from kapelle.state.budget import Usage
from kapelle.state.effect import doubt
from kapelle.state.policy import Policy
from kapelle.state.proposal import Conversation, Permit, Proposal, Ruling, ruled
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Reply, Result, Task, total_usage

STEPS = 1_000
"""Super-steps of one conversation."""


def gated(agent: Agent, policy: Policy) -> Agent:
    """The agent itself; one whose tools need a person or change the world, as a graph."""
    if not ungated(agent, policy):
        return agent
    assert isinstance(agent, ModelAgent)
    return Conversing(agent, policy)


class Node(Protocol):
    """A node of a conversation."""

    async def __call__(self, state: Conversation, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was said or done, as an update."""
        ...


class Conversing:
    """A model agent as a graph."""

    where: Where = "graph"

    def __init__(self, agent: ModelAgent, policy: Policy) -> None:
        self.card = agent.card
        self.within = agent
        self.graph = conversation(agent, policy).compile(name=agent.card.name)

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, a chat model whose tools have consequences>"

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """Nothing of its own: each answer reserves for itself."""
        return Usage()

    async def act(self, task: Task, brief: Brief) -> Result:
        """Have the conversation, within the node that calls it."""
        given = {"task": task, "brief": brief}
        final = await self.graph.ainvoke(given, {"recursion_limit": STEPS})
        return Result.model_validate(final["result"])


def conversation(agent: ModelAgent, policy: Policy) -> StateGraph[Any, Any, Any, Any]:
    """The conversation of one model agent about one task, as a graph."""
    graph = StateGraph(Conversation, context_schema=Services)

    graph.add_node("think", _think(agent, policy))
    graph.add_node("approve", permit, input_schema=Proposed)
    graph.add_node("use", _use(agent, policy))

    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", _by_proposals(agent, policy), ["approve", "use", END])
    graph.add_edge("approve", "use")
    graph.add_conditional_edges("use", by_doubts, ["approve", "think"])
    return graph


def _think(agent: ModelAgent, policy: Policy) -> Node:
    async def think(state: Conversation, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task, said = here(runtime), state["task"], state.get("said") or []
        steps, before = state.get("steps", 0) + 1, state.get("attempts") or ()
        whole = doing.get()
        check = _final(whole.check if whole else None)
        thinker = _Thinker(
            agent.at(task.tier), messages_from_dict(said), last=steps >= agent.max_steps
        )
        limit = whole.limit if whole else None
        made = await call(
            thinker, task, state["brief"], here=place, policy=policy, limit=limit, check=check
        )
        output: Any = made.output
        attempts = (*before, *made.attempts)
        update: dict[str, Any] = {"steps": steps, "attempts": attempts}
        if made.status == "done" and "message" in output:
            proposed = _proposals(steps, output["message"], said)
            return update | {"said": [*said, output["message"]], "proposed": proposed}
        answer = output["answer"] if made.status == "done" else output
        change = {"output": answer, "attempts": attempts, "usage": total_usage(attempts)}
        return update | {"result": made.model_copy(update=change)}

    return think


def _use(agent: ModelAgent, policy: Policy) -> Node:
    toolbox = agent.toolbox

    async def use(state: Conversation, runtime: Runtime[Services]) -> dict[str, Any]:
        said, permits = state["said"], state.get("permits") or {}
        ours = Doing.of(here(runtime), state["task"].id, agent.card.name)
        whole = doing.get()
        mine = doing.set(replace(ours, scope=whole.scope if whole else ours.scope))
        try:
            tools = (_used(p, permits.get(p.id), toolbox, policy) for p in state["proposed"])
            used = await asyncio.gather(*tools)
        finally:
            doing.reset(mine)
        unsure = [one.effect for one in used if isinstance(one, Unsure)]
        if unsure:
            return {"doubts": tuple(map(doubt, unsure))}
        (answer,) = messages_from_dict(said[-1:])
        assert isinstance(answer, AIMessage)
        told = [one for one in used if isinstance(one, ToolMessage)]
        new = [_plain(each) for each in (*told, *toolbox.left_out(answer))]
        return {"said": [*said, *new], "proposed": (), "doubts": ()}

    return use


async def _used(
    proposal: Proposal, permit: Permit | None, toolbox: Toolbox, policy: Policy
) -> ToolMessage | Unsure:
    mark = toolbox.mark(proposal.tool, policy.approve_tools)
    ruling = ruled(proposal, permit) if mark.approve else Ruling(use=True, args=proposal.args)
    if ruling is None:
        return message(proposal.call, "not done: nobody approved exactly this", "error")
    for _ in range(2 if mark.once else 1):  # in doubt, the second try finds that it was begun
        try:
            said = await within(policy.timeout, toolbox.use(proposal, ruling, mark))
        except Unsure as unsure:
            return unsure
        except OutOfTime:
            continue
        assert isinstance(said, ToolMessage)
        return said
    return message(proposal.call, f"no answer within {policy.timeout:g} s", "error")


def _by_proposals(agent: ModelAgent, policy: Policy) -> Callable[[Conversation], Any]:
    def by_proposals(state: Conversation) -> str | list[Send]:
        """To a person with what needs one, else straight on."""
        if state.get("result") is not None:
            return END
        stamp = {"task": state["task"].id, "by": agent.card.name}
        return [
            Send("approve", Proposed(ask=ask.model_copy(update=stamp), proposal=proposal))
            for proposal in state["proposed"]
            if agent.toolbox.mark(proposal.tool, policy.approve_tools).approve
            for ask in [agent.toolbox.request(proposal)]
        ] or "use"

    return by_proposals


def by_doubts(state: Conversation) -> str | list[Send]:
    """To a person with what nobody else knows, else on with the conversation."""
    asks = [Send("approve", Proposed(ask=ask, proposal=None)) for ask in state["doubts"]]
    return asks or "think"


@dataclass(frozen=True)
class _Thinker:
    """One answer of a model within its conversation, as an agent of its own."""

    agent: ModelAgent
    said: list[BaseMessage]
    last: bool
    """Whether this must be the answer proper."""
    where: Where = "loop"

    @property
    def card(self) -> AgentCard:
        """The model agent's, but for the output, which only the answer proper has."""
        return self.agent.card.model_copy(update={"output": None})

    @property
    def meter(self) -> str:
        """The model, as its limits know it."""
        return self.agent.meter

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """The prompt, all that was said since, and the longest answer."""
        return self.agent.most(self._told(task, brief))

    async def act(self, task: Task, brief: Brief) -> Reply:
        """Ask the model once."""
        answer, spent, final = await self.agent.step(self._told(task, brief))
        if final:
            reply = self.agent.reply(answer, spent)
            return reply.model_copy(update={"output": {"answer": reply.output}})
        if self.last:
            raise Unusable(f"no answer within {self.agent.max_steps} steps", spent)
        return Reply(output={"message": _plain(answer)}, usage=spent, model=model_of(answer))

    def _told(self, task: Task, brief: Brief) -> list[BaseMessage]:
        return [*self.agent.messages(task, brief), *self.said]


def _final(check: Check | None) -> Check:
    def checked(output: JsonValue) -> list[str]:
        final = isinstance(output, dict) and "answer" in output
        return check(output["answer"]) if final and check else []  # type: ignore[index,call-overload]

    return checked


def _proposals(
    step: int, answer: dict[str, Any], said: list[dict[str, Any]]
) -> tuple[Proposal, ...]:
    earlier = [call for one in said for call in one["data"].get("tool_calls") or ()]
    seen = Counter(_read("", call).digest for call in earlier)
    proposed = []
    for place, given in enumerate(answer["data"]["tool_calls"][:MOST_CALLS], 1):
        proposal = _read(f"{step}.{place}", given)
        seen[proposal.digest] += 1
        proposed.append(proposal.model_copy(update={"nth": seen[proposal.digest]}))
    return tuple(proposed)


def _read(id: str, call: dict[str, Any]) -> Proposal:
    return Proposal(id=id, call=call["id"] or "", tool=call["name"], args=call["args"])


def _plain(message: BaseMessage) -> dict[str, Any]:
    told: dict[str, Any] = from_json(to_json(message_to_dict(message), inf_nan_mode="constants"))
    return told
