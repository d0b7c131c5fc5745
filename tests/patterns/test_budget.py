"""A limit is a limit: a run of N calls makes N calls and leaves with what it has."""

from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline
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
    run = await Run(team, memory).go()
    assert "3 calls; the budget leaves 1 of 2" in run.asks["task"].value.reason
    result = (await run.answer()).result
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


# ── when it is exhausted ──────────────────────────────────────────────────────────────────────


async def test_a_partial_result_says_what_is_missing_and_what_it_would_have_cost(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b"), task("c"), task("d", "c")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=calls(3))
    result = (await Run(team, memory).go()).result
    assert (result.status, result.missing) == ("partial", ("c", "d"))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.wanted) == ("budget", Usage(calls=2))
    assert "no room for 2 parts, at most 0 tokens, 2 calls" in result.failure.message


async def test_a_person_adds_to_the_budget_and_the_rest_is_done(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b"), task("c"), task("d", "c")]
    policy = calls(3, on_budget="ask")
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=policy)
    run = await Run(team, saver).go()
    evidence = run.asks["task"].value.evidence
    assert (evidence["add"]["calls"], evidence["missing"]) == (2, ["c", "d"])
    await run.answer(decision="approve")
    assert (run.result.status, crew.calls) == ("done", 5)
    assert crew.did == {"a": 1, "b": 1, "c": 1, "d": 1, "task": 1}, "nothing was done twice"


async def test_a_person_s_own_figure_counts_and_is_asked_again_when_it_is_too_small(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b"), task("c")]
    policy = calls(2, on_budget="ask")
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=policy)
    run = await (await Run(team, memory).go()).answer(value={"add": {"calls": 1}})
    assert run.asks["task"].value.evidence["missing"] == ["c"]
    await run.answer(decision="edit", value={"calls": 1})
    assert (run.result.status, crew.calls) == ("done", 4)


async def test_a_person_who_adds_nothing_gets_what_is_finished(crew: Crew, saver: Saver) -> None:
    policy = calls(2, on_budget="ask")
    plan = [task("a"), task("b")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=policy)
    result = (await (await Run(team, saver).go()).answer(decision="reject")).result
    assert (result.status, result.missing, crew.calls) == ("partial", ("b",), 2)


async def test_a_line_goes_on_with_a_larger_budget(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker(name) for name in ("one", "two")]
    run = await Run(pipeline(stages, policy=calls(1, on_budget="ask")), saver).go()
    assert (await run.answer()).result.status == "done"
    assert [name for name, _ in crew.by] == ["one", "two"]


async def test_a_line_nobody_adds_to_leaves_what_it_has(crew: Crew, memory: Saver) -> None:
    stages = [crew.worker(name) for name in ("one", "two")]
    run = await Run(pipeline(stages, policy=calls(1, on_budget="ask")), memory).go()
    result = (await run.answer(decision="reject")).result
    assert (result.status, crew.calls) == ("partial", 1)
    assert result.failure is not None
    assert result.failure.wanted == Usage(calls=1)


@pytest.mark.parametrize("most", [0, 2, 3])
async def test_whoever_plans_merges_or_judges_goes_on_with_a_larger_budget(
    crew: Crew, memory: Saver, most: int
) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()],
        synthesize=crew.worker("merger"), judge=crew.judge(), policy=calls(most, on_budget="ask"),
    )  # fmt: skip
    run = await Run(team, memory).go()
    while run.asks:
        assert run.asks["task"].value.evidence["add"]["calls"] == 1
        await run.answer()
    assert (run.result.status, crew.calls) == ("done", 4), "nothing was done twice"


@pytest.mark.parametrize(
    ("most", "missing", "output"),
    [(0, "task", None), (2, "merger", "a()"), (3, "critic", "merged")],
)
async def test_without_room_for_a_manager_s_own_work_what_is_finished_leaves(
    crew: Crew, memory: Saver, most: int, missing: str, output: object
) -> None:
    for thread, policy in enumerate([calls(most), calls(most, on_budget="ask")]):
        team = manager_worker(
            plan=crew.planner([task("a")]), workers=[crew.worker()],
            synthesize=crew.worker("merger", task="merged"), judge=crew.judge(), policy=policy,
        )  # fmt: skip
        run = await Run(team, memory, thread=f"t{thread}").go()
        if run.asks:
            await run.answer(decision="reject")
        assert run.result.status == ("partial" if most else "failed")
        assert (run.result.output, run.result.missing[-1:]) == (output, (missing,))
        assert run.result.failure is not None
        assert run.result.failure.wanted == Usage(calls=1)


