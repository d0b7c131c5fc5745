"""A plan is a DAG of tasks, or it is refused by name."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kapelle.state.budget import Budget, Usage
from kapelle.state.needs import by_urgency, dependents
from kapelle.state.orders import plan_flaws, unaffordable
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Plan, Task, flaws_of
from tests.laws.drawn import IDS, dags, ids, plans

WORKER = [AgentCard(name="w")]


def task(id: str, *needs: str, **more: object) -> Task:
    """A task with what is not at stake filled in."""
    return Task.model_validate({"id": id, "goal": "work", "needs": needs, **more})


@given(dags())
def test_every_dag_is_a_plan_in_any_order(tasks: tuple[Task, ...]) -> None:
    plan = Plan(tasks=tasks)
    assert [plan[t.id] for t in tasks] == list(tasks)


@given(plans)
def test_a_plan_read_back_from_json_is_the_same_plan(plan: Plan) -> None:
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@given(dags(), st.data())
def test_a_duplicate_id_is_refused_by_name(tasks: tuple[Task, ...], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(tasks))
    with pytest.raises(ValidationError, match=f"task id '{twice.id}' is used 2 times"):
        Plan(tasks=(*tasks, twice))


def test_an_id_used_three_times_is_one_flaw() -> None:
    assert flaws_of([task("a")] * 3) == ["task id 'a' is used 3 times"]


@given(dags(), ids)
def test_an_unknown_need_is_refused_by_both_names(tasks: tuple[Task, ...], last: str) -> None:
    bad = task("new", last, "nowhere")
    with pytest.raises(ValidationError, match="task 'new' needs 'nowhere', which is not in"):
        Plan(tasks=(*tasks, bad))


@given(st.integers(1, len(IDS)), dags())
def test_a_cycle_is_refused_naming_all_in_it(length: int, rest: tuple[Task, ...]) -> None:
    ring = [f"ring{n}" for n in range(length)]
    turned = [task(ring[n], ring[n - 1]) for n in range(length)]
    with pytest.raises(ValidationError, match="tasks wait for each other") as refused:
        Plan(tasks=(*rest, *turned))
    named = re.findall(r"ring\d", str(refused.value).split("[type")[0])
    assert set(named) == set(ring)
    assert named[0] == named[-1], "the ring is closed"


def test_a_cycle_reads_in_the_order_of_waiting() -> None:
    (flaw,) = flaws_of([task("a", "b"), task("b", "c"), task("c", "a")])
    chain = flaw.removeprefix("tasks wait for each other: ").split(" -> ")
    needs = {"a": "b", "b": "c", "c": "a"}
    assert all(needs[before] == after for before, after in itertools.pairwise(chain))


def test_all_flaws_are_told_at_once() -> None:
    flaws = flaws_of([task("a", "a"), task("b", "nowhere"), task("b")])
    assert len(flaws) == 3


@given(plans, st.lists(ids, max_size=3))
def test_dependents_are_what_can_be_reached_and_not_where_one_started(
    plan: Plan, start: list[str]
) -> None:
    def reaches(task_id: str) -> bool:
        return any(need in start or reaches(need) for need in plan[task_id].needs)

    assert dependents(plan, start) == {
        t.id for t in plan.tasks if reaches(t.id) and t.id not in start
    }


def test_a_plan_without_tasks_is_a_flaw() -> None:
    assert plan_flaws([], WORKER, Policy()) == ["the plan has no tasks"]


def test_a_plan_that_is_too_large_is_a_flaw_that_names_the_limit() -> None:
    tasks = [task(str(n)) for n in range(4)]
    assert plan_flaws(tasks, WORKER, Policy(max_tasks=4)) == []
    (flaw,) = plan_flaws(tasks, WORKER, Policy(max_tasks=3))
    assert flaw == "the plan has 4 tasks; the limit is 3"


def test_a_task_nobody_fits_is_a_flaw_that_says_who_there_is() -> None:
    cards = [AgentCard(name="ann", skills=("write",)), AgentCard(name="bob")]
    (flaw,) = plan_flaws([task("a", skills=("audit",))], cards, Policy())
    assert flaw == (
        "nobody fits task 'a', which wants skills audit; there are: ann (write), bob (no skills)"
    )


def test_a_task_for_an_agent_who_is_not_there_is_a_flaw_that_names_them() -> None:
    (flaw,) = plan_flaws([task("a", agent="zoe")], WORKER, Policy())
    assert "wants agent 'zoe'" in flaw


@pytest.mark.parametrize(
    "bad", [{"goal": ""}, {"goal": "x", "id": ""}, {"goal": "x", "id": "i" * 129}]
)
def test_an_empty_task_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Task.model_validate(bad)


@given(dags(), st.none() | st.integers(-2, 2))
def test_whatever_a_task_needs_is_as_urgent_as_it_is(
    tasks: tuple[Task, ...], least: int | None
) -> None:
    found = {t.id: t.priority for t in by_urgency(tasks, least)}
    assert set(found) == {t.id for t in tasks}
    for each in tasks:
        assert found[each.id] >= each.priority
        assert least is None or found[each.id] >= least
        assert all(found[need] >= found[each.id] for need in each.needs)


@given(dags())
def test_no_task_is_more_urgent_than_it_or_something_that_waits_for_it(
    tasks: tuple[Task, ...],
) -> None:
    plan = Plan(tasks=tasks)
    for each in by_urgency(tasks):
        waiting = [plan[t].priority for t in dependents(plan, [each.id])]
        assert each.priority == max([plan[each.id].priority, *waiting])


@given(dags())
def test_the_most_urgent_come_first_and_equals_stay_in_order(tasks: tuple[Task, ...]) -> None:
    ranked = by_urgency(tasks)
    order = [t.id for t in tasks]
    keys = [(-t.priority, order.index(t.id)) for t in ranked]
    assert keys == sorted(keys)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_a_plan_is_too_dear_just_when_its_parts_surely_use_more_than_is_left(
    parts: int, spent: int, limit: int
) -> None:
    flaws = unaffordable([Usage(calls=1)] * parts, Usage(calls=spent), Budget(calls=limit))
    assert bool(flaws) == (parts > limit - spent)
    assert unaffordable([Usage(calls=1)] * parts, Usage(calls=spent), Budget()) == []


def test_tokens_that_are_surely_sent_count_as_well() -> None:
    sure = [Usage(calls=1, input_tokens=60)] * 2
    (flaw,) = unaffordable(sure, Usage(input_tokens=10, output_tokens=1), Budget(tokens=100))
    assert flaw == "the plan takes at least 120 tokens; the budget leaves 89 of 100"
