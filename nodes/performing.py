"""The box of one worker: waits for what its subtask needs, then does it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import PARKED, Board, board
from kapelle.nodes.call import call
from kapelle.nodes.climbing import climbing
from kapelle.nodes.estimating import guess
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here
from kapelle.nodes.posting import tell_letters
from kapelle.nodes.services import Services
from kapelle.state.budget import Usage
from kapelle.state.delivery import mailed, writes_to
from kapelle.state.ladder import weighed
from kapelle.state.message import Message, Performative
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Failure, Result, Revision, Task


class Work(TypedDict):
    """What a worker reads: one subtask, with results of earlier steps and orders about it."""

    subtask: Task
    given: dict[str, Result]
    feedback: tuple[str, ...]
    mail: tuple[Message, ...]
    """What other agents wrote to this one, in earlier steps."""
    revision: int
    used: Usage
    """What earlier revisions used."""


def work_of(
    task: Task,
    given: dict[str, Result],
    last: Result | None = None,
    order: Revision | None = None,
    *,
    feedback: tuple[str, ...] = (),
    mail: tuple[Message, ...] = (),
) -> Work:
    """What whoever works on a part reads: after what came of it `last`, by this `order`."""
    return Work(
        subtask=task,
        given=given,
        feedback=order.feedback if order else feedback,
        mail=mail,
        revision=last.revision + 1 if last else 1,
        used=last.usage if last else Usage(),
    )


class Found(Work):
    """What the node reads that stands for agents found at run time: who works as well."""

    agent: str


class Worker(Protocol):
    """A node that works on one subtask."""

    async def __call__(self, state: Work, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The subtask's result, as an update."""
        ...


def worker(
    agent: Agent, policy: Policy, peers: Sequence[str] = (), *, opening: Performative = "request"
) -> Worker:
    """The node of one agent; it starts when its own subtask's needs are met, not when all are.

    Of `peers`, it may write to those that the policy's channels link it with. `opening` is the act
    by which the manager has it work.
    """
    linked = writes_to(agent.card.name, peers, policy.channels)
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def perform(state: Work, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        task, place = state["subtask"], here(runtime)
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED  # also if the worker is stopped: it will run again
        try:
            given = await needs_of(desk, task, state["given"])
            if any(result is PARKED for result in given.values()) or runtime.drain_requested:
                raise park()
            if unmet := [need for need, result in given.items() if not _usable(result)]:
                outcome = _blocked(agent, state, f"no result of {', '.join(unmet)}")
                _message(place, "refuse", agent.card.name, "manager", task.id, outcome.revision)
            else:
                brief = Brief(
                    results=given,
                    context=await place.context(task, policy, await desk.context(place)),
                    feedback=state["feedback"],
                    messages=_mail(agent, state, given, policy),
                    peers=linked,
                )
                _message(place, opening, "manager", agent.card.name, task.id, state["revision"])
                outcome = await _done(agent, brief, place, policy, desk, state)
            return {"results": {task.id: outcome}}
        finally:
            desk.post(task.id, outcome)

    return perform


class Stand(Protocol):
    """A node that works as whoever was found."""

    async def __call__(self, state: Found, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The subtask's result, as an update."""
        ...


def whoever(policy: Policy, opening: Performative = "request") -> Stand:
    """The node for agents found in the registry; one that is gone by now failed."""

    async def perform(state: Found, runtime: Runtime[Services]) -> dict[str, Any]:
        name = state["agent"]
        there = here(runtime).services.registry.find(Task(goal="be found", agent=name))
        if not there:
            why = f"agent {name} is in the registry no more"
            gone = Result(
                task=state["subtask"].id,
                status="failed",
                failure=Failure(kind="blocked", message=why, agent=name),
                revision=state["revision"],
                usage=state["used"],
            )
            return {"results": {gone.task: gone}}
        found = climbing(there[0], policy)
        return await worker(found, policy, opening=opening)(state, runtime=runtime)

    return perform


def _mail(
    agent: Agent, state: Work, given: Mapping[str, Any], policy: Policy
) -> tuple[Message, ...]:
    """What earlier steps brought, and what came with the results it builds on."""
    if not policy.channels:
        return ()
    came = mailed(given, policy.channels).get(agent.card.name, ())
    by_id = {message.id: message for message in (*state["mail"], *came)}
    return tuple(by_id[name] for name in sorted(by_id))


async def needs_of(desk: Board, task: Task, given: Mapping[str, Result]) -> dict[str, Any]:
    """The results that a part needs, waiting for those that come of this step."""
    earlier: dict[str, Result | None] = dict(given)
    return earlier | {n: await desk.outcome(n) for n in task.needs if n not in earlier}


async def _done(
    agent: Agent, brief: Brief, place: Here, policy: Policy, desk: Board, state: Work
) -> Result:
    task, revision, name = state["subtask"], state["revision"], agent.card.name
    result = await call(agent, task, brief, here=place, policy=policy, limit=desk.limit)
    result = weighed(result, policy)
    if revision > 1:
        stamp = {"revision": revision, "usage": state["used"] + result.usage}
        result = result.model_copy(update=stamp)
    if result.status == "waiting" and result.escalation is not None:
        why = result.escalation.question
        place.tell("escalation", "asked", task=task.id, agent=name, why=why, mark=revision)
    said: Performative = {"failed": "failure", "refused": "refuse"}.get(result.status, "inform")  # type: ignore[assignment]
    _message(place, said, name, "manager", task.id, revision)
    tell_letters(place, result, task.id)
    return result


def _message(place: Here, act: str, sender: str, receiver: str, task: str, mark: object) -> None:
    place.tell("message", act, task=task, agent=sender, data={"to": receiver}, mark=mark)


def _usable(result: Result | None) -> bool:
    return result is not None and result.status in ("done", "partial")


def _blocked(agent: Agent, state: Work, why: str) -> Result:
    wanted = guess(agent, state["subtask"])
    return Result(
        task=state["subtask"].id,
        status="failed",
        failure=Failure(kind="blocked", message=why, wanted=wanted),
        revision=state["revision"],
        usage=state["used"],
    )