async def test_every_pattern_sums_what_was_left_out(crew: Crew, memory: Saver) -> None:
    stages = [crew.worker(name) for name in ("one", "two", "three")]
    each = [task(n).model_dump(mode="json") for n in "abcd"]
    cases: list[tuple[int, int, Any, dict[str, Any]]] = [
        (1, 2, pipeline(stages, policy=calls(1)), {}),
        (2, 4, pipeline(stages, policy=calls(2)), {"items": ["a", "b"]}),
        (3, 7, hierarchy(crew.worker("leaf"), merge=len, branching=3, policy=calls(3)),
         {"items": [*range(10)]}),
        (3, 1, marketplace([crew.worker("bidder")], policy=calls(3)), {"tasks": each}),
    ]  # fmt: skip
    for most, left, graph, inputs in cases:
        run = Run(graph, memory, thread=f"{most}/{left}")
        run.task = Task(goal="all of it", inputs=inputs)
        result = (await run.go()).result
        assert (result.status, result.usage.calls) == ("partial", most)
        assert result.failure is not None
        assert (result.failure.wanted, result.failure.parts) == (Usage(calls=left), left)
        assert result.failure.message.count("left no room") == 1


# ── one ask for the whole of it ───────────────────────────────────────────────────────────────


def joined(below: Any) -> Any:
    """Merges lists of anything."""
    return [each for part in below for each in (part if isinstance(part, list) else [part])]


def of_items(graph: Any, saver: Saver, many: int) -> Run:
    """A graph with so many items to work on."""
    run = Run(graph, saver)
    run.task = Task(goal="all of it", inputs={"items": [*range(many)]})
    return run


async def test_a_tree_asks_once_and_goes_on_where_each_branch_was(crew: Crew, saver: Saver) -> None:
    tree = hierarchy(
        crew.worker("leaf"), merge=joined, branching=3, policy=calls(7, on_budget="ask")
    )
    run = await of_items(tree, saver, 20).go()
    (ask,) = run.asks.values()
    assert ask.value.evidence["add"]["calls"] == 13
    assert len(ask.value.evidence["missing"]) == 13
    await run.answer()
    assert (run.result.status, run.result.output) == ("done", [f"{n}()" for n in range(20)])
    assert set(crew.did.values()) == {1}, "nothing was done twice"
    assert run.result.usage.calls == crew.calls == 20, "nothing is counted twice"


async def test_a_tree_nobody_adds_to_merges_what_it_has(crew: Crew, saver: Saver) -> None:
    policy = calls(7, on_budget="ask", parallel=1)
    tree = hierarchy(crew.worker("leaf"), merge=joined, branching=3, policy=policy)
    run = await of_items(tree, saver, 20).go()
    await run.answer(decision="reject")
    assert (run.result.status, len(run.result.output)) == ("partial", 7)  # type: ignore[arg-type]
    assert (len(run.result.missing), run.result.usage.calls) == (13, 7)
    assert crew.calls == 7


async def test_a_tree_asks_again_where_a_person_s_figure_was_too_small(
    crew: Crew, memory: Saver
) -> None:
    tree = hierarchy(
        crew.worker("leaf"), merge=joined, branching=3, policy=calls(2, on_budget="ask")
    )
    run = await (await of_items(tree, memory, 9).go()).answer(value={"add": {"calls": 4}})
    assert run.asks["task"].value.evidence["add"]["calls"] == 3
    assert (await run.answer()).result.usage.calls == crew.calls == 9


@pytest.mark.parametrize("most", [0, 4, 5])
async def test_who_manages_or_merges_a_tree_goes_on_with_a_larger_budget(
    crew: Crew, memory: Saver, most: int
) -> None:
    tree = hierarchy(
        crew.worker("leaf"), merge=crew.worker("merger"), branching=2,
        manager=crew.worker("boss", anything="go"), policy=calls(most, on_budget="ask"),
    )  # fmt: skip
    run = await of_items(tree, memory, 3).go()
    for _ in range(5):  # managing, leaves, merging, on two levels
        if run.asks:
            await run.answer()
    assert run.result.status == "done"
    assert run.result.usage.calls == crew.calls == 3 + 2 * 3, "three leaves, three managers"


