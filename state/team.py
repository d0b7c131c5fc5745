"""What a manager-worker graph remembers, and the laws by which it goes on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal, TypedDict, cast

from pydantic import JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.breaker import at_fault
from kapelle.state.budget import Budget, Usage
from kapelle.state.context import Claim, Contradiction
from kapelle.state.delivery import ask_to_carry, post, sent
from kapelle.state.leaving import asserts
from kapelle.state.message import Message
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.review import claims_of, omitted, promised, to_review
from kapelle.state.shortage import ask_for_more, cut_short, goes_on, once_funded
from kapelle.state.skills import AgentCard, choose, fits
from kapelle.state.task import (
    Failure,
    Plan,
    Result,
    Revision,
    Task,
    dependents,
    flaws_of,
    merge_results,
    merge_revisions,
    missed,
    reported,
    settled,
    why_not,
)
from kapelle.state.verdict import Verdict

Move = Literal["work", "replan", "reconcile", "synthesize", "judge", "ask", "end"]
"""What a manager does next."""

Standing = Literal["due", "done", "waiting", "lost"]
"""How a subtask stands: to be done (again), done, stopped for a person, given up."""


class Round(Noun):
    """A draft that a judge sent back."""

    draft: str
    """Names what it said: equal drafts, equal names."""
    score: float | None = None
    """What the judge gave it, from 0 to 1."""


class Team(TypedDict, total=False):
    """The shared state of a manager-worker graph."""

    task: Task
    plan: Plan | None
    """What is worked by."""
    proposed: Plan | None
    """A plan that a person is asked about."""
    left: Result | None
    """While a person is asked for a larger budget: what leaves if they give none."""
    capped: bool
    """Whether a person was asked for a larger budget and gave none."""
    anew: bool
    """Another plan is wanted: a person said so, or the work stalled."""
    results: Annotated[dict[str, Result], merge_results]
    revisions: Annotated[dict[str, Revision], merge_revisions]
    assigned: dict[str, str]
    """Subtask to agent, for what is due."""
    held: bool
    """Whether a person may hold the next step, so that each part of it goes on by itself."""
    passed: tuple[str, ...]
    """Messages beyond a limit that a person let pass, by id."""
    kept_back: tuple[str, ...]
    """Those that a person did not."""
    mail: dict[str, tuple[Message, ...]]
    """What is written to each agent, for what is due."""
    feedback: tuple[str, ...]
    """For the planner or the synthesizer: what was wrong."""
    draft: Result | None
    """The synthesized result before it is accepted."""
    vetted: bool
    """Whether what the draft claims was compared with all else that is claimed."""
    redrafts: int
    """How many times reviews sent a draft back."""
    verdict: Verdict | None
    escalation: Escalation | None
    """What a person is asked about the plan or the draft."""
    answer: Approval | None
    sent_back: tuple[Round, ...]
    """The drafts the judge sent back under this plan, oldest first."""
    replans: int
    found: tuple[Contradiction, ...]
    """What a review found, while parts of it are open."""
    contradictions: tuple[Contradiction, ...]
    """The record of all reviews."""
    reviewed: tuple[str, ...]
    """The results that were reviewed last."""
    planned: tuple[Claim, ...]
    """What the planner claims."""
    claims: tuple[Claim, ...]
    """What stands of all that is claimed, by the last review."""
    reviews: int
    """How many times reviews sent work back."""
    spent: Usage
    """By planner, synthesizer and judge; subtasks keep their own."""
    move: Move
    result: Result | None


def parts_of(state: Team) -> tuple[Task, ...]:
    """The subtasks that are worked on."""
    return state["plan"].tasks if state["plan"] else ()


def standing(result: Result | None, order: Revision | None) -> Standing:
    """How a subtask stands, by its last result and the last order to redo it."""
    if result is None or (order is not None and result.revision < order.number):
        return "due"
    if result.status in ("done", "partial"):
        return "done"
    if result.status == "waiting":
        return "waiting"
    return "due" if never_begun(result) else "lost"


def never_begun(result: Result) -> bool:
    """Whether no agent was even asked, because something it needs was not done."""
    return result.agent is None and result.failure is not None and result.failure.kind == "blocked"


def standings(
    plan: Plan, results: Mapping[str, Result], revisions: Mapping[str, Revision]
) -> dict[str, Standing]:
    """How each subtask of the plan stands; what needs a lost one is lost as well."""
    stand: dict[str, Standing] = {
        t.id: standing(results.get(t.id), revisions.get(t.id)) for t in plan.tasks
    }
    lost = dependents(plan, [t for t, s in stand.items() if s == "lost"])
    for task in lost:
        if stand[task] == "due":
            stand[task] = "lost"
    return stand


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


def answered(result: Result, answer: Approval) -> Result:
    """A stopped result after a person's answer; after `respond` it is to be done again."""
    if answer.decision == "approve":
        return settled(result, status="done", failure=None, escalation=None)
    if answer.decision == "edit":
        edited = {"output": answer.value, "agent": answer.by}
        return settled(result, status="done", failure=None, escalation=None, **edited)
    said = (
        f"{answer.by} rejected it"
        if answer.decision == "reject"
        else f"{answer.by} wants it done again"
    )
    why = f"{said}: {answer.reason or answer.value or 'no reason given'}"
    failure = Failure(kind="refused", message=why, agent=result.agent)
    return settled(result, status="refused", failure=failure, escalation=None)


