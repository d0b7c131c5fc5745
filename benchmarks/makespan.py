"""What Kapelle adds to the time a team takes: a random DAG, run by bare asyncio and by a team.

    python benchmarks/makespan.py [--tasks 200] [--repeat 5]

200 tasks with log-normal durations, up to three needs each, 50 at a time. Printed: the makespan of
each way, the median of several runs in turn, and what a subtask costs above bare asyncio.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kapelle.checkpoints.database import Database
from kapelle.graphs import manager_worker
from kapelle.nodes.agent import agent
from kapelle.state.policy import Policy
from kapelle.state.task import Task

PARALLEL = 50


def random_dag(tasks: int, seed: int) -> list[Task]:
    """Tasks with up to three needs among those before them; `inputs["seconds"]` is log-normal."""
    lot = random.Random(seed)
    return [
        Task(
            id=f"t{i}",
            goal="sleep",
            inputs={"seconds": min(0.5, lot.lognormvariate(-3.5, 0.8))},
            needs=tuple(f"t{j}" for j in sorted(lot.sample(range(i), min(i, lot.randrange(4))))),
        )
        for i in range(tasks)
    ]


async def bare(tasks: list[Task]) -> float:
    """The lower bound: futures and a semaphore."""
    start = time.perf_counter()
    limit, cells = asyncio.Semaphore(PARALLEL), {t.id: asyncio.Event() for t in tasks}

    async def work(task: Task) -> None:
        for need in task.needs:
            await cells[need].wait()
        async with limit:
            await asyncio.sleep(float(str(task.inputs["seconds"])))
        cells[task.id].set()

    await asyncio.gather(*map(work, tasks))
    return time.perf_counter() - start


def team(tasks: list[Task]) -> Any:
    """The same work by a team with one worker."""

    @agent
    async def plan(task: Task) -> list[Task]:
        return tasks

    @agent
    async def sleeper(task: Task) -> str:
        await asyncio.sleep(float(str(task.inputs["seconds"])))
        return task.id

    return manager_worker(plan=plan, workers=[sleeper], policy=Policy(parallel=PARALLEL))


async def unsaved(tasks: list[Task]) -> float:
    """A team without a saver."""
    start = time.perf_counter()
    final = await team(tasks).compile().ainvoke({"task": Task(goal="bench")})
    assert final["result"].status == "done"
    return time.perf_counter() - start


async def saved(tasks: list[Task]) -> float:
    """A team with saver and journal in a SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        async with Database(str(Path(folder) / "bench.db")) as db:
            await db.runs.list()  # the schema is there before the clock starts
            start = time.perf_counter()
            graph = team(tasks).compile(checkpointer=db.saver)
            config = {"configurable": {"thread_id": "bench"}}
            final = await graph.ainvoke(
                {"task": Task(goal="bench")}, config, context=db.services(), durability="sync"
            )
            assert final["result"].status == "done"
            return time.perf_counter() - start


def main() -> None:
    """Run each way in turn, several times; print medians."""
    options = argparse.ArgumentParser(description="What Kapelle adds to a makespan.")
    options.add_argument("--tasks", type=int, default=200)
    options.add_argument("--repeat", type=int, default=5)
    given = options.parse_args()
    tasks = random_dag(given.tasks, seed=7)
    ways: dict[str, Callable[[list[Task]], Coroutine[Any, Any, float]]] = {
        "bare asyncio": bare,
        "team, no saver": unsaved,
        "team, SQLite": saved,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeat):
        for name, way in ways.items():
            took[name].append(asyncio.run(way(tasks)))
    floor = statistics.median(took["bare asyncio"])
    for name, seconds in took.items():
        middle = statistics.median(seconds)
        above = (middle - floor) / given.tasks * 1000
        print(f"{name:16} {middle:7.3f} s   {middle / floor:5.2f} x   +{above:.2f} ms a subtask")


if __name__ == "__main__":
    main()
