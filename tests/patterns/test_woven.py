"""Every pattern is a worker of every other, and an ask deep inside comes out and is answered."""

from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Agent, agent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Escalation
from kapelle.state.ballot import Plurality
from kapelle.state.task import Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

Build = Callable[[Agent], Pattern]


def one_part(whole: Task) -> list[Task]:
    """A plan of one part, with something in it for each pattern."""
    return [task(f"{whole.id}-part", inputs={"items": [1]})]


PATTERNS: dict[str, Build] = {
    "manager_worker": lambda worker: manager_worker(
        plan=agent(name="planner")(one_part), workers=[worker], policy=QUICK
    ),
    "pipeline": lambda worker: pipeline([worker], policy=QUICK),
    "swarm": lambda worker: swarm([worker], rule=Plurality(), policy=QUICK),
    "marketplace": lambda worker: marketplace([worker], deadline=1, policy=QUICK),
    "hierarchy": lambda worker: hierarchy(
        worker, merge=lambda made: made[0], branching=2, policy=QUICK
    ),
}


def woven(outer: str, inner: str, worker: Agent) -> Pattern:
    """A pattern in another."""
    return PATTERNS[outer](as_agent(PATTERNS[inner](worker), name="inner"))


@pytest.mark.parametrize("outer", PATTERNS)
@pytest.mark.parametrize("inner", PATTERNS)
async def test_a_pattern_in_another_is_asked_in_and_answered_through_it(
    crew: Crew, memory: Saver, outer: str, inner: str
) -> None:
    worker = crew.worker("doer", anything=Escalation(question="Go on?", evidence="done it"))
    run = Run(woven(outer, inner, worker), memory)
    item: Any = [[1]] if (outer, inner) != ("hierarchy", "hierarchy") else [[[1]]]
    run.task = Task(goal="do it", inputs={"items": item[0] if outer == "manager_worker" else item})
    await run.go()
    assert len(run.asks) == 1
    (about,) = run.asks
    result = (await run.answer(about)).result
    assert result.status == "done"
    assert "done it" in str(result.output)
    assert [n for n, _ in crew.by].count("doer") == 1


@pytest.mark.parametrize("pattern", ["pipeline", "hierarchy"])
async def test_streams_and_trees_stop_and_go_on_in_every_database(
    crew: Crew, everywhere: Saver, pattern: str
) -> None:
    answers: dict[str, object] = {"1": Escalation(question="Go on?", evidence=100)}
    worker = crew.worker("doer", (), **answers, anything=1) if pattern == "hierarchy" else None
    stage = crew.worker("doer", (), **{"1/doer": answers["1"]}, anything=1)
    graph = PATTERNS[pattern](worker or stage)
    if pattern == "hierarchy":
        graph = hierarchy(worker or stage, merge=sum, branching=2, policy=QUICK)
    run = Run(graph, everywhere)
    run.task = Task(goal="add", inputs={"items": [1, 2, 3, 4, 5]})
    await run.go()
    assert len(run.asks) == 1
    (about,) = run.asks
    result = (await run.answer(about)).result
    assert result.status == "done"
    assert result.output == (104 if pattern == "hierarchy" else [1, 100, 1, 1, 1])
    assert crew.calls == 5


@pytest.mark.parametrize("pattern", ["pipeline", "hierarchy"])
async def test_decisions_are_the_same_one_at_a_time_and_sixteen_at_once(pattern: str) -> None:
    seen = []
    for parallel in (1, 16):
        crew = Crew()
        shaky = {str(n): [ValueError("no"), n] for n in range(0, 20, 3)}
        hopeless = {str(n): ValueError("never") for n in range(1, 20, 7)}
        script = shaky | hopeless
        if pattern == "pipeline":
            script = {f"{name}/doer": answer for name, answer in script.items()}
        worker = crew.worker("doer", (), **script, anything=1)
        policy = QUICK.model_copy(update={"parallel": parallel, "seed": 7})
        graph = (
            pipeline([worker], policy=policy)
            if pattern == "pipeline"
            else hierarchy(worker, merge=sum, branching=3, policy=policy)
        )
        run = Run(graph)
        run.task = Task(goal="add", inputs={"items": list(range(20))})
        result = (await run.go()).result
        choices = {
            (e.kind, e.what, e.task, e.why)
            for e in await run.events()
            if e.kind in ("choice", "message", "escalation", "run")
        }
        told = {(n, r.status, r.failure) for n, r in result.parts.items()}
        seen.append((result.output, result.missing, result.usage, told, choices))
    assert seen[0] == seen[1]