def advice(answer: Approval) -> str:
    """What a person who responded wants the agent to know."""
    said = (answer.reason or answer.decision) if answer.value in (None, "") else answer.value
    return f"{answer.by} says: {said}"


def failures(
    plan: Plan, results: Mapping[str, Result], revisions: Mapping[str, Revision]
) -> list[tuple[Task, Result]]:
    """The subtasks an agent failed at and that stand as lost.

    Not those a person refused, nor those the budget left no room for.
    """
    stand = standings(plan, results, revisions)
    return [
        (task, result)
        for task in plan.tasks
        if stand[task.id] == "lost"
        and (result := results.get(task.id)) is not None
        and at_fault(result)
    ]


def folded(state: Team, update: Mapping[str, Any]) -> Team:
    """The state as it will be once `update` is folded in."""
    now: dict[str, Any] = {**state, **update}
    now["results"] = merge_results(state["results"], update.get("results"))
    now["revisions"] = merge_revisions(state["revisions"], update.get("revisions"))
    return cast(Team, now)


def next_move(state: Team, policy: Policy) -> Move:
    """What comes next once all that came back has been folded in."""
    if state["result"] is not None:
        return "end"
    if state["escalation"] is not None:
        return "ask"
    plan = state["plan"]
    if state["found"]:
        return "reconcile"
    if plan is None or state["anew"]:
        return "replan"
    if state["draft"] is not None:
        return "reconcile" if unvetted(state) else "judge"
    return _going_on(state, plan, policy)


def _going_on(state: Team, plan: Plan, policy: Policy) -> Move:
    stand = set(standings(plan, state["results"], state["revisions"]).values())
    if stand & {"due", "waiting"}:
        return "work"
    if "lost" in stand and state["replans"] < policy.replans and not broke(state):
        return "replan"
    seen = to_review(plan, state["results"], state.get("planned", ())) == state["reviewed"]
    return "synthesize" if seen else "reconcile"


def unvetted(state: Team) -> bool:
    """Whether a draft claims, or was to claim, what nobody has compared with all else yet."""
    draft, keys = state["draft"], dict.fromkeys(state["task"].promises)
    return draft is not None and not state.get("vetted") and asserts(draft, keys)


def claimed(state: Team) -> list[Claim]:
    """All that a team claims: its planner, those whose work is finished, and the draft."""
    draft = state["draft"].claims if state["draft"] else ()
    return [*state.get("planned", ()), *claims_of(state["results"]), *draft]


def to_claim(state: Team) -> dict[str, tuple[str, ...]]:
    """Which tasks promised a key; what the whole promised is looked for in the draft."""
    return promised((*parts_of(state), *([state["task"]] if state["draft"] else [])))


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


def presented(draft: Result, *, judged: bool) -> dict[str, Any]:
    """The update by which a draft goes on: to the person its author turned to, its judge, out."""
    if draft.escalation is not None:
        ask = draft.escalation.model_copy(update={"about": "result"})
        return {"draft": draft, "escalation": ask}
    return {"draft": draft} if judged else {"result": draft}


def with_claims(left: Result, stand: Iterable[Claim]) -> Result:
    """What leaves a team, with all that stands of what was claimed in it."""
    good = left.status in ("done", "partial")
    return left.model_copy(update={"claims": tuple(stand) if good else ()})


def shortage(state: Team, policy: Policy) -> Escalation | None:
    """What a person is asked when all is done but what the budget left no room for."""
    plan, results = state["plan"], state["results"]
    if policy.on_budget != "ask" or state["capped"] or state["draft"] or state["result"]:
        return None
    if plan is None or state["escalation"] is not None:
        return None
    stand = standings(plan, results, state["revisions"])
    if set(stand.values()) & {"due", "waiting"}:
        return None
    short = cut_short(result for task, result in results.items() if stand.get(task) == "lost")
    if short is None:
        return None
    task = state["task"]
    return ask_for_more(task.id, task.goal, short, missing(plan, results, state["revisions"]))


def unfunded(task: Task, left: Result, policy: Policy, *, capped: bool) -> dict[str, Any]:
    """What follows where planner, synthesizer or judge had no room: `left`, or a person is asked.

    Once they have added to the budget, whoever had no room works again.
    """
    if policy.on_budget != "ask" or capped or left.failure is None:
        return {"result": left}
    ask = ask_for_more(task.id, task.goal, left.failure, left.missing)
    return {"left": left, "escalation": ask}


