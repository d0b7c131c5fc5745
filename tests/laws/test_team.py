"""How a team goes on: how its subtasks stand, what comes next, what leaves."""

import pytest
from hypothesis import given

from kapelle.state.approval import Escalation
from kapelle.state.context import Claim
from kapelle.state.needs import dependents
from kapelle.state.policy import Policy
from kapelle.state.task import FailureKind, Plan, Result, Revision, Task
from kapelle.state.team import (
    Team,
    failures,
    folded,
    leaves,
    missing,
    next_move,
    standing,
    standings,
)
from tests.laws.drawn import ordered, plans, recorded
from tests.laws.teams import made, planned, team

TWO = planned(a="", b="")


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


@pytest.mark.parametrize(
    ("kind", "counts"),
    [("raised", True), ("timeout", True), ("invalid", True), ("too_large", True),
     ("budget", False), ("refused", False), ("blocked", False)],
)  # fmt: skip
def test_which_losses_are_an_agent_s_failures(kind: FailureKind, *, counts: bool) -> None:
    found = failures(TWO, {"a": made("a", "failed", kind)}, {})
    assert bool(found) == counts


# ── what comes next ───────────────────────────────────────────────────────────────────────────

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
