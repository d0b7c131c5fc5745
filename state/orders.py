"""What is ordered in a team: who does which subtask, and what is done again.

Again after a failure, by another agent; because a judge said so; under another plan.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from pydantic import JsonValue

from kapelle.state.budget import Budget, Usage
from kapelle.state.needs import dependents
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard, choose, fits
from kapelle.state.task import Plan, Result, Revision, Task, flaws_of
from kapelle.state.team import Round, Team, broke, lost_parts, standings
from kapelle.state.verdict import Verdict


def assign(
    tasks: Iterable[Task],
    cards: Sequence[AgentCard],
    revisions: Mapping[str, Revision],
    sick: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Who does what: by skill, then evenly, the more urgent first. The same for any order given.

    Of those that are `sick` each gets so many tasks, none or one to see whether it is well again,
    unless nobody else fits. A subtask nobody fits is left out.
    """
    load: dict[str, int] = {}
    chosen: dict[str, str] = {}
    for task in sorted(tasks, key=lambda t: (-t.priority, t.id)):
        order = revisions.get(task.id)
        spared = [name for name, most in (sick or {}).items() if load.get(name, 0) >= most]
        card = choose(cards, task, load, (*(order.avoid if order else ()), *spared))
        if card is not None:
            chosen[task.id] = card.name
            load[card.name] = load.get(card.name, 0) + 1
    return chosen


def plan_flaws(
    tasks: Sequence[Task], cards: Sequence[AgentCard], policy: Policy, root: str = ""
) -> list[str]:
    """Why these tasks can't be worked on by these agents: each flaw a sentence.

    `root` is the id of the task they are parts of.
    """
    if not tasks:
        return ["the plan has no tasks"]
    if any(task.id == root for task in tasks):
        return [f"task id {root!r} is that of the whole; give each subtask an id of its own"]
    if len(tasks) > policy.max_tasks:
        return [f"the plan has {len(tasks)} tasks; the limit is {policy.max_tasks}"]
    return flaws_of(tasks) + [
        _misfit(t, cards) for t in tasks if not any(fits(c, t) for c in cards)
    ]


def unaffordable(sure: Iterable[Usage], spent: Usage, budget: Budget) -> list[str]:
    """Why a plan can't be paid for: what its parts are sure to use is more than is left.

    `sure` has for each part what it uses at the least: calls, and the tokens it sends.

    >>> unaffordable([Usage(calls=1)] * 5, Usage(calls=7), Budget(calls=10))
    ['the plan takes at least 5 calls; the budget leaves 3 of 10']
    """
    least = sum(sure, Usage())
    return [
        f"the plan takes at least {wanted} {what};"
        f" the budget leaves {max(0, limit - gone)} of {limit}"
        for what, wanted, gone, limit in (
            ("calls", least.calls, spent.calls, budget.calls),
            ("tokens", least.tokens, spent.tokens, budget.tokens),
        )
        if limit is not None and wanted > limit - gone
    ]


def _misfit(task: Task, cards: Sequence[AgentCard]) -> str:
    have = ", ".join(f"{c.name} ({', '.join(c.skills) or 'no skills'})" for c in cards)
    wanted = f"agent {task.agent!r}" if task.agent else f"skills {', '.join(task.skills)}"
    return f"nobody fits task {task.id!r}, which wants {wanted}; there are: {have}"


def again(result: Result, before: Revision | None, *said: str, avoid: str = "") -> Revision:
    """The order to do a task once more; what was said about it before still holds."""
    return Revision(
        task=result.task,
        number=result.revision + 1,
        feedback=(*(before.feedback if before else ()), *said),
        avoid=tuple(
            dict.fromkeys((*(before.avoid if before else ()), *([avoid] if avoid else [])))
        ),
        failed=tuple(
            dict.fromkeys((*(before.failed if before else ()), *([avoid] if avoid else [])))
        ),
        tried=(*(before.tried if before else ()), *(result.attempts if avoid else ())),
    )


def second_chance(
    task: Task, result: Result, order: Revision | None, cards: Sequence[AgentCard], policy: Policy
) -> Revision | None:
    """The order to give a failed subtask to another agent; None if there is none to be had."""
    why = result.failure.message if result.failure else "it failed"
    chance = again(result, order, why, avoid=result.agent or "")
    others = [c for c in cards if fits(c, task) and c.name not in chance.avoid]
    return chance if others and len(chance.failed) < policy.agents_per_task else None


