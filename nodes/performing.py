"""The box of one worker: waits for what its subtask needs, then does it."""

from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import PARKED, Board, board
from kapelle.nodes.call import call
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.state.budget import Usage
from kapelle.state.message import Performative
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Failure, Result, Task
from kapelle.state.team import weighed


class Work(TypedDict):
    """What a worker reads: one subtask, with results of earlier steps and orders about it."""

    subtask: Task
    given: dict[str, Result]
    feedback: tuple[str, ...]
    revision: int
    used: Usage
    """What earlier revisions used."""


class Worker(Protocol):
    """A node that works on one subtask."""

    async def __call__(self, state: Work, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The subtask's result, as an update."""
        ...


def worker(agent: Agent, policy: Policy) -> Worker:
    """The node of one agent; it starts when its own subtask's needs are met, not when all are."""
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def perform(state: Work, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        task, place = state["subtask"], here(runtime)
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED  # also if the worker is stopped: it will run again
        try:
            given = await _needs(desk, state)
            if any(result is PARKED for result in given.values()) or runtime.drain_requested:
                raise park()
            if unmet := [need for need, result in given.items() if not _usable(result)]:
                outcome = _blocked(state, f"no result of {', '.join(unmet)}")
            else:
                brief = Brief(
                    results=given,
                    context=await place.services.memory.context(place.thread),
                    feedback=state["feedback"],
                )
                outcome = await _done(agent, brief, place, policy, desk, state)
            return {"results": {task.id: outcome}}
        finally:
            desk.post(task.id, outcome)

    return perform


async def _needs(desk: Board, state: Work) -> dict[str, Any]:
    given: dict[str, Result | None] = dict(state["given"])
    for need in state["subtask"].needs:
        if need not in given:
            given[need] = await desk.outcome(need)
    return given


async def _done(
    agent: Agent, brief: Brief, place: Here, policy: Policy, desk: Board, state: Work
) -> Result:
    task, revision, name = state["subtask"], state["revision"], agent.card.name
    _message(place, "request", "manager", name, task.id, revision)
    limit = None if agent.where == "graph" else desk.limit
    result = await call(agent, task, brief, here=place, policy=policy, limit=limit)
    result = weighed(result, policy)
    if revision > 1:
        stamp = {"revision": revision, "usage": state["used"] + result.usage}
        result = result.model_copy(update=stamp)
    if result.status == "waiting" and result.escalation is not None:
        why = result.escalation.question
        place.tell("escalation", "asked", task=task.id, agent=name, why=why, mark=revision)
    said: Performative = {"failed": "failure", "refused": "refuse"}.get(result.status, "inform")  # type: ignore[assignment]
    _message(place, said, name, "manager", task.id, revision)
    return result


def _message(place: Here, act: str, sender: str, receiver: str, task: str, revision: int) -> None:
    place.tell("message", act, task=task, agent=sender, data={"to": receiver}, mark=revision)


def _usable(result: Result | None) -> bool:
    return result is not None and result.status in ("done", "partial")


def _blocked(state: Work, why: str) -> Result:
    return Result(
        task=state["subtask"].id,
        status="failed",
        failure=Failure(kind="blocked", message=why),
        revision=state["revision"],
        usage=state["used"],
    )
