"""What is ordered in a team: another worker, another try, what a planner is told."""

from hypothesis import given

from kapelle.state.needs import dependents
from kapelle.state.orders import reasons, redo, second_chance
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Plan, Result, Revision, Task
from kapelle.state.team import standing, standings
from tests.laws.drawn import plans, recorded
from tests.laws.teams import made, planned, team

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


def test_a_planner_is_told_what_was_lost_and_why() -> None:
    plan = planned(a="", b="a", c="")
    told = reasons(team(plan, made("a", "failed", "raised"), made("c")))
    assert told == (
        "subtask 'a' was not done: a broke",
        "subtask 'b' was not done: a subtask it needs was not done",
    )
