"""What of a master context is shown to an agent: as much as has room, by what its task is about."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kapelle.state.context import Constraint, Decision, MasterContext, Question, named
from kapelle.state.task import Task

BYTES_PER_TOKEN = 3
"""More tokens than English or code has."""

SHORTEST = 8
"""Bytes that no decision is shorter than."""

T = TypeVar("T")
Text = TypeVar("Text", Constraint, Question)

_WORD = re.compile(r"[^\W_]+")


def shown(
    context: MasterContext, task: Task, tokens: int, near: Mapping[str, float] | None = None
) -> MasterContext:
    """The context within `tokens`; how many decisions that leaves out is in `omitted`.

    Goal and hard constraints always; then soft constraints and open questions, what shares words
    with the task first; then decisions: what the task promises, what lies near it by meaning
    (`near`: key to likeness, from a search by vectors), what shares words with its goal and skills,
    the newest.
    """
    if fits(context, tokens):
        return context
    words = frozenset(_words(" ".join((task.goal, *task.skills))))
    hard = [c for c in context.constraints if c.hard]
    room = tokens * BYTES_PER_TOKEN - sum(_size(c.text) for c in hard)
    soft, room = _about([c for c in context.constraints if not c.hard], words, room)
    questions, room = _about(context.questions, words, room)
    decisions = _chosen(context, task, words, room, near or {})
    return context.model_copy(
        update={
            "constraints": (*hard, *soft),
            "questions": tuple(questions),
            "decisions": tuple(decisions),
            "omitted": context.omitted + len(context.decisions) - len(decisions),
        }
    )


def fits(context: MasterContext, tokens: int) -> bool:
    """Whether all of it fits."""
    room = tokens * BYTES_PER_TOKEN - sum(_size(c.text) for c in context.constraints)
    room -= sum(_size(q.text) for q in context.questions)
    if len(context.decisions) * SHORTEST > room:
        return False
    return _fitting(context.decisions, room, _line)[0] == list(context.decisions)


def _about(items: Sequence[Text], words: frozenset[str], room: int) -> tuple[list[Text], int]:
    """Those that fit, in their order, where what shares most words comes first; the room left."""
    shared = [len(words.intersection(_words(item.text))) for item in items]
    order = sorted(range(len(items)), key=lambda n: -shared[n])
    kept, room = _fitting(order, room, lambda n: items[n].text)
    return [items[n] for n in sorted(kept)], room


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _chosen(
    context: MasterContext,
    task: Task,
    words: frozenset[str],
    room: int,
    near: Mapping[str, float],
) -> list[Decision]:
    """The most relevant decisions that fit, in order of key."""
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


def _size(text: str) -> int:
    """Bytes of it: a token holds one sign of some scripts."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _fitting(items: Iterable[T], room: int, text: Callable[[T], str]) -> tuple[list[T], int]:
    """The first of them that fit, and the room that is left; what is too long is passed over."""
    kept: list[T] = []
    for item in items:
        size = _size(text(item)) + 4
        if size <= room:
            kept.append(item)
            room -= size
        if room < SHORTEST:
            break
    return kept, room