def funded(state: Team, answer: Approval) -> dict[str, Any]:
    """What follows when a person was asked for more: what was lost for want of it is done."""
    if not goes_on(answer):
        return {"capped": True, "result": state["left"]}
    if state["left"] is not None:
        return {"left": None}
    plan, results = state["plan"], state["results"]
    assert plan is not None
    orders = once_funded(results)
    behind = {
        t: Revision(task=t, number=results[t].revision + 1)
        for t in sorted(dependents(plan, orders))
        if t in results and results[t].status == "failed"
    }
    return {"revisions": orders | behind}


def crowded(state: Team, policy: Policy) -> Escalation | None:
    """What a person is asked when the limit of a channel is reached."""
    if policy.on_messages != "ask" or not policy.channels or state["plan"] is None:
        return None
    if state["escalation"] or state["found"] or state["draft"] or state["result"]:
        return None
    held = _unasked(state, policy)
    return ask_to_carry(state["task"].id, held, sent(state["results"])) if held else None


def let_pass(state: Team, answer: Approval, policy: Policy) -> dict[str, Any]:
    """What follows when a person was asked about messages beyond a limit."""
    which: Literal["passed", "kept_back"] = "passed" if goes_on(answer) else "kept_back"
    return {which: (*state[which], *_unasked(state, policy))}


def _unasked(state: Team, policy: Policy) -> dict[str, str]:
    held = post(state["results"], policy.channels, state["passed"]).held
    return {i: why for i, why in held.items() if i not in state["kept_back"]}


def broke(state: Team) -> bool:
    """Whether the budget left no room for some subtask."""
    failures = [r.failure for r in state["results"].values() if r.failure is not None]
    return any(failure.kind == "budget" for failure in failures)


def reasons(state: Team) -> tuple[str, ...]:
    """What a planner is told when subtasks were lost."""
    return tuple(f"subtask {task!r} was not done: {why}" for task, why in lost_parts(state).items())


def lost_parts(state: Team) -> dict[str, str]:
    """The subtasks that were given up, by id, and why."""
    plan, results = state["plan"], state["results"]
    assert plan is not None
    stand = standings(plan, results, state["revisions"])
    return {task: why_not(results.get(task)) for task in stand if stand[task] == "lost"}


def refused(state: Team, answer: Approval) -> Result:
    """What leaves when a person refuses a plan or a draft: with it whatever was finished."""
    why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
    no: dict[str, Any] = {
        "status": "refused",
        "failure": Failure(kind="refused", message=why),
        "escalation": None,
    }
    draft, plan, results = state["draft"], state["plan"], state["results"]
    if draft is not None:
        return draft.model_copy(update=no)
    bare = Result(task=state["task"].id, usage=used(state), **no)
    if plan is None or not finished(results):
        return bare
    kept = {"output": leaves(plan, results), "missing": missing(plan, results, state["revisions"])}
    parts = undone(plan, results, state["revisions"])
    return Result.model_validate(bare.model_dump() | kept).model_copy(update={"parts": parts})


def finished(results: Mapping[str, Result]) -> dict[str, Result]:
    """The results that can be used: of what was done, and done in part."""
    return {i: r for i, r in results.items() if r.status in ("done", "partial")}


def used(state: Team) -> Usage:
    """What everything took so far: the subtasks, and who planned, merged and judged."""
    return sum((r.usage for r in state["results"].values()), state["spent"])


def missing(
    plan: Plan, results: Mapping[str, Result], revisions: Mapping[str, Revision]
) -> tuple[str, ...]:
    """The subtasks without a usable result, and what those done in part are missing."""
    stand = standings(plan, results, revisions)
    lost = [t for t, s in stand.items() if s != "done"]
    halves = [p for t, s in stand.items() if s == "done" for p in missed(results[t])]
    return tuple(sorted(lost + halves))


def undone(
    plan: Plan, results: Mapping[str, Result], revisions: Mapping[str, Revision]
) -> dict[str, Result]:
    """What came of the subtasks in `missing`: why each is, and what there was of it."""
    parts: dict[str, Result] = {}
    for task, stand in standings(plan, results, revisions).items():
        result = results.get(task)
        if result is not None and stand != "done":
            parts[task] = result
        elif result is not None:
            parts |= {f"{task}/{name}": part for name, part in result.parts.items()}
    return reported(parts)


def leaves(plan: Plan, results: Mapping[str, Result]) -> object:
    """What a team without a synthesizer gives back: the output of the one subtask no other needs.

    Where there are several such, or it was not done: by id, whatever no finished one built on.
    """
    done = finished(results)
    needed = {need for t in plan.tasks for need in t.needs}
    built_on = {need for t in plan.tasks if t.id in done for need in t.needs}
    last = [t.id for t in plan.tasks if t.id not in needed]
    if len(last) == 1 and last[0] in done:
        return done[last[0]].output
    return {t.id: done[t.id].output for t in plan.tasks if t.id in done and t.id not in built_on}
