"""What a manager-worker graph remembers, and the laws by which it goes on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, cast

from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
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
    settled,
)
from kapelle.state.verdict import Verdict

Move = Literal["work", "replan", "synthesize", "ask", "end"]
"""What a manager does next."""

Standing = Literal["due", "done", "waiting", "lost"]
"""How a subtask stands: to be done (again), done, stopped for a person, given up."""


class Team(TypedDict, total=False):
    """The shared state of a manager-worker graph."""

    task: Task
    plan: Plan | None
    results: Annotated[dict[str, Result], merge_results]
    revisions: Annotated[dict[str, Revision], merge_revisions]
    assigned: dict[str, str]
    """Subtask to agent, for what is due."""
    feedback: tuple[str, ...]
    """For the planner or the synthesizer: what was wrong."""
    draft: Result | None
    """The synthesized result before it is accepted."""
    verdict: Verdict | None
    escalation: Escalation | None
    """What a person is asked about the plan or the draft."""
    answer: Approval | None
    rounds: int
    """How many times the judge sent work back."""
    replans: int
    spent: Usage
    """By planner, synthesizer and judge; subtasks keep their own."""
    move: Move
    result: Result | None


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
    tasks: Iterable[Task], cards: Sequence[AgentCard], revisions: Mapping[str, Revision]
) -> dict[str, str]:
    """Who does what: by skill, then evenly, the more urgent first. The same for any order given.

    A subtask nobody fits is left out.
    """
    load: dict[str, int] = {}
    chosen: dict[str, str] = {}
    for task in sorted(tasks, key=lambda t: (-t.priority, t.id)):
        order = revisions.get(task.id)
        card = choose(cards, task, load, order.avoid if order else ())
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


def _misfit(task: Task, cards: Sequence[AgentCard]) -> str:
    have = ", ".join(f"{c.name} ({', '.join(c.skills) or 'no skills'})" for c in cards)
    wanted = f"agent {task.agent!r}" if task.agent else f"skills {', '.join(task.skills)}"
    return f"nobody fits task {task.id!r}, which wants {wanted}; there are: {have}"


def second_chance(
    task: Task, result: Result, order: Revision | None, cards: Sequence[AgentCard], policy: Policy
) -> Revision | None:
    """The order to give a failed subtask to another agent; None if there is none to be had."""
    tried = (*(order.avoid if order else ()), result.agent or "")
    others = [c for c in cards if fits(c, task) and c.name not in tried]
    if not others or len(tried) >= policy.agents_per_task:
        return None
    why = result.failure.message if result.failure else "it failed"
    said = (*(order.feedback if order else ()), why)
    return Revision(task=task.id, number=result.revision + 1, feedback=said, avoid=tried)


def give_up(task: Task, result: Result) -> Escalation:
    """The ask about a subtask that nobody could do."""
    return Escalation(
        question=f"Nobody could do {task.id!r}. What now?",
        reason=result.failure.message if result.failure else "",
        evidence={
            "goal": task.goal,
            "attempts": [a.model_dump(mode="json") for a in result.attempts],
        },
        about="task",
        task=task.id,
        by=result.agent or "",
        offers=("edit", "reject", "respond"),
    )


def redo(
    tasks: Mapping[str, str], plan: Plan, results: Mapping[str, Result]
) -> dict[str, Revision]:
    """The orders that follow when a judge sends `tasks` back: they, and all that built on them."""
    unknown = set(tasks) - {t.id for t in plan.tasks}
    named = {t: why for t, why in tasks.items() if t not in unknown}
    again = {t: (why,) for t, why in named.items()} | dict.fromkeys(dependents(plan, named), ())
    return {
        t: Revision(task=t, number=results[t].revision + 1, feedback=feedback)
        for t, feedback in sorted(again.items())
        if t in results
    }


def replanned(
    old: Plan | None,
    new: Plan,
    results: Mapping[str, Result],
    revisions: Mapping[str, Revision],
) -> dict[str, Revision]:
    """The orders that follow from a new plan: what was lost or changed, and what builds on it."""
    before = {t.id: t for t in old.tasks} if old else {}
    stand = standings(new, results, revisions)
    anew = {t.id for t in new.tasks if stand[t.id] == "lost" or before.get(t.id) != t}
    return {
        t: Revision(task=t, number=results[t].revision + 1)
        for t in sorted(anew | dependents(new, anew))
        if t in results
    }


def weighed(result: Result, policy: Policy) -> Result:
    """A result below the confidence asked for stops for a person."""
    if (
        result.status != "done"
        or result.confidence is None
        or result.confidence >= policy.min_confidence
    ):
        return result
    doubt = Escalation(
        question=(
            f"{result.agent} is only {result.confidence:.0%} sure of {result.task!r}. Accept it?"
        ),
        reason=f"The policy asks for {policy.min_confidence:.0%}.",
        evidence=result.output,
        task=result.task,
        by=result.agent or "",
    )
    return result.model_copy(update={"status": "waiting", "escalation": doubt})


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
    return f"{answer.by} says: {answer.value if answer.value is not None else answer.reason}"


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
        and result.failure is not None
        and result.failure.kind not in ("blocked", "budget", "refused")
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
    if plan is None:
        return "replan"
    stand = set(standings(plan, state["results"], state["revisions"]).values())
    if stand & {"due", "waiting"}:
        return "work"
    if "lost" in stand and state["replans"] < policy.replans and not _broke(state):
        return "replan"
    return "synthesize"


def _broke(state: Team) -> bool:
    failures = [r.failure for r in state["results"].values() if r.failure is not None]
    return any(failure.kind == "budget" for failure in failures)


def reasons(state: Team) -> tuple[str, ...]:
    """What a planner is told when subtasks were lost."""
    plan, results = state["plan"], state["results"]
    assert plan is not None
    lost = [t for t, s in standings(plan, results, state["revisions"]).items() if s == "lost"]
    return tuple(f"subtask {t!r} was not done: {_why(results.get(t))}" for t in lost)


def _why(result: Result | None) -> str:
    return (
        result.failure.message if result and result.failure else "a subtask it needs was not done"
    )


def missing(
    plan: Plan, results: Mapping[str, Result], revisions: Mapping[str, Revision]
) -> tuple[str, ...]:
    """The subtasks without a usable result, and what those done in part are missing."""
    stand = standings(plan, results, revisions)
    lost = [t for t, s in stand.items() if s != "done"]
    halves = [p for t, s in stand.items() if s == "done" for p in missed(results[t])]
    return tuple(sorted(lost + halves))


def leaves(plan: Plan, results: Mapping[str, Result]) -> object:
    """What a team without a synthesizer gives back: the output of the one subtask no other needs.

    Where there are several such, or it was not done: by id, whatever no finished one built on.
    """
    done = {t: r for t, r in results.items() if r.status in ("done", "partial")}
    needed = {need for t in plan.tasks for need in t.needs}
    built_on = {need for t in plan.tasks if t.id in done for need in t.needs}
    last = [t.id for t in plan.tasks if t.id not in needed]
    if len(last) == 1 and last[0] in done:
        return done[last[0]].output
    return {t.id: done[t.id].output for t in plan.tasks if t.id in done and t.id not in built_on}
