"""How a team goes on: how its subtasks stand, what comes next, what an answer changes."""

from typing import Any

import pytest
from hypothesis import given

from kapelle.state.approval import Approval, Choice, Escalation
from kapelle.state.breaker import give_up
from kapelle.state.budget import Usage
from kapelle.state.context import Claim
from kapelle.state.ladder import weighed
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import (
    Failure,
    FailureKind,
    Plan,
    Result,
    Revision,
    Status,
    Task,
    dependents,
)
from kapelle.state.team import (
    Team,
    answered,
    failures,
    folded,
    leaves,
    missing,
    next_move,
    reasons,
    redo,
    second_chance,
    standing,
    standings,
)
from tests.laws.drawn import ordered, plans, recorded


def made(
    task: str, status: Status = "done", kind: FailureKind | None = None, **more: Any
) -> Result:
    """A subtask's result."""
    failure = Failure(kind=kind, message=f"{task} broke") if kind else None
    return Result(task=task, status=status, failure=failure, **more)


def planned(**needs: str) -> Plan:
    """A plan from ids and what each needs, one letter each."""
    return Plan(tasks=tuple(Task(id=i, goal="work", needs=tuple(n)) for i, n in needs.items()))


def team(plan: Plan | None, *results: Result, **more: Any) -> Team:
    """A team's state with these results."""
    state: dict[str, Any] = {
        "task": Task(goal="all"), "plan": plan, "results": {r.task: r for r in results},
        "revisions": {}, "assigned": {}, "feedback": (), "draft": None, "verdict": None,
        "escalation": None, "answer": None, "sent_back": (), "replans": 0,
        "proposed": None, "anew": False, "spent": Usage(),
        "result": None, "found": (), "contradictions": (), "reviewed": (), "reviews": 0, "mail": {},
    }  # fmt: skip
    return Team(**(state | more))


# ── how subtasks stand ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("result", "stands"),
    [
        (None, "due"),
        (made("a"), "done"),
        (made("a", "partial"), "done"),
        (made("a", "waiting"), "waiting"),
        (made("a", "failed", "raised"), "lost"),
        (made("a", "failed", "budget"), "lost"),
        (made("a", "refused", "refused"), "lost"),
        (made("a", "failed", "blocked"), "due"),
    ],
)
def test_how_a_subtask_stands(result: Result | None, stands: str) -> None:
    assert standing(result, None) == stands


def test_a_nested_team_that_was_blocked_is_lost_and_not_due_for_ever() -> None:
    assert standing(made("a", "failed", "blocked", agent="inner"), None) == "lost"


def test_an_order_makes_a_subtask_due_until_it_was_done_again() -> None:
    order = Revision(task="a", number=2)
    assert standing(made("a", revision=1), order) == "due"
    assert standing(made("a", revision=2), order) == "done"


def test_what_needs_a_lost_subtask_is_lost() -> None:
    plan = planned(a="", b="a", c="b", d="")
    stand = standings(plan, {"a": made("a", "failed", "raised")}, {})
    assert stand == {"a": "lost", "b": "lost", "c": "lost", "d": "due"}


def test_what_was_done_before_its_need_was_lost_stays_done() -> None:
    plan = planned(a="", b="a")
    stand = standings(plan, {"a": made("a", "failed", "raised"), "b": made("b")}, {})
    assert stand == {"a": "lost", "b": "done"}


@given(plans, recorded, ordered)
def test_nothing_due_ever_waits_for_something_lost(
    plan: Plan, results: dict[str, Result], orders: dict[str, Revision]
) -> None:
    stand = standings(plan, results, orders)
    assert set(stand) == {t.id for t in plan.tasks}
    lost = [t for t, s in stand.items() if s == "lost"]
    assert all(stand[t] != "due" for t in dependents(plan, lost))


@given(plans, recorded, ordered)
def test_what_is_missing_is_all_that_is_not_done(
    plan: Plan, results: dict[str, Result], orders: dict[str, Revision]
) -> None:
    stand = standings(plan, results, orders)
    half = [t for t in stand if stand[t] == "done" and results[t].status == "partial"]
    lost = [t for t in stand if stand[t] != "done"]
    assert missing(plan, results, orders) == tuple(sorted(lost + half))


def test_what_a_part_is_missing_is_named_under_it() -> None:
    half = made("a", "partial", missing=("y", "x"))
    assert missing(planned(a="", b=""), {"a": half}, {}) == ("a/x", "a/y", "b")


# ── what comes next ───────────────────────────────────────────────────────────────────────────

