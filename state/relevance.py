"""What of a master context is shown to an agent: as much as has room, by what its task is about."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from kapelle.state.context import Decision, MasterContext, named
from kapelle.state.task import Task

BYTES_PER_TOKEN = 3
"""More tokens than English or code has."""

SHORTEST = 8
"""Bytes that no decision is shorter than."""

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+")


def shown(
    context: MasterContext, task: Task, tokens: int, near: Mapping[str, float] | None = None
) -> MasterContext:
    """The context within `tokens`; how many decisions that leaves out is in `omitted`.

    Goal and hard constraints always; then soft constraints and open questions; then decisions: what
    the task promises, what lies near it by meaning (`near`: key to likeness, from a search by
    vectors), what shares words with its goal and skills, the newest.
    """
    if fits(context, tokens):
        return context
    room = tokens * BYTES_PER_TOKEN
    room -= sum(len(c.text) for c in context.constraints if c.hard)
    soft, room = _fitting([c for c in context.constraints if not c.hard], room, lambda c: c.text)
    questions, room = _fitting(list(context.questions), room, lambda q: q.text)
    decisions = _chosen(context, task, room, near or {})
    return context.model_copy(
        update={
            "constraints": (*(c for c in context.constraints if c.hard), *soft),
            "questions": tuple(questions),
            "decisions": tuple(decisions),
            "omitted": context.omitted + len(context.decisions) - len(decisions),
        }
    )


def fits(context: MasterContext, tokens: int) -> bool:
    """Whether all of it fits."""
    room = tokens * BYTES_PER_TOKEN - sum(len(c.text) for c in context.constraints)
    room -= sum(len(q.text) for q in context.questions)
    if len(context.decisions) * SHORTEST > room:
        return False
    return _fitting(context.decisions, room, _line)[0] == list(context.decisions)


def _chosen(
    context: MasterContext, task: Task, room: int, near: Mapping[str, float]
) -> list[Decision]:
    """The most relevant decisions that fit, in order of key."""
    words = frozenset(_WORD.findall(" ".join((task.goal, *task.skills)).casefold()))
    promised = {named(key) for key in task.promises}

    def worth(d: Decision) -> tuple[float, int, int]:
        close = 2.0 if d.key in promised else near.get(d.key, 0.0) if near else 0.0
        return (close, _shared(d, words), d.version)

    kept, _ = _fitting(sorted(context.decisions, key=worth, reverse=True), room, _line)
    return sorted(kept, key=lambda d: d.key)


def _shared(decision: Decision, words: frozenset[str]) -> int:
    """How many words it has in common with a task; those of its key count twice."""
    found = 2 * len(words.intersection(decision.key.replace("_", ".").replace("-", ".").split(".")))
    if isinstance(decision.value, str):
        found += len(words.intersection(decision.value.casefold().split()))
    return found


def _line(decision: Decision) -> str:
    return f"{decision.key}: {json.dumps(decision.value)}"


def _fitting(items: Iterable[T], room: int, text: Callable[[T], str]) -> tuple[list[T], int]:
    """The first of them that fit, and the room that is left; what is too long is passed over."""
    kept: list[T] = []
    for item in items:
        size = len(text(item)) + 4
        if size <= room:
            kept.append(item)
            room -= size
        if room < SHORTEST:
            break
    return kept, room
