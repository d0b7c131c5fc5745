"""The review of what agents claimed, before their work is merged: what is settled, who works again.

Pure: a pattern of any shape can use it. `Review` is one pass over the claims of finished results.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import JsonValue

from kapelle.state.approval import CHOICES, Approval, Choice, Escalation
from kapelle.state.context import Claim, Contradiction, MasterContext, Side, named
from kapelle.state.contradictions import collisions
from kapelle.state.resolving import (
    Reputation,
    advice,
    at_stake,
    choose,
    dismissed,
    resolve,
)
from kapelle.state.sayings import Said
from kapelle.state.task import Plan, Result, Revision, Task, dependents
from kapelle.state.verdict import Finding

Found = tuple[Contradiction, ...]


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
    found = collisions(said, context, promises)
    return tuple(resolve(one, context, reputation) for one in found)


def still_open(found: Iterable[Contradiction]) -> Found:
    """What neither rule nor judge nor person has settled. An omission is nothing to settle."""
    return tuple(c for c in found if _is_open(c))


def _is_open(one: Contradiction) -> bool:
    return one.rule is None and one.kind != "omission"


def ruled(
    found: Found, rulings: Mapping[str, JsonValue], context: MasterContext, judge: str
) -> Found:
    """With what a judge chose among the sides; it can't bring in a value of its own."""
    wanted = {named(key): value for key, value in rulings.items()}
    return tuple(
        _ruled(one, wanted[named(one.key)], context, judge)
        if _is_open(one) and named(one.key) in wanted
        else one
        for one in found
    )


def _ruled(
    one: Contradiction, value: JsonValue, context: MasterContext, judge: str
) -> Contradiction:
    """As the judge chose: the value that its side claims, not the judge's own words for it."""
    wanted = next((side.value for side in one.sides if side.value == value), value)
    chosen = choose(one, wanted, context, rule="judge", who=judge)
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
    keys = ", ".join(c.key for c in doubts)
    return Escalation(
        question=f"Agents contradict each other about {keys}. What holds?",
        reason="; ".join(c.why for c in doubts),
        evidence={
            "decide": proposals(doubts),
            "sides": {c.key: [_shown(c, s) for s in range(len(c.sides))] for c in doubts},
        },
        about="claims",
        task=task,
        offers=offers,
    )


def _shown(found: Contradiction, number: int) -> dict[str, JsonValue]:
    side = found.sides[number]
    said: list[JsonValue] = [
        {"by": c.by, "task": c.task, "confidence": c.confidence, "evidence": c.evidence}
        for c in side.claims
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
    given = proposals(found)
    if answer.decision == "edit":
        given = _edited(given, answer.value)
    return tuple(
        choose(c, given[c.key], context, rule="person", who=answer.by)
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
    why: dict[str, tuple[str, ...]] = {}
    for one in found:
        for task in at_stake(one):
            why[task] = (*why.get(task, ()), advice(one))
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
    why: dict[str, tuple[str, ...]] = {}
    for one in findings:
        said = f"A judge sees a contradiction about {one.key}: {one.why}; claim {one.key}"
        for task in one.tasks:
            why[task] = (*why.get(task, ()), said)
    return _orders(why, plan, results)


def _orders(
    why: Mapping[str, tuple[str, ...]], plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    known = {task.id for task in plan.tasks}
    orders = {task: said for task, said in why.items() if task in known and task in results}
    for task in dependents(plan, orders):
        orders.setdefault(task, ("What it builds on is done again",))
    return {
        task: Revision(task=task, number=results[task].revision + 1, feedback=said)
        for task, said in sorted(orders.items())
        if task in results and results[task].status in ("done", "partial")
    }


def sent_back(found: Iterable[Contradiction], draft: Result) -> tuple[str, ...]:
    """What is to be mended in a draft: what its author claims and does not stand, or omitted."""
    own = {claim.model_dump_json() for claim in draft.claims}
    return tuple(
        advice(one)
        for one in found
        if not own.isdisjoint(claim.model_dump_json() for claim in one.losing)
        or (one.kind == "omission" and draft.task in one.promised)
    )


def flagged(found: Iterable[Contradiction], plan: Plan, whole: str) -> Found:
    """The record, where nobody works again any more: with the tasks that rest on what fell.

    `whole` is the id of the task they are parts of: who planned or merged it may be a maker too.
    """
    known = {whole, *(task.id for task in plan.tasks)}
    behind = cache(lambda task: dependents(plan, [task]))
    return tuple(c.model_copy(update={"flagged": _resting_on(c, known, behind)}) for c in found)


def _resting_on(
    found: Contradiction, known: Collection[str], behind: Callable[[str], set[str]]
) -> tuple[str, ...]:
    """The tasks whose work rests on what does not stand: its makers, and all that built on them."""
    makers = {task for task in at_stake(found) if task in known}
    return tuple(sorted(makers.union(*map(behind, makers))))


def standing(claims: Iterable[Claim], found: Iterable[Contradiction]) -> tuple[Claim, ...]:
    """The claims without those that fell."""
    losing = [claim for c in found for claim in c.losing]
    keys, fallen = {c.key for c in losing}, {c.model_dump_json() for c in losing}
    return tuple(c for c in claims if c.key not in keys or c.model_dump_json() not in fallen)


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
