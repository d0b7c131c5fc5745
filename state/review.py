"""The review of what agents claimed, before their work is merged: what is settled, who works again.

Pure: a pattern of any shape can use it. `Review` is one pass over the claims of finished results.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from kapelle.state.approval import CHOICES, Approval, Choice, Escalation
from kapelle.state.context import Claim, Contradiction, MasterContext, Side, named
from kapelle.state.contradictions import collisions
from kapelle.state.needs import dependents, needed_by, reached
from kapelle.state.resolving import (
    Reputation,
    advice,
    at_stake,
    choose,
    dismissed,
    fallen,
    resolve,
)
from kapelle.state.sayings import Said, assertion
from kapelle.state.task import Plan, Result, Revision, Task
from kapelle.state.terms import Terms
from kapelle.state.verdict import Finding

Found = tuple[Contradiction, ...]

SHOWN = 100
"""Contradictions that one ask shows, sides of one and claims of a side. What is proposed it shows
for all; the record of the run keeps every side."""


def claims_of(results: Mapping[str, Result]) -> list[Claim]:
    """All that finished results claim, in order of task."""
    done = (r for _, r in sorted(results.items()) if r.status in ("done", "partial"))
    return [claim for result in done for claim in result.claims]


def promised(tasks: Iterable[Task]) -> dict[str, tuple[str, ...]]:
    """Which tasks promised a key."""
    found: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        for key in task.promises:
            found[named(key)] = (*found.get(named(key), ()), task.id)
    return found


def to_review(
    plan: Plan, results: Mapping[str, Result], planned: Sequence[Claim] = ()
) -> tuple[str, ...]:
    """What there is to review: the finished results, if any of them or the plan says anything."""
    done = {t: r for t, r in sorted(results.items()) if r.status in ("done", "partial")}
    says = planned or any(t.promises for t in plan.tasks)
    says = says or any(r.claims or r.messages for r in done.values())
    return tuple(f"{task}@{result.revision}" for task, result in done.items()) if says else ()


def reviewed(
    said: Mapping[str, Said],
    promises: Mapping[str, Sequence[str]],
    context: MasterContext,
    reputation: Reputation | None = None,
) -> Found:
    """Everything that can't all hold, settled as far as rules go."""
    found, terms = collisions(said, context, promises), Terms.of(context)
    return tuple(resolve(one, terms, reputation) for one in found)


def still_open(found: Iterable[Contradiction]) -> Found:
    """What neither rule nor judge nor person has settled. An omission is nothing to settle."""
    return tuple(c for c in found if _is_open(c))


def _is_open(one: Contradiction) -> bool:
    return one.rule is None and one.kind != "omission"


def ruled(
    found: Found, rulings: Mapping[str, JsonValue], context: MasterContext, judge: str
) -> Found:
    """With what a judge chose among the sides; it can't bring in a value of its own."""
    wanted, terms = {named(key): value for key, value in rulings.items()}, Terms.of(context)
    return tuple(
        _ruled(one, wanted[named(one.key)], terms, judge)
        if _is_open(one) and named(one.key) in wanted
        else one
        for one in found
    )


def _ruled(one: Contradiction, value: JsonValue, terms: Terms, judge: str) -> Contradiction:
    """As the judge chose: the value that its side claims, not the judge's own words for it."""
    wanted = next((side.value for side in one.sides if side.value == value), value)
    chosen = choose(one, wanted, terms, rule="judge", who=judge)
    stands = [side for side in chosen.sides if side.stands]
    if not stands or chosen.decision is None:
        return one
    said = chosen.decision.model_copy(update={"value": stands[0].value})
    return chosen.model_copy(update={"decision": said})


def proposals(found: Iterable[Contradiction]) -> dict[str, JsonValue]:
    """What is proposed for each key that is open: what more agents claim, then the surer."""
    return {c.key: max(c.sides, key=_support).value for c in still_open(found)}


def _support(side: Side) -> tuple[int, float]:
    return len({c.by for c in side.claims}), max((c.confidence for c in side.claims), default=0.0)