async def test_what_there_is_no_room_to_merge_leaves_as_it_is(crew: Crew, memory: Saver) -> None:
    for thread, policy in enumerate([calls(3), calls(3, on_budget="ask")]):
        tree = hierarchy(crew.worker("leaf"), merge=crew.worker("merger"), policy=policy)
        run = Run(tree, memory, thread=f"t{thread}")
        run.task = Task(goal="all", inputs={"items": ["a", "b", "c"]})
        await run.go()
        if run.asks:
            await run.answer(decision="reject")
        assert (run.result.status, run.result.missing) == ("partial", ("task/merge",))
        assert run.result.output == {"0": "0()", "1": "1()", "2": "2()"}
        assert run.result.failure is not None
        assert run.result.failure.wanted == Usage(calls=1)


async def test_a_line_asks_for_all_its_stages_at_once(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker(name) for name in ("one", "two", "three")]
    run = await Run(pipeline(stages, policy=calls(1, on_budget="ask")), saver).go()
    evidence = run.asks["two"].value.evidence
    assert (evidence["add"]["calls"], evidence["missing"]) == (2, ["three", "two"])
    assert (await run.answer()).result.status == "done"
    assert crew.calls == 3


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_judge_without_room_is_asked_for_and_the_stage_s_work_kept(
    crew: Crew, saver: Saver, decision: Any
) -> None:
    line = pipeline([crew.worker("one")], gates=crew.judge(), policy=calls(1, on_budget="ask"))
    run = await Run(line, saver).go()
    assert run.asks["one"].value.about == "budget"
    result = (await run.answer(decision=decision)).result
    assert [name for name, _ in crew.by] == ["one", "critic"][: 2 if decision == "approve" else 1]
    assert result.status == ("done" if decision == "approve" else "failed")
    assert decision == "approve" or result.parts["one"].output == "one()"


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_market_asks_once_and_whoever_was_awarded_goes_on(
    crew: Crew, saver: Saver, decision: Any
) -> None:
    each: Any = [task(name).model_dump(mode="json") for name in "abcd"]
    workers = [crew.worker("ann"), crew.worker("bob")]
    run = Run(marketplace(workers, policy=calls(2, on_budget="ask")), saver)
    run.task = Task(goal="all", inputs={"tasks": each})
    await run.go()
    evidence = run.asks[run.task.id].value.evidence
    assert (evidence["add"]["calls"], len(evidence["missing"])) == (2, 2)
    result = (await run.answer(decision=decision)).result
    assert result.status == ("done" if decision == "approve" else "partial")
    assert result.usage.calls == crew.calls == (4 if decision == "approve" else 2)
    assert set(crew.did.values()) == {1}


# ── budgets within budgets ────────────────────────────────────────────────────────────────────


async def test_an_inner_graph_has_its_own_budget_out_of_the_outer_one(
    crew: Crew, memory: Saver
) -> None:
    inner = as_agent(
        manager_worker(
            plan=crew.planner([task(n) for n in "vwxyz"], name="inner planner"),
            workers=[crew.worker("inner worker")], policy=calls(4),
        ),
        name="inner",
    )  # fmt: skip
    plan = [task("a"), task("b")]
    outer = manager_worker(plan=crew.planner(plan), workers=[inner], policy=calls(7))
    run = await Run(outer, memory).go()
    assert run.result.usage.calls == crew.calls == 7
    ledger = run.services.ledger
    assert (await ledger.spent("t1")).calls == 7


async def test_an_outer_task_s_budget_holds_for_the_agents_inside(
    crew: Crew, memory: Saver
) -> None:
    inner = as_agent(
        pipeline([crew.worker(name) for name in ("one", "two", "three")], policy=QUICK),
        name="inner",
    )
    plan = [task("a", budget={"calls": 2}), task("b")]
    outer = manager_worker(plan=crew.planner(plan), workers=[inner], policy=QUICK)
    result = (await Run(outer, memory).go()).result
    assert (result.status, result.missing, crew.calls) == ("partial", ("a/three",), 6)


async def test_each_agent_and_each_task_has_a_budget(crew: Crew, memory: Saver) -> None:
    plan = [task("a", agent="ann"), task("b", agent="ann"), task("c", agent="bob")]
    each = QUICK.model_copy(update={"per_agent": Budget(calls=1)})
    workers = [crew.worker("ann"), crew.worker("bob")]
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=each)
    result = (await Run(team, memory).go()).result
    assert (result.status, result.missing, crew.calls) == ("partial", ("b",), 3)
    again = QUICK.model_copy(update={"per_task": Budget(calls=2), "attempts": 5})
    failing = crew.worker("eve", anything=ConnectionError("reset"))
    team = manager_worker(plan=crew.planner([task("a")]), workers=[failing], policy=again)
    await Run(team, memory, thread="t2").go()
    assert crew.calls == 3 + 1 + 2
