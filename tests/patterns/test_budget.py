"""A limit is a limit: a run of N calls makes N calls and leaves with what it has."""

import pytest

from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import as_agent
from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Reply, Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio


def calls(most: int, **more: object) -> Policy:
    """The quick policy with so many calls."""
    return QUICK.model_copy(update={"budget": Budget(calls=most), **more})


@pytest.mark.parametrize("most", range(1, 8))
async def test_a_team_makes_exactly_so_many_calls(crew: Crew, memory: Saver, most: int) -> None:
    plan = [task(str(n)) for n in range(10)]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=calls(most))
    result = (await Run(team, memory).go()).result
    assert crew.calls == result.usage.calls == most
    assert len(result.missing) == 11 - most
    assert result.status == ("partial" if most > 1 else "failed")


async def test_what_the_budget_left_no_room_for_is_missing(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b", "a"), task("c", "b")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=calls(3))
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output, result.missing) == ("partial", {"b": "b(a)"}, ("c",))


async def test_nobody_plans_anew_or_takes_over_when_the_budget_is_empty(
    crew: Crew, memory: Saver
) -> None:
    workers = [crew.worker("ann"), crew.worker("bob")]
    plan = [task("a"), task("b"), task("c")]
    policy = calls(2, replans=3, on_failure="ask")
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=policy)
    result = (await Run(team, memory).go()).result
    assert (result.status, crew.calls) == ("partial", 2)


async def test_retries_and_judges_count(crew: Crew, memory: Saver) -> None:
    worker = crew.worker(a=[ConnectionError("reset"), "a"])
    policy = calls(4, attempts=3)
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[worker], judge=crew.judge(), policy=policy
    )
    result = (await Run(team, memory).go()).result
    assert result.status == "done"
    assert result.usage.calls == crew.calls == 4


async def test_merging_without_a_budget_leaves_what_was_finished(crew: Crew, memory: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()],
        synthesize=crew.worker("merger"), policy=calls(2),
    )  # fmt: skip
    result = (await Run(team, memory).go()).result
    assert (result.status, result.output) == ("partial", "a()")
    assert result.failure is not None
    assert result.failure.kind == "budget"


@pytest.mark.parametrize("most", [1, 2])
async def test_a_line_stops_where_the_budget_ends(crew: Crew, saver: Saver, most: int) -> None:
    stages = [crew.worker(name) for name in ("one", "two", "three")]
    result = (await Run(pipeline(stages, policy=calls(most)), saver).go()).result
    assert result.status == "partial"
    assert list(result.output) == ["one", "two"][:most]  # type: ignore[arg-type]
    assert crew.calls == result.usage.calls == most


async def test_nested_agents_draw_on_the_budget_of_the_run(crew: Crew, memory: Saver) -> None:
    policy = calls(4)
    inner = as_agent(
        manager_worker(
            plan=crew.planner([task("x"), task("y"), task("z")], name="inner planner"),
            workers=[crew.worker("inner worker")], policy=policy,
        ),
        name="inner",
    )  # fmt: skip
    outer = manager_worker(plan=crew.planner([task("a")]), workers=[inner], policy=policy)
    result = (await Run(outer, memory).go()).result
    assert result.usage.calls == crew.calls == 4
    assert result.status == "partial"


async def test_tokens_are_limited_as_well(crew: Crew, memory: Saver) -> None:
    """A function says only afterwards what it used: the next call is refused, not the last one."""
    used = Reply(output=1, usage=Usage(output_tokens=40))
    plan = [task("a"), task("b", "a"), task("c", "b"), task("d", "c")]
    policy = QUICK.model_copy(update={"budget": Budget(tokens=100)})
    team = manager_worker(
        plan=crew.planner(plan), workers=[crew.worker(anything=used)], policy=policy
    )
    result = (await Run(team, memory).go()).result
    assert result.missing == ("d",)
    assert result.usage.output_tokens == 120


async def test_a_second_task_on_the_thread_has_a_budget_of_its_own(
    crew: Crew, memory: Saver
) -> None:
    team = manager_worker(plan=crew.planner([task("a")]), workers=[crew.worker()], policy=calls(2))
    run = await Run(team, memory).go()
    assert run.result.status == "done"
    run.task = Task(goal="another")
    assert (await run.go()).result.status == "done"


async def test_what_was_used_before_a_person_was_asked_counts(crew: Crew, memory: Saver) -> None:
    worker = crew.worker(a=Escalation(question="Well?"))
    plan = [task("a"), task("b", "a"), task("c", "b")]
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=calls(3))
    result = (await (await Run(team, memory).go()).answer()).result
    assert (result.status, result.missing, crew.calls) == ("partial", ("c",), 3)


async def test_unsaved_runs_have_a_budget_each(crew: Crew) -> None:
    team = manager_worker(plan=crew.planner([task("a")]), workers=[crew.worker()], policy=calls(2))
    compiled = team.compile()
    for _ in range(5):
        final = await compiled.ainvoke({"task": Task(goal="x")})
        assert final["result"].status == "done"
