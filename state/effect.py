"""Effects: what an agent does to the world, and the law by which each is done once."""

from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.noun import Noun

EffectStatus = Literal["begun", "done", "undone"]
"""On its way (or nobody knows), done, surely not done."""

Meeting = Literal["act", "known", "unsure"]
"""What to do where an effect is met: do it, take what it returned, ask a person."""


class Effect(Noun):
    """One act with consequences, like a mail that is sent; written down before and after."""

    key: str = Field(min_length=1)
    """Names it in the book: what has the same key is the same."""
    name: str = Field(min_length=1)
    """What people are told it is called."""
    holder: str
    """Names the execution that began it."""
    status: EffectStatus = "begun"
    told: JsonValue = None
    """What a person is shown of it: what is called, and with what."""
    output: JsonValue = None
    """What it returned, once it is done."""
    task: str = ""
    agent: str = ""
    at: float = 0.0
    """When it was begun; Unix time in seconds."""


def meet(known: Effect, holder: str, *, idempotent: bool = False) -> Meeting:
    """What the execution `holder` does with an effect as it is recorded after it was begun.

    What another execution began and nobody finished may have happened or not: only where the other
    side ignores repetition (`idempotent`) may it be done again unasked.
    """
    if known.status == "done":
        return "known"
    if known.holder == holder or idempotent:
        return "act"
    return "unsure"


def began(known: Effect | None, wanted: Effect) -> Effect:
    """How an effect is recorded once `wanted` begins: as it was, unless it surely is not done."""
    return wanted if known is None or known.status == "undone" else known


def settled_by(known: Effect, holder: str, status: EffectStatus, output: JsonValue) -> Effect:
    """How an effect is recorded once an execution says how it ended; the first `done` counts."""
    if known.status == "done" or (status == "undone" and known.holder != holder):
        return known
    return known.model_copy(update={"status": status, "output": output})


def doubt(effect: Effect) -> Escalation:
    """The ask about an effect that was begun and of which nobody knows whether it happened."""
    return Escalation(
        question=f"Did {effect.name!r} happen?",
        reason=(
            "It was begun, and whoever did it ended before saying so. Approve: it did, go on. "
            "Edit: it did, and this is what it returned. Reject: it did not, do it now."
        ),
        evidence={"effect": effect.name, "begun_at": effect.at, "call": effect.told},
        task=effect.task,
        by=effect.agent,
        offers=("approve", "edit", "reject"),
        effect=effect.key,
        holder=effect.holder,
    )


def outcome(answer: Approval) -> tuple[EffectStatus, JsonValue]:
    """What a person says of an effect in doubt, as it is recorded."""
    if answer.decision == "reject":
        return "undone", None
    return "done", answer.value if answer.decision == "edit" else None


def said(answer: Approval, ask: Escalation) -> Approval:
    """The answer about an effect, as the order to do the task again that it means."""
    how = "No" if answer.decision == "reject" else "Yes"
    why = f"{ask.question} {how}, it is written down; go on from there"
    return answer.model_copy(update={"decision": "respond", "value": why})