def redo(
    tasks: Mapping[str, str],
    plan: Plan,
    results: Mapping[str, Result],
    revisions: Mapping[str, Revision],
) -> dict[str, Revision]:
    """The orders that follow when a judge sends `tasks` back: they, and all that built on them."""
    named = {t.id: (tasks[t.id],) for t in plan.tasks if t.id in tasks}
    wanted = {**dict.fromkeys(dependents(plan, named), ()), **named}
    return {
        t: again(results[t], revisions.get(t), *said)
        for t, said in sorted(wanted.items())
        if t in results
    }


def replanned(
    old: Plan | None,
    new: Plan,
    results: Mapping[str, Result],
    revisions: Mapping[str, Revision],
) -> dict[str, Revision]:
    """The orders that follow from a new plan: what was lost or changed, and what builds on it.

    `old` is the plan the results were made by, not one that was only proposed.
    """
    before = {t.id: t for t in old.tasks} if old else {}
    stand = standings(new, results, revisions)
    changed = {t.id for t in new.tasks if before.get(t.id) != t}
    anew = changed | {t for t, s in stand.items() if s == "lost"}
    return {
        t: again(results[t], None if t in changed else _heard(revisions.get(t)))
        for t in sorted(anew | dependents(new, anew))
        if t in results
    }


def adopt(state: Team, plan: Plan) -> dict[str, Any]:
    """The update by which a team goes over to a plan; what it keeps unchanged stays done."""
    orders = replanned(state["plan"], plan, state["results"], state["revisions"])
    return {"plan": plan, "proposed": None, "revisions": orders, "anew": False, "feedback": ()}


def _heard(order: Revision | None) -> Revision | None:
    """An order without the agents to avoid: under a new plan each may try again."""
    return order and order.model_copy(update={"avoid": ()})


def stalls(sent_back: Sequence[Round]) -> int:
    """How many of the last rounds brought nothing new.

    A round brought something if its draft was not there before and, where the judge gives scores,
    got a better one than any before it.

    >>> stalls([Round(draft="x", score=0.2), Round(draft="y", score=0.5)])
    0
    >>> stalls([Round(draft="x"), Round(draft="y"), Round(draft="x"), Round(draft="y")])
    2
    """
    idle = 0
    for n, this in enumerate(sent_back):
        before = sent_back[:n]
        best = max((b.score for b in before if b.score is not None), default=None)
        known = any(b.draft == this.draft for b in before)
        no_better = best is not None and this.score is not None and this.score <= best
        idle = idle + 1 if known or no_better else 0
    return idle


def follow(state: Team, draft: Result, verdict: Verdict, policy: Policy) -> dict[str, Any] | None:
    """What a team does when its judge sends the draft back: another try; another plan if it stalls.

    None: neither is left, and a person must decide.
    """
    plan = state["plan"]
    assert plan is not None
    rounds = (*state["sent_back"], Round(draft=_digest(draft.output), score=verdict.score))
    orders = redo(verdict.redo, plan, state["results"], state["revisions"])
    update: dict[str, Any] = {"draft": None, "revisions": orders}
    if len(rounds) <= policy.rounds and stalls(rounds) <= policy.stalls:
        said = (verdict.reason,) if verdict.reason and not orders else ()
        return update | {"sent_back": rounds, "feedback": (*state["feedback"], *said)}
    if state["replans"] >= policy.replans or broke(state):
        return None
    last = verdict.reason or "no reason given"
    why = f"the result was sent back {len(rounds)} times; the last time: {last}"
    parts = (f"subtask {task!r}: {flaw}" for task, flaw in sorted(verdict.redo.items()))
    wanted = {"anew": True, "replans": state["replans"] + 1, "sent_back": ()}
    return update | wanted | {"feedback": (why, *parts)}


def _digest(output: JsonValue) -> str:
    return sha256(json.dumps(output, sort_keys=True).encode()).hexdigest()


def reasons(state: Team) -> tuple[str, ...]:
    """What a planner is told when subtasks were lost."""
    return tuple(f"subtask {task!r} was not done: {why}" for task, why in lost_parts(state).items())