TWO = planned(a="", b="")
LOST = made("b", "failed", "raised")
SAYS = made("task", claims=(Claim(key="x", value="y"),))


@pytest.mark.parametrize(
    ("state", "move"),
    [
        (team(None), "replan"),
        (team(TWO), "work"),
        (team(TWO, made("a")), "work"),
        (team(TWO, made("a"), made("b", "waiting")), "work"),
        (team(TWO, made("a"), made("b")), "synthesize"),
        (team(TWO, made("a"), LOST), "replan"),
        (team(TWO, made("a"), LOST, replans=1), "synthesize"),
        (team(TWO, made("a"), made("b", "failed", "budget")), "synthesize"),
        (team(TWO, LOST), "work"),
        (team(TWO, escalation=Escalation(question="Well?")), "ask"),
        (team(TWO, result=made("task")), "end"),
        (team(None, result=made("task", "failed", "raised")), "end"),
        (team(TWO, escalation=Escalation(question="Well?"), result=made("task")), "end"),
        (team(TWO, draft=made("task")), "judge"),
        (team(TWO, draft=SAYS), "reconcile"),
        (team(TWO, draft=SAYS, vetted=True), "judge"),
        (team(TWO, draft=made("task"), task=Task(goal="all", promises=("x",))), "reconcile"),
    ],
)
def test_what_comes_next(state: Team, move: str) -> None:
    assert next_move(state, Policy(replans=1)) == move


def test_without_replans_lost_work_is_done_without() -> None:
    assert next_move(team(TWO, made("a"), LOST), Policy()) == "synthesize"


def test_the_state_is_folded_before_it_is_decided_on() -> None:
    state = team(TWO, made("a"))
    now = folded(state, {"results": {"b": made("b")}, "replans": 1})
    assert set(now["results"]) == {"a", "b"}
    assert (now["replans"], state["replans"]) == (1, 0)
    assert set(state["results"]) == {"a"}, "the state itself is as it was"


# ── another worker, another try ───────────────────────────────────────────────────────────────

PAIR = [AgentCard(name="ann"), AgentCard(name="bob")]
FAILED = made("a", "failed", "raised", agent="ann")
TASK = Task(id="a", goal="work")


def test_a_second_agent_gets_a_failed_subtask_and_is_told_why() -> None:
    order = second_chance(TASK, FAILED, None, PAIR, Policy())
    assert order == Revision(
        task="a", number=2, feedback=("a broke",), avoid=("ann",), failed=("ann",)
    )


def test_a_second_agent_is_also_told_what_a_judge_had_said() -> None:
    before = Revision(task="a", number=2, feedback=("too short",))
    again = FAILED.model_copy(update={"revision": 2})
    order = second_chance(TASK, again, before, PAIR, Policy())
    assert order is not None
    assert order.feedback == ("too short", "a broke")


def test_nobody_gets_it_a_third_time_unless_the_policy_says_so() -> None:
    three = [*PAIR, AgentCard(name="cyd")]
    tried = Revision(task="a", number=2, avoid=("ann",), failed=("ann",))
    failed = made("a", "failed", "raised", agent="bob", revision=2)
    assert second_chance(TASK, failed, tried, three, Policy(agents_per_task=2)) is None
    order = second_chance(TASK, failed, tried, three, Policy(agents_per_task=3))
    assert order is not None
    assert (order.number, order.avoid) == (3, ("ann", "bob"))


def test_there_is_no_second_chance_where_nobody_else_fits() -> None:
    assert second_chance(TASK, FAILED, None, PAIR[:1], Policy()) is None
    named = Task(id="a", goal="work", agent="ann")
    assert second_chance(named, FAILED, None, PAIR, Policy()) is None


@pytest.mark.parametrize(
    ("kind", "counts"),
    [("raised", True), ("timeout", True), ("invalid", True), ("too_large", True),
     ("budget", False), ("refused", False), ("blocked", False)],
)  # fmt: skip
def test_which_losses_are_an_agent_s_failures(kind: FailureKind, *, counts: bool) -> None:
    found = failures(TWO, {"a": made("a", "failed", kind)}, {})
    assert bool(found) == counts


def test_the_ask_about_what_nobody_could_do_shows_the_tries_and_offers_no_approval() -> None:
    ask = give_up(TASK, FAILED)
    assert (ask.task, ask.by, ask.reason) == ("a", "ann", "a broke")
    assert "approve" not in ask.offers