def ask_about(found: Found, task: str, offers: tuple[Choice, ...] = CHOICES) -> Escalation:
    """The ask about what no rule and no judge could settle."""
    doubts = still_open(found)
    shown, rest = doubts[:SHOWN], len(doubts[SHOWN:])
    more = [f"{rest} more"] if rest else []
    return Escalation(
        question=f"Agents contradict each other about {', '.join([c.key for c in shown] + more)}. "
        "What holds?",
        reason="; ".join([c.why for c in shown] + more),
        evidence={
            "decide": proposals(doubts),
            "sides": _sides(shown),
        },
        about="claims",
        task=task,
        offers=offers,
    )


def _sides(shown: Iterable[Contradiction]) -> dict[str, JsonValue]:
    """The sides by key; a key that is in doubt for two reasons has those of both."""
    sides: dict[str, list[JsonValue]] = {}
    for one in shown:
        its = sides.setdefault(one.key, [])
        its += [side for side in map(_shown, one.sides[:SHOWN]) if side not in its]
    return dict(sides)


def _shown(side: Side) -> dict[str, JsonValue]:
    said: list[JsonValue] = [
        {"by": c.by, "task": c.task, "confidence": c.confidence, "evidence": c.evidence}
        for c in side.claims[:SHOWN]
    ]
    return {"value": side.value, "claims": said, "held": side.held}


def answered_by(found: Found, answer: Approval, context: MasterContext) -> Found:
    """With what a person decided: approve what was proposed, edit it, or reject all sides.

    For one key that is open, `edit` may give its value alone.
    """
    if answer.decision == "respond":
        return found
    if answer.decision == "reject":
        return tuple(dismissed(c, answer.by) if _is_open(c) else c for c in found)
    given, terms = proposals(found), Terms.of(context)
    if answer.decision == "edit":
        given = _edited(given, answer.value)
    return tuple(
        choose(c, given[c.key], terms, rule="person", who=answer.by)
        if c.rule is None and c.key in given
        else c
        for c in found
    )


def _edited(proposed: Mapping[str, JsonValue], value: JsonValue) -> dict[str, JsonValue]:
    if isinstance(value, dict) and isinstance(value.get("decide"), dict):
        value = value["decide"]
    known = {named(key): key for key in proposed}
    if isinstance(value, dict) and {named(str(key)) for key in value} <= set(known):
        return {known[named(str(key))]: v for key, v in value.items()}
    return {next(iter(proposed)): value} if len(proposed) == 1 else {}


