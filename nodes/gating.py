"""The gate: the only place that interrupts, in a node that does nothing else."""

from typing import Any, Protocol, TypedDict

from langgraph.errors import GraphInterrupt
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from kapelle.nodes.board import PARKED, board
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval, Escalation
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Revision
from kapelle.state.team import advice, answered


class Asked(TypedDict):
    """What a gate reads: the ask, and the subtask's result if it is about one."""

    ask: Escalation
    stopped: Result | None


class Gate(Protocol):
    """A node that asks."""

    async def __call__(self, state: Asked, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Stop until a person answers; the answer as an update."""
        ...


def gate(policy: Policy) -> Gate:
    """A gate whose answers also reach those that wait for the subtask within the step."""

    async def approve(state: Asked, runtime: Runtime[Services]) -> dict[str, Any]:
        stopped = state["stopped"]
        if stopped is None:
            return {"answer": _ask(here(runtime), state["ask"]), "escalation": None}
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED
        try:
            answer = _ask(here(runtime), state["ask"])
            outcome = answered(stopped, answer)
            return {"results": {outcome.task: outcome}} | _again(outcome, answer)
        finally:
            desk.post(stopped.task, outcome)

    return approve


def park() -> GraphInterrupt:
    """What a node raises that needs something a person must release.

    Nothing is written, no ask is listed, and the node runs again when the run is resumed.
    """
    return GraphInterrupt()


def _ask(place: Here, question: Escalation) -> Approval:
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
    return answer


def _again(refused: Result, answer: Approval) -> dict[str, Any]:
    if answer.decision != "respond":
        return {}
    order = Revision(task=refused.task, number=refused.revision + 1, feedback=(advice(answer),))
    return {"revisions": {refused.task: order}}