def test_a_judge_s_order_reaches_all_that_built_on_it() -> None:
    plan = planned(a="", b="a", c="b", d="")
    results = {t.id: made(t.id, revision=2) for t in plan.tasks}
    orders = redo({"a": "too short", "nowhere": "?"}, plan, results, {})
    assert set(orders) == {"a", "b", "c"}
    assert orders["a"].feedback == ("too short",)
    assert orders["b"].feedback == ()
    assert {o.number for o in orders.values()} == {3}
    stand = standings(plan, results, orders)
    assert stand == {"a": "due", "b": "due", "c": "due", "d": "done"}


@given(plans, recorded)
def test_after_an_order_exactly_what_was_ordered_is_due(
    plan: Plan, results: dict[str, Result]
) -> None:
    results = {t.id: made(t.id) for t in plan.tasks} | results
    first = plan.tasks[0].id
    orders = redo({first: "wrong"}, plan, results, {})
    assert set(orders) == {first} | dependents(plan, [first])
    assert all(standing(results[t], orders[t]) == "due" for t in orders)


# ── a person's answer ─────────────────────────────────────────────────────────────────────────

STOPPED = made("a", "waiting", output="old", agent="x", escalation=Escalation(question="Well?"))
GIVEN_UP = FAILED.model_copy(update={"status": "waiting", "escalation": give_up(TASK, FAILED)})


def test_approved_work_is_done_as_it_is() -> None:
    after = answered(STOPPED, Approval(decision="approve", by="ann"))
    assert (after.status, after.output, after.agent) == ("done", "old", "x")


@pytest.mark.parametrize("stopped", [STOPPED, GIVEN_UP])
def test_edited_work_is_the_person_s_and_no_failure(stopped: Result) -> None:
    after = answered(stopped, Approval(decision="edit", by="ann", value="new"))
    assert (after.status, after.output, after.agent) == ("done", "new", "ann")
    assert after.failure is None


def test_rejected_work_says_who_and_why() -> None:
    after = answered(STOPPED, Approval(decision="reject", by="ann", reason="dull"))
    assert after.status == "refused"
    assert after.failure is not None
    assert after.failure.message == "ann rejected it: dull"


def test_work_to_be_done_again_says_what_was_said() -> None:
    after = answered(STOPPED, Approval(decision="respond", by="ann", value="say why"))
    assert after.status == "refused"
    assert after.failure is not None
    assert after.failure.message == "ann wants it done again: say why"


@pytest.mark.parametrize("decision", ["approve", "edit", "reject", "respond"])
def test_every_answer_makes_a_later_revision_without_an_ask(decision: Choice) -> None:
    after = answered(STOPPED, Approval(decision=decision, by="ann"))
    assert after.revision == STOPPED.revision + 1
    assert after.escalation is None


def test_a_reply_below_the_confidence_asked_for_waits_for_a_person() -> None:
    policy = Policy(min_confidence=0.8)
    doubtful = weighed(made("a", agent="x", confidence=0.79, output="maybe"), policy)
    assert doubtful.status == "waiting"
    assert doubtful.escalation is not None
    assert "79% sure of 'a'" in doubtful.escalation.question
    assert doubtful.escalation.evidence == "maybe"


def test_a_reply_that_is_sure_enough_or_does_not_say_passes() -> None:
    policy = Policy(min_confidence=0.8)
    for result in (made("a", confidence=0.8), made("a"), made("a", "failed", "raised")):
        assert weighed(result, policy) == result


# ── what leaves ───────────────────────────────────────────────────────────────────────────────


def test_without_a_synthesizer_the_last_part_s_output_leaves() -> None:
    results = {i: made(i, output=i.upper()) for i in "abc"}
    assert leaves(planned(a="", b="a", c="b"), results) == "C"
    assert leaves(planned(a="", b="a", c="a"), results) == {"b": "B", "c": "C"}


def test_of_what_was_finished_in_part_all_that_nothing_finished_built_on_leaves_by_id() -> None:
    results = {"a": made("a", output="A"), "b": made("b", "failed", "raised")}
    assert leaves(planned(a="", b=""), results) == {"a": "A"}, "as if both had been done"
    assert leaves(planned(a="", b="a"), results) == {"a": "A"}, "what was paid for is not lost"
    results["c"] = made("c", output="C")
    assert leaves(planned(a="", c="a", b="c"), results) == {"c": "C"}


def test_a_planner_is_told_what_was_lost_and_why() -> None:
    plan = planned(a="", b="a", c="")
    told = reasons(team(plan, made("a", "failed", "raised"), made("c")))
    assert told == (
        "subtask 'a' was not done: a broke",
        "subtask 'b' was not done: a subtask it needs was not done",
    )
