"""What a team remembers, how its subtasks stand, what comes next, and what leaves.

What it orders is in `kapelle.state.orders`, what a person decides in `kapelle.state.answers`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, cast

from kapelle.state.approval import Approval, Escalation
from kapelle.state.breaker import at_fault
from kapelle.state.budget import Usage
from kapelle.state.context import Claim, Contradiction
from kapelle.state.leaving import asserts
from kapelle.state.message import Message
from kapelle.state.needs import dependents
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.review import claims_of, promised, to_review
from kapelle.state.task import (
    Plan,
    Result,
    Revision,
    Task,
    merge_results,
    merge_revisions,
    missed,
    reported,
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


def lost_parts(state: Team) -> dict[str, str]:
    """The subtasks that were given up, by id, and why."""
    plan, results = state["plan"], state["results"]
    assert plan is not None
    stand = standings(plan, results, state["revisions"])
    return {task: why_not(results.get(task)) for task in stand if stand[task] == "lost"}


def broke(state: Team) -> bool:
    """Whether the budget left no room for some subtask."""
    failures = [r.failure for r in state["results"].values() if r.failure is not None]
    return any(failure.kind == "budget" for failure in failures)


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


def presented(draft: Result, *, judged: bool) -> dict[str, Any]:
    """The update by which a draft goes on: to the person its author turned to, its judge, out."""
    if draft.escalation is not None:
        ask = draft.escalation.model_copy(update={"about": "result"})
        return {"draft": draft, "escalation": ask}
    return {"draft": draft} if judged else {"result": draft}


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
