"""What is about to leave a pattern: what of it can't all hold, and how that is shown in it.

A team reconciles what its workers claim before it merges their work (`kapelle.state.review`). Every
other pattern does so at its end, by the same laws.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

from kapelle.state.approval import Approval, Escalation
from kapelle.state.context import Claim, Contradiction
from kapelle.state.resolving import at_stake
from kapelle.state.review import Found, omitted, promised, standing
from kapelle.state.task import Result, Status, Task

Rests = Callable[[set[str]], Iterable[str]]
"""Of tasks by id: those that built on them."""


class Leaving(TypedDict, total=False):
    """What every pattern remembers of its end."""

    task: Task
    result: Result | None
    """What leaves."""
    found: Found
    """What can't all hold of it, while parts of that are open."""
    escalation: Escalation | None
    """What a person is asked about the whole."""
    answer: Approval | None


NOBODY_ASKED: Leaving = {"found": (), "escalation": None, "answer": None}
"""How it begins."""


def asserts(result: Result, promises: Mapping[str, object]) -> bool:
    """Whether anything in it is to be reconciled: it claims something, or was to."""
    return result.status in ("done", "partial") and bool(result.claims or promises)


def to_promise(task: Task, parts: Iterable[Task] = ()) -> dict[str, tuple[str, ...]]:
    """Which tasks promised a key: the parts, where there are any, else the whole."""
    return promised(tuple(parts) or (task,))


def leaving(result: Result, found: Found, rests: Rests) -> Result:
    """The result, once all is reconciled: what fell is no claim of it, and the record shows it.

    Tasks whose work rests on what fell are flagged; a promise that nobody kept is missing.
    """
    record = tuple(c.model_copy(update={"flagged": _resting(c, rests)}) for c in found)
    lost = omitted(found)
    status: Status = "partial" if lost else result.status
    return result.model_copy(
        update={
            "status": status,
            "claims": standing(result.claims, found),
            "missing": (*result.missing, *lost),
            "contradictions": (*record, *result.contradictions),
        }
    )


def _resting(found: Contradiction, rests: Rests) -> tuple[str, ...]:
    makers = set(at_stake(found))
    return tuple(sorted(makers.union(rests(makers)))) if makers else ()


def nobody(tasks: set[str]) -> Iterable[str]:
    """Where no task builds on another."""
    del tasks
    return ()


def asserted(results: Iterable[Result]) -> tuple[Claim, ...]:
    """All that these results claim."""
    return tuple(claim for result in results for claim in result.claims)


def with_record(draft: Result, record: Sequence[Contradiction]) -> Result:
    """A draft, with what could not all hold; a promise that nobody kept is missing."""
    lost = tuple(key for key in omitted(record) if key not in draft.missing)
    nested = tuple(c for c in draft.contradictions if c not in record)
    return draft.model_copy(
        update={
            "status": "partial" if lost and draft.status == "done" else draft.status,
            "missing": (*draft.missing, *lost),
            "contradictions": (*record, *nested),
        }
    )


def with_claims(left: Result, stand: Iterable[Claim]) -> Result:
    """What leaves a team, with all that stands of what was claimed in it."""
    good = left.status in ("done", "partial")
    return left.model_copy(update={"claims": tuple(stand) if good else ()})
