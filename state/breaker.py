"""Breakers: an agent that keeps failing is left alone; a task that many failed at goes to a person.

    closed ── so many of the last calls failed ──► open ── after a while ──► half-open
      ▲                                             ▲                           │
      └──────────────── the probe succeeds ─────────┼───── the probe fails ─────┘

After M. Nygard, Release It!, 2007 (circuit breaker).
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.approval import Escalation
from kapelle.state.budget import Usage
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.task import Attempt, FailureKind, Result, Revision, Task

Admission = Literal["closed", "open", "probe"]
"""Whether an agent may be called: yes; no; once, to see whether it is well again."""

SICK: tuple[FailureKind, ...] = ("raised", "timeout", "invalid")
"""Failures that speak against the agent, not against what it was asked."""


class Breaker(Noun):
    """How one agent fared lately."""

    recent: tuple[bool, ...] = ()
    """Its last outcomes, oldest first; whether they were good."""
    open: bool = False
    """Whether it is to be left alone."""
    since: float = 0.0
    """When it was opened or closed; Unix time in seconds."""
    probed: float = Field(default=0.0)
    """When it was last called to see whether it is well again; Unix time in seconds."""


def admits(breaker: Breaker, now: float, policy: Policy) -> Admission:
    """Whether the agent may be called."""
    if not breaker.open:
        return "closed"
    last = max(breaker.since, breaker.probed)
    return "probe" if now >= last + policy.breaker_probe else "open"


def probing(breaker: Breaker, now: float) -> Breaker:
    """The breaker once a probe has begun; until it ends, or its time is over, there is no other."""
    return breaker.model_copy(update={"probed": now})


def observed(
    breaker: Breaker, now: float, policy: Policy, *, good: bool, probe: bool = False
) -> Breaker:
    """The breaker after an outcome; what was begun before it opened does not count any more."""
    if probe:
        return Breaker(since=now) if good else breaker.model_copy(update={"since": now})
    if breaker.open:
        return breaker
    recent = (*breaker.recent, good)[-policy.breaker_window :]
    failed = recent.count(False)
    if policy.breaker_window and failed >= policy.breaker_share * policy.breaker_window:
        return Breaker(open=True, since=now)
    if recent == breaker.recent:
        return breaker
    return breaker.model_copy(update={"recent": recent})


def newer(mine: Breaker, shared: Breaker) -> Breaker:
    """What a process knows of an agent, and what others wrote down: the later change counts."""
    if shared.since > mine.since:
        return shared
    return mine.model_copy(update={"probed": max(mine.probed, shared.probed)})


def at_fault(result: Result) -> bool:
    """Whether its agent failed: not the budget, a rule, a person or what the task needs."""
    kind = result.failure.kind if result.failure else ""
    return result.status == "failed" and kind not in ("blocked", "budget", "refused")


def asks_person(policy: Policy, failed: Iterable[str]) -> bool:
    """Whether a person is asked about what these agents failed at, where nobody else is to try.

    >>> asks_person(Policy(), ["ann", "bob"]), asks_person(Policy(), ["ann", "bob", "cyd"])
    (False, True)
    """
    if policy.on_failure != "breaker":
        return policy.on_failure == "ask"
    return 1 < policy.agents_per_task <= len(set(failed))


def give_up(task: Task, result: Result, order: Revision | None = None) -> Escalation:
    """The ask about a task that nobody could do, with all attempts side by side."""
    tries = (*(order.tried if order else ()), *result.attempts)
    return Escalation(
        question=f"Nobody could do {task.id!r}. What now?",
        reason=result.failure.message if result.failure else "",
        evidence={"goal": task.goal, "attempts": side_by_side(tries)},
        about="task",
        task=task.id,
        by=result.agent or "",
        offers=("edit", "reject", "respond"),
    )


def side_by_side(tries: Iterable[Attempt]) -> list[JsonValue]:
    """What each agent tried: how often, how it last failed, what that took."""
    by: dict[str, list[Attempt]] = {}
    for attempt in tries:
        by.setdefault(attempt.agent, []).append(attempt)
    return [_side(agent, its) for agent, its in by.items()]


def _side(agent: str, its: list[Attempt]) -> JsonValue:
    failure = its[-1].failure
    return {
        "agent": agent,
        "tries": len(its),
        "failure": failure.kind if failure else None,
        "message": failure.message if failure else "",
        "seconds": round(sum(attempt.seconds for attempt in its), 3),
        "tokens": sum((attempt.usage for attempt in its), Usage()).tokens,
    }
