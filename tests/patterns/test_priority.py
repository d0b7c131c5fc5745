"""Where agents of several runs wait in one line, those of the most urgent run go first."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Agent, FunctionAgent, agent
from kapelle.nodes.in_memory import LocalEngine, in_memory
from kapelle.nodes.pattern import Pattern
from kapelle.state.ballot import Plurality
from kapelle.state.task import Task
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

THREE = [{"id": i, "goal": "work"} for i in "abc"]

PATTERNS: dict[str, Callable[[FunctionAgent], Pattern]] = {
    "manager_worker": lambda worker: manager_worker(
        plan=Crew().planner([task(i) for i in "abc"]), workers=[worker], policy=QUICK
    ),
    "pipeline": lambda worker: pipeline([worker], policy=QUICK),
    "swarm": lambda worker: swarm(
        [FunctionAgent(worker.function, worker.card.model_copy(update={"name": n})) for n in "pqr"],
        rule=Plurality(), policy=QUICK,
    ),
    "marketplace": lambda worker: marketplace([worker], policy=QUICK),
    "hierarchy": lambda worker: hierarchy(worker, merge=len, branching=2, policy=QUICK),
}  # fmt: skip


class OneThread(LocalEngine):
    """An engine with one thread; how many came for it."""

    came = 0

    def __init__(self) -> None:
        super().__init__(threads=1)

    def slot(self, agent: Agent, priority: int = 0) -> AbstractAsyncContextManager[object]:
        """A turn at the thread."""
        self.came += agent.where == "thread"
        return super().slot(agent, priority)


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_agents_of_the_urgent_run_go_first(pattern: str) -> None:
    order: list[int] = []

    @agent
    def work(task: Task) -> str:
        order.append(task.priority)
        return "x"

    engine = OneThread()
    services = replace(in_memory(), engine=engine)

    def run(priority: int) -> Any:
        one = Run(PATTERNS[pattern](work), thread=f"t{priority}")
        one.services = services
        inputs: Any = {"tasks": THREE} if pattern == "marketplace" else {"items": [1, 2, 3]}
        one.task = Task(goal="work", priority=priority, inputs=inputs)
        return one.go()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group, engine.slot(work, 99):
        for priority in (0, 9):
            group.create_task(run(priority))
        least = 4 if pattern == "swarm" else 6  # two of three voters are asked first
        while engine.came < 1 + least:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert order == sorted(order, reverse=True)
    assert set(order) == {0, 9}
