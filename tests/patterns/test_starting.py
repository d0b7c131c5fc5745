"""What is expected to be dear, a person sees before it begins: in every pattern at one place."""

from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import as_agent
from kapelle.state.ballot import Plurality
from kapelle.state.budget import Budget, Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

Build = Callable[[Crew, Policy], Any]

THREE = Task(
    goal="all of it",
    inputs={
        "items": ["a", "b", "c"],
        "tasks": [task(name).model_dump(mode="json") for name in "abc"],
    },
)


def a_team(crew: Crew, policy: Policy) -> Any:
    """Three parts."""
    plan = crew.planner([task(name) for name in "abc"])
    return manager_worker(plan=plan, workers=[crew.worker()], policy=policy)


def a_line(crew: Crew, policy: Policy) -> Any:
    """Three items, a stage."""
    return pipeline([crew.worker()], policy=policy)


def a_swarm(crew: Crew, policy: Policy) -> Any:
    """Three peers."""
    peers = [crew.worker(name, anything="yes") for name in ("x", "y", "z")]
    return swarm(peers, rule=Plurality(), policy=policy)


def a_market(crew: Crew, policy: Policy) -> Any:
    """Three tasks."""
    return marketplace([crew.worker()], policy=policy)


def a_tree(crew: Crew, policy: Policy) -> Any:
    """Three leaves."""
    return hierarchy(crew.worker(), merge=len, policy=policy)


PATTERNS = [a_team, a_line, a_swarm, a_market, a_tree]


def above(calls: int, **more: Any) -> Policy:
    """Ask above so many calls."""
    return QUICK.model_copy(update={"ask_above": Budget(calls=calls), **more})


async def begun(graph: Any, saver: Saver, thread: str = "t1") -> Run:
    """The graph at work on three things."""
    run = Run(graph, saver, thread=thread)
    run.task = THREE
    return await run.go()


@pytest.mark.parametrize("build", PATTERNS)
async def test_a_person_sees_what_is_expected_before_anyone_works(
    crew: Crew, memory: Saver, build: Build
) -> None:
    run = await begun(build(crew, above(2)), memory)
    assert [name for name, _ in crew.by if name != "planner"] == []
    ask = run.asks[run.task.id].value
    assert ask.about == "estimate"
    assert "expected to use 0 tokens, 3 calls" in ask.reason
    assert ask.evidence["estimate"]["expected"]["usage"]["calls"] == 3
    await run.answer()
    assert run.result.status == "done"


@pytest.mark.parametrize("build", PATTERNS)
async def test_what_is_expected_to_use_no_more_begins_at_once(
    crew: Crew, memory: Saver, build: Build
) -> None:
    assert (await begun(build(crew, above(3)), memory)).result.status == "done"


@pytest.mark.parametrize("build", PATTERNS)
async def test_what_a_person_abandons_is_refused_and_nobody_works(
    crew: Crew, memory: Saver, build: Build
) -> None:
    run = await begun(build(crew, above(2)), memory)
    result = (await run.answer(decision="reject", reason="too dear")).result
    assert result.status == "refused"
    assert result.failure is not None
    assert result.failure.message == "ann rejected it: too dear"
    assert [name for name, _ in crew.by if name != "planner"] == []
    ended = [e.what for e in await run.events() if e.kind == "run"]
    assert ended == ["refused"]
    await run.go()
    assert (await run.answer()).result.status == "done", "the thread takes another task"


@pytest.mark.parametrize("build", PATTERNS[1:])  # a plan that is too dear its planner makes anew
async def test_a_person_may_add_to_the_budget_before_the_start(
    crew: Crew, saver: Saver, build: Build
) -> None:
    policy = above(2, budget=Budget(calls=2))
    run = await begun(build(crew, policy), saver)
    await run.answer(decision="edit", value={"calls": 1})
    assert (run.result.status, crew.calls) == ("done", 2 if build is a_swarm else 3)


async def test_a_plan_that_replaces_another_is_looked_at_too(crew: Crew, memory: Saver) -> None:
    plans = crew.planner([task("a"), task("b")], [task("a"), task("c"), task("d"), task("e")])
    team = manager_worker(
        plan=plans, workers=[crew.worker(b=ValueError("no"))], policy=above(2, replans=1)
    )
    run = await Run(team, memory).go()
    shown = run.asks["task"].value.evidence["tasks"]
    assert [part["id"] for part in shown] == ["c", "d", "e"], "what is done costs nothing more"
    result = (await run.answer(decision="reject")).result
    assert (result.status, result.output) == ("refused", {"a": "a()"}), "it is not thrown away"


async def test_who_merges_and_judges_is_counted_with_the_plan(crew: Crew, memory: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()],
        synthesize=crew.worker("merger"), judge=crew.judge(), policy=above(2),
    )  # fmt: skip
    run = await Run(team, memory).go()
    assert "3 calls" in run.asks["task"].value.reason


async def test_what_nobody_can_estimate_a_person_sees_first(crew: Crew, memory: Saver) -> None:
    worker = crew.worker()

    def unknown(task: Task, brief: Brief) -> Usage:
        raise LookupError("no tokenizer")

    worker.estimate = unknown  # type: ignore[method-assign]
    run = await begun(pipeline([worker], policy=above(100)), memory)
    assert (
        "Nobody knows what it will use: LookupError: no tokenizer" in run.asks["task"].value.reason
    )


async def test_a_graph_within_another_asks_for_itself(crew: Crew, memory: Saver) -> None:
    inner = as_agent(pipeline([crew.worker("one"), crew.worker("two")], policy=above(1)), name="in")
    run = await Run(pipeline([inner, crew.worker("three")], policy=QUICK), memory).go()
    assert crew.calls == 0
    assert (await run.answer()).result.status == "done"


def test_an_agent_cannot_have_the_name_of_the_place(crew: Crew) -> None:
    assert pipeline([crew.worker("estimate")], policy=QUICK)
    with pytest.raises(Misbuilt, match="can't be called 'estimate' here"):
        pipeline([crew.worker("estimate")], policy=above(1))
