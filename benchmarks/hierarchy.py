"""What a tree of managers costs a leaf: against LangGraph's own nested graphs with the same saver.

    python benchmarks/hierarchy.py [--leaves 10000] [--rounds 3] [--profile]

10,000 leaves that do nothing, as 100 x 100, in a SQLite file, durable: CPU seconds of the process
(its threads included) a leaf, the median of the rounds in turn, and the peak of its memory. Each
measurement has a process of its own.
"""

import argparse
import asyncio
import cProfile
import json
import operator
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from kapelle.checkpoints import Database
from kapelle.graphs import hierarchy
from kapelle.nodes.agent import agent
from kapelle.state.task import Task

CONFIG: Any = {"configurable": {"thread_id": "bench"}}


class Counted(TypedDict, total=False):
    """How many at once, and what they brought."""

    width: int
    item: int
    done: Annotated[list[int], operator.add]


def bare(width: int) -> StateGraph[Counted]:
    """LangGraph alone: a graph that fans out to graphs that fan out."""

    async def leaf(state: Counted) -> Counted:
        return {"done": [state["item"]]}

    below = StateGraph(Counted)
    below.add_node("leaf", leaf)
    below.add_conditional_edges(START, lambda state: _each("leaf", state), ["leaf"])
    below.add_edge("leaf", END)
    inner = below.compile()

    async def branch(state: Counted) -> Counted:
        made = await inner.ainvoke({"width": width})
        return {"done": [sum(made["done"])]}

    graph = StateGraph(Counted)
    graph.add_node("branch", branch)
    graph.add_conditional_edges(START, lambda state: _each("branch", state), ["branch"])
    graph.add_edge("branch", END)
    return graph


def _each(node: str, state: Counted) -> list[Send]:
    return [Send(node, {"item": i}) for i in range(state["width"])]


@asynccontextmanager
async def opened() -> AsyncIterator[Database]:
    """A database in a fresh file, its schema made."""
    with tempfile.TemporaryDirectory() as folder:
        async with Database(str(Path(folder) / "bench.db")) as db:
            await db.runs.list()
            yield db


async def of_bare(leaves: int) -> float:
    """CPU seconds of LangGraph alone."""
    width = round(leaves**0.5)
    async with opened() as db:
        app = bare(width).compile(checkpointer=db.saver)
        begun = time.process_time()
        made = await app.ainvoke({"width": width}, CONFIG, durability="sync")
        assert len(made["done"]) == width
        return time.process_time() - begun


async def of_tree(leaves: int) -> float:
    """CPU seconds of a hierarchy, journal and ledger included."""

    @agent
    async def work(task: Task) -> object:
        return task.inputs["item"]

    def count(outputs: list[Any]) -> int:
        return sum(outputs)

    tree = hierarchy(work, merge=count, branching=round(leaves**0.5))
    task = Task(goal="count", inputs={"items": list(range(leaves))})
    async with opened() as db:
        app = tree.compile(checkpointer=db.saver)
        begun = time.process_time()
        made = await app.ainvoke({"task": task}, CONFIG, context=db.services(), durability="sync")
        took = time.process_time() - begun
        assert made["result"].output == sum(range(leaves))
        return took


Way = Callable[[int], Coroutine[Any, Any, float]]

WAYS: dict[str, Way] = {"bare LangGraph": of_bare, "hierarchy": of_tree}


def measured(way: str, leaves: int) -> dict[str, float]:
    """CPU microseconds a leaf and peak megabytes, in this process."""
    took = asyncio.run(WAYS[way](leaves))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": took / leaves * 1e6, "peak": peak}


def main() -> None:
    """Measure each way in turn, each time in a new process; print medians."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--leaves", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--profile", action="store_true", help="of the hierarchy, by own time")
    options.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.only:
        print(json.dumps(measured(given.only, given.leaves)))
    elif given.profile:
        with cProfile.Profile() as profile:
            measured("hierarchy", given.leaves)
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    else:
        compare(given.leaves, given.rounds)


def compare(leaves: int, rounds: int) -> None:
    """Print a line for each way."""
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, found in seen.items():
            command = [sys.executable, __file__, "--only", way, "--leaves", str(leaves)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
    floor = statistics.median(each["cpu"] for each in seen["bare LangGraph"])
    for way, found in seen.items():
        cpu = statistics.median(each["cpu"] for each in found)
        peak = max(each["peak"] for each in found)
        print(f"{way:16} {cpu:7.0f} µs CPU a leaf   {cpu / floor:5.2f} x   peak {peak:5.0f} MB")


if __name__ == "__main__":
    main()
