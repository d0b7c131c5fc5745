"""The gate: the only place that interrupts, in a node that does nothing else."""

from typing import Any, NotRequired, Protocol, TypedDict

from langgraph.errors import GraphInterrupt
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from kapelle.nodes.board import PARKED, board
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.state.answers import advice, answered
from kapelle.state.approval import Approval, Escalation
from kapelle.state.effect import outcome, said
from kapelle.state.estimate import abandoned
from kapelle.state.orders import again
from kapelle.state.policy import Policy
from kapelle.state.proposal import Permit, Proposal
from kapelle.state.shortage import added, goes_on
from kapelle.state.task import Result, Revision


class Asked(TypedDict):
    """What a gate reads: the ask; about a subtask, also its result and the order it followed."""

    ask: Escalation
    stopped: Result | None
    order: NotRequired[Revision | None]


class Gate(Protocol):
    """A node that asks."""

    async def __call__(self, state: Asked, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Stop until a person answers; the answer as an update."""
        ...


class Proposed(TypedDict):
    """What the gate of a conversation reads: the ask, and the call it is about."""

    ask: Escalation
    proposal: Proposal | None


async def permit(state: Proposed, runtime: Runtime[Services]) -> dict[str, Any]:
    """Stop until a person has answered about one proposed call, or one effect in doubt."""
    answer, shown = await _ask(here(runtime), state["ask"]), state["proposal"]
    return (
        {} if shown is None else {"permits": {shown.id: Permit(digest=shown.digest, answer=answer)}}
    )


def gate(policy: Policy) -> Gate:
    """A gate whose answers also reach those that wait for the subtask within the step."""

    async def approve(state: Asked, runtime: Runtime[Services]) -> dict[str, Any]:
        place = here(runtime)
        stopped = state["stopped"]
        if stopped is None:
            return {"answer": await _ask(place, state["ask"]), "escalation": None}
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED
        try:
            answer = await _ask(place, state["ask"])
            outcome = answered(stopped, answer)
            again = _again(outcome, answer, state.get("order"))
            return {"results": {outcome.task: outcome}} | again
        finally:
            desk.post(stopped.task, outcome)

    return approve


async def start_gate(state: Asked, runtime: Runtime[Services]) -> dict[str, Any]:
    """Stop before the start until a person allows it; else what leaves instead."""
    place, ask = here(runtime), state["ask"]
    answer = await _ask(place, ask)
    if goes_on(answer):
        return {"escalation": None, "result": None}
    left = abandoned(ask.task, answer)
    place.tell("run", left.status, task=ask.task)
    return {"escalation": None, "result": left}


def gate_by_task() -> Gate:
    """A gate of which several may ask in one step; the answer goes under the task's id."""

    async def approve(state: Asked, runtime: Runtime[Services]) -> dict[str, Any]:
        ask = state["ask"]
        return {"answers": {ask.task: await _ask(here(runtime), ask)}}

    return approve


def park() -> GraphInterrupt:
    """What a node raises that needs something a person must release.

    Nothing is written, no ask is listed, and the node runs again when the run is resumed.
    """
    return GraphInterrupt()


async def _ask(place: Here, question: Escalation) -> Approval:
    answer: Approval = Approval.model_validate(interrupt(question, response_schema=Approval))
    place.tell(
        "approval",
        answer.decision,
        task=question.task,
        agent=answer.by,
        why=answer.reason,
        key=f"approval:{answer.ask}" if answer.ask else "",  # the inbox told it when it was claimed
        data={"question": question.question, "about": question.about},
    )
    if question.about in ("budget", "estimate") and goes_on(answer):
        more, accounts = added(question, answer)
        for account in accounts:
            await place.services.ledger.grant(place.thread, more, account, key=place.step)
    answer = answer.model_copy(update={"about": question.about})
    return await _written_down(place, question, answer) if question.effect else answer


async def _written_down(place: Here, question: Escalation, answer: Approval) -> Approval:
    """What a person says of an effect in doubt is recorded; then the task goes on."""
    status, output = outcome(answer)
    book, key = place.services.effects, question.effect
    await book.settle(place.thread, key, question.holder, status, output)
    return said(answer, question)


def _again(refused: Result, answer: Approval, before: Revision | None) -> dict[str, Any]:
    if answer.decision != "respond":
        return {}
    return {"revisions": {refused.task: again(refused, before, advice(answer))}}
