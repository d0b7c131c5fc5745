"""What the journal is told of a call: each try, what it used, what was too much, what is late."""

from contextlib import suppress
from typing import Any

from kapelle.nodes.attempt import Try
from kapelle.state.budget import Usage
from kapelle.state.errors import DatabaseFailed
from kapelle.state.task import Attempt


def tell_attempt(mine: Try, attempt: Attempt) -> None:
    """How a try ended, and what it used."""
    failure, mark = attempt.failure, f"{attempt.number}@{attempt.started:.3f}"
    data: dict[str, Any] = {"number": attempt.number, "seconds": round(attempt.seconds, 6)}
    if attempt.model:
        data["model"] = attempt.model
    mine.here.tell(
        "attempt",
        failure.kind if failure else "done",
        task=mine.task.id,
        agent=attempt.agent,
        usage=attempt.usage,
        why=failure.message if failure else "",
        data=data,
        mark=mark,
    )
    if attempt.usage.tokens:
        _spend(mine, "settled", attempt.usage, mark)


def tell_overrun(mine: Try, reserved: Usage, used: Usage, started: float) -> None:
    """What a provider used beyond the limit that it was given."""
    if not reserved.tokens:
        return
    tokens, _, money = used.beyond(reserved)
    if tokens or money:
        why = f"it used {tokens} tokens and {money} µ$ more than were reserved"
        over, mark = Usage(output_tokens=tokens, micro_usd=money), f"{started:.3f}"
        _spend(mine, "overrun", over, f"{mine.brief.attempt}@{mark}", why)


def tell_late(mine: Try) -> None:
    """An answer came when nobody waited for it any more."""
    with suppress(DatabaseFailed):  # so late that nobody counts any more
        mine.here.tell(
            "attempt",
            "late",
            task=mine.task.id,
            agent=mine.name,
            why="it answered when nobody waited for it any more; the answer is ignored",
            mark=mine.brief.attempt,
        )


def _spend(mine: Try, what: str, usage: Usage, mark: str, why: str = "") -> None:
    mine.here.tell(
        "spend", what, task=mine.task.id, agent=mine.name, usage=usage, why=why, mark=mark
    )
