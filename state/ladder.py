"""The ladder: what is done with work whose author is not sure enough of it."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

from kapelle.state.approval import Escalation
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard, fits, is_a, reach
from kapelle.state.task import TIERS, Brief, Result, Revision, Task, Tier, settled
from kapelle.state.verdict import Verdict

ROLES: dict[str, Tier] = {
    "research": "economy",
    "formatting": "economy",
    "planning": "premium",
    "judging": "premium",
    "synthesis": "premium",
}
"""What class of model a kind of work needs; any other is `standard`."""

Rung = Literal["tier", "judge", "person"]
"""Who looks next: an agent of a higher tier, the judge, a person."""


def tier_of(skills: Iterable[str]) -> Tier:
    """The class of model that an agent with these skills needs: what the hardest of them needs.

    >>> tier_of(["research.web"]), tier_of(["research", "planning"]), tier_of([])
    ('economy', 'premium', 'standard')
    """
    found = {tier for skill in skills for role, tier in ROLES.items() if is_a(skill, role)}
    other = any(not any(is_a(skill, role) for role in ROLES) for skill in skills)
    if other or not found:
        found.add("standard")
    return TIERS[max(map(TIERS.index, found))]


def doubtful(result: Result, policy: Policy) -> bool:
    """Whether finished work is below the confidence asked for."""
    sure = result.confidence is None or result.confidence >= policy.min_confidence
    return result.status == "done" and not sure


def weighed(result: Result, policy: Policy) -> Result:
    """A result below the confidence asked for stops, for whoever looks next."""
    if not doubtful(result, policy):
        return result
    doubt = Escalation(
        question=(
            f"{result.agent} is only {result.confidence:.0%} sure of {result.task!r}. Accept it?"
        ),
        reason=f"The policy asks for {policy.min_confidence:.0%}.{_above(result)}",
        evidence=result.output,
        about="doubt",
        task=result.task,
        by=result.agent or "",
    )
    return result.model_copy(update={"status": "waiting", "escalation": doubt})


def _above(result: Result) -> str:
    """Why no higher tier has answered, where one was tried."""
    last = result.attempts[-1].failure if result.attempts else None
    return f" The next tier: {last.message}" if last else ""


def rung(
    task: Task,
    result: Result,
    order: Revision | None,
    cards: Sequence[AgentCard],
    *,
    judged: bool,
) -> Rung:
    """Who looks next at doubtful work: a higher tier that has not had it; the judge; a person."""
    if climbers(task, result, order, cards):
        return "tier"
    return "judge" if judged else "person"


def climbers(
    task: Task, result: Result, order: Revision | None, cards: Sequence[AgentCard]
) -> list[AgentCard]:
    """The agents of higher tiers that fit a task and have not had it, the next tier first."""
    tried = {*(order.avoid if order else ()), result.agent or ""}
    last = [TIERS.index(card.top or card.tier) for card in cards if card.name in tried]
    higher = [
        card
        for card in cards
        if card.name not in tried and fits(card, task) and TIERS.index(card.tier) > max(last or [9])
    ]
    return sorted(higher, key=lambda card: (TIERS.index(card.tier), card.name))


def climb(result: Result, order: Revision | None, cards: Sequence[AgentCard]) -> Revision:
    """The order to have doubtful work done by a higher tier."""
    at = next((TIERS.index(c.top or c.tier) for c in cards if c.name == result.agent), 0)
    below = (card.name for card in cards if TIERS.index(card.tier) <= at)
    avoid = dict.fromkeys((*(order.avoid if order else ()), result.agent or "", *below))
    return Revision(
        task=result.task,
        number=result.revision + 1,
        feedback=(*(order.feedback if order else ()), unsure(result)),
        avoid=tuple(avoid),
        failed=order.failed if order else (),
        tried=(*(order.tried if order else ()), *result.attempts),
    )


def unsure(result: Result) -> str:
    """What the next tier is told of doubtful work."""
    return f"{result.agent} was only {result.confidence or 0:.0%} sure of its answer"


class Climb(TypedDict, total=False):
    """What an agent of several tiers remembers while it climbs."""

    task: Task
    brief: Brief
    result: Result
    """What stands: the highest tier's, of those that did not fail."""


def standing(before: Result | None, made: Result) -> Result:
    """What stands once a higher tier had its turn: what it made; if it failed, what stood before.

    What all tiers used and tried is in it.
    """
    if before is None:
        return made
    stands = before if made.status in ("failed", "refused") else made
    tries, usage = (*before.attempts, *made.attempts), before.usage + made.usage
    return stands.model_copy(update={"attempts": tries, "usage": usage})


def first_rung(tiers: Sequence[Tier], wanted: Tier | None) -> int:
    """Where a climb begins: at the first tier that is not below the one wanted.

    >>> first_rung(["economy", "premium"], None), first_rung(["economy", "premium"], "standard")
    (0, 1)
    """
    return min(range(len(tiers)), key=lambda at: (reach(tiers[at], wanted), at))


def in_doubt(result: Result) -> bool:
    """Whether it stopped because its author is not sure of it, and no person is asked yet."""
    ask = result.escalation
    return result.status == "waiting" and ask is not None and ask.about == "doubt"


def for_judge(result: Result) -> Result:
    """Doubtful work as a judge is shown it, as if it were done; any other as it is."""
    return settled(result, status="done", escalation=None) if in_doubt(result) else result


def graded(result: Result, verdict: Verdict | None) -> Result:
    """What a judge accepted is as sure as the judge's score, if it gives one."""
    if verdict is None or verdict.decision != "accept" or verdict.score is None:
        return result
    return settled(result, confidence=verdict.score)


def reviewed(stopped: Result, verdict: Verdict, used: Usage) -> Result:
    """Doubtful work after the judge: done if it is accepted, else for a person."""
    usage = stopped.usage + used
    if verdict.decision == "accept":
        sure = verdict.score if verdict.score is not None else stopped.confidence
        return settled(stopped, status="done", escalation=None, confidence=sure, usage=usage)
    assert stopped.escalation is not None
    why = f"{stopped.escalation.reason} The judge: {verdict.reason or verdict.decision}"
    ask = verdict.escalation or stopped.escalation
    change = {"about": "task", "reason": why, "task": stopped.task}
    return settled(stopped, escalation=ask.model_copy(update=change), usage=usage)