def again(
    found: Iterable[Contradiction], plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    """Who works again: whose claims do not stand, who promised more, and all that built on them."""
    why: dict[str, list[str]] = {}
    for one in found:
        if tasks := at_stake(one):
            said = advice(one)
            for task in tasks:
                why.setdefault(task, []).append(said)
    return _orders(why, plan, results)


def told(
    found: Iterable[Contradiction], what: str, plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    """Who works again because a person answered `what` instead of deciding."""
    makers = {claim.task: (what,) for one in still_open(found) for claim in one.claims}
    return _orders(makers, plan, results)


def opened(
    findings: Iterable[Finding], plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    """Who works again because a judge sees a contradiction between texts: to claim the key."""
    why: dict[str, list[str]] = {}
    for one in findings:
        said = f"A judge sees a contradiction about {one.key}: {one.why}; claim {one.key}"
        for task in one.tasks:
            why.setdefault(task, []).append(said)
    return _orders(why, plan, results)


def _orders(
    why: Mapping[str, Sequence[str]], plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    known = {task.id for task in plan.tasks}
    orders = {task: (*said,) for task, said in why.items() if task in known and task in results}
    for task in dependents(plan, orders):
        orders.setdefault(task, ("What it builds on is done again",))
    return {
        task: Revision(task=task, number=results[task].revision + 1, feedback=said)
        for task, said in sorted(orders.items())
        if task in results and results[task].status in ("done", "partial")
    }


def sent_back(found: Iterable[Contradiction], draft: Result) -> tuple[str, ...]:
    """What is to be mended in a draft: what its author claims and does not stand, or omitted."""
    own = set(map(assertion, draft.claims))
    return tuple(
        advice(one)
        for one in found
        if not own.isdisjoint(map(assertion, one.losing))
        or (one.kind == "omission" and draft.task in one.promised)
    )


def flagged(found: Iterable[Contradiction], plan: Plan, whole: str) -> Found:
    """The record, where nobody works again any more: with the tasks that rest on what fell.

    `whole` is the id of the task they are parts of: who planned or merged it may be a maker too.
    """
    known, behind = {whole, *(task.id for task in plan.tasks)}, needed_by(plan)
    return tuple(_flagged(c, _resting_on(c, known, behind)) for c in found)


def _flagged(found: Contradiction, tasks: tuple[str, ...]) -> Contradiction:
    same = found.flagged == tasks
    return found if same else found.model_copy(update={"flagged": tasks})


def _resting_on(
    found: Contradiction, known: set[str], behind: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The tasks whose work rests on what does not stand: its makers, and all that built on them."""
    makers = known & set(at_stake(found))
    return tuple(sorted(makers | reached(behind, makers)))


def standing(claims: Iterable[Claim], found: Iterable[Contradiction]) -> tuple[Claim, ...]:
    """The claims without those that fell."""
    lost = fallen(found)
    return tuple(claim for claim in claims if assertion(claim) not in lost)


def omitted(found: Iterable[Contradiction]) -> tuple[str, ...]:
    """The keys that were promised and not delivered, as `task/key`."""
    return tuple(f"{t}/{c.key}" for c in found if c.kind == "omission" for t in c.promised)


def recorded(old: Iterable[Contradiction], new: Iterable[Contradiction]) -> Found:
    """The record of all reviews: of a contradiction found again, how it stands now.

    What agents agreed on when they worked again stays in it; a promise that was kept does not. A
    claim that comes again after its key was decided does not change what decided it.
    """
    kept = {_matter(c): c for c in old if c.kind != "omission"}
    for one in new:
        before = kept.get(_matter(one))
        same = before is not None and before.rule is not None and one.rule == "decided"
        kept[_matter(one)] = _joined(before, one) if before and same else one
    return tuple(kept[matter] for matter in sorted(kept))


def _joined(before: Contradiction, now: Contradiction) -> Contradiction:
    """What decided it, with who has claimed something since."""
    known = {_voice(claim) for claim in before.claims}
    sides = list(before.sides)
    for side in now.sides:
        fresh = tuple(c for c in side.claims if _voice(c) not in known)
        at = next((n for n, s in enumerate(sides) if s.claims and s.value == side.value), None)
        if fresh and at is not None:
            more = {"claims": (*sides[at].claims, *fresh)}
            sides[at] = sides[at].model_copy(update=more)
        elif fresh:
            sides.append(side.model_copy(update={"claims": fresh, "held": ""}))
    sides.sort(key=lambda side: not side.stands)
    return before.model_copy(update={"flagged": now.flagged, "sides": tuple(sides)})


def _voice(claim: Claim) -> tuple[str, str, str]:
    """Who says what where, however sure and whatever had been read."""
    return claim.by, claim.task, json.dumps(claim.value, sort_keys=True)


def still_settled(new: Found, old: Found) -> Found:
    """What is found once more, with how it was settled before, where no rule settles it now."""
    known = {_matter(c): c for c in old if c.rule is not None}
    return tuple(c if c.rule is not None else known.get(_matter(c), c) for c in new)


def _matter(found: Contradiction) -> tuple[str, str]:
    """What it is about: a claim that has become stale contradicts as it did before."""
    return found.key, "value" if found.kind == "stale" else found.kind


def stands_in(context: MasterContext, decided: Sequence[Any]) -> bool:
    """Whether the context holds nothing else than these decisions: else another was faster."""
    held = {d.key: d.value for d in context.decisions}
    return all(held.get(named(d.key), d.value) == d.value for d in decided)
