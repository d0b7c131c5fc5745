"""What guarding a call costs: CPU of `call` alone, and of a fan-out beside bare LangGraph.

    python benchmarks/guards.py [--agents 1000] [--repeat 5]

Every guard is on: a budget in tokens, money, calls and seconds for the run, each task and each
agent, limits of one model, timeouts, validation, the journal. Printed: microseconds of CPU a call,
of all threads, the median of several runs in turn, and each way as a multiple of bare LangGraph in
the same run.
"""

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import BaseModel

from kapelle.checkpoints.database import Database
from kapelle.nodes.agent import agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.services import Services
from kapelle.state.budget import Budget
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task

AMPLE = Budget(tokens=10**9, usd=10**6, calls=10**6, seconds=10**6)
GUARDED = Policy(budget=AMPLE, per_task=AMPLE, per_agent=AMPLE, parallel=10_000)


class Answer(BaseModel):
    """What a no-op answers."""

    number: int = 0


class Fan(TypedDict):
    """A number per agent."""

    numbers: Annotated[list[int], add]


class One(TypedDict):
    """Which of them it is."""

    number: int


@agent(output=Answer)
async def noop(task: Task) -> Answer:
    """Do nothing."""
    return Answer()


async def bare_node(state: One) -> dict[str, list[int]]:
    """A node that does nothing."""
    return {"numbers": [0]}


async def guarded_node(state: One, runtime: Runtime[Services]) -> dict[str, list[int]]:
    """A node that has an agent do nothing, by the one door."""
    work = Task(id=f"t{state['number']}", goal="nothing")
    result = await call(noop, work, Brief(), here=here(runtime), policy=GUARDED)
    assert result.status == "done", result.failure
    return {"numbers": [0]}


def fan(node: Any, agents: int) -> Any:
    """One node, so many times in one step."""
    graph = StateGraph(Fan, context_schema=Services)
    graph.add_node("work", node, input_schema=One)
    graph.add_conditional_edges(
        START, lambda _: [Send("work", One(number=n)) for n in range(agents)], ["work"]
    )
    graph.add_edge("work", END)
    return graph.compile()


async def bare(agents: int) -> float:
    """LangGraph alone."""
    graph = fan(bare_node, agents)
    start = time.process_time()
    await graph.ainvoke({"numbers": []})
    return time.process_time() - start


async def in_this_process(agents: int) -> float:
    """All guards, ledger and journal in memory."""
    graph = fan(guarded_node, agents)
    start = time.process_time()
    await graph.ainvoke({"numbers": []}, context=in_memory())
    return time.process_time() - start


async def in_sqlite(agents: int) -> float:
    """All guards, ledger and journal in an SQLite file."""
    graph = fan(guarded_node, agents)
    with tempfile.TemporaryDirectory() as folder:
        async with Database(str(Path(folder) / "bench.db")) as db:
            await db.runs.list()  # the schema is there before the clock starts
            start = time.process_time()
            config: Any = {"configurable": {"thread_id": "bench"}}
            await graph.ainvoke({"numbers": []}, config, context=db.services())
            await db.journal.read("nobody's")  # all is written
            return time.process_time() - start


async def alone(agents: int) -> float:
    """`call`, without a graph around it; ledger in memory."""
    place = Here(services=in_memory(), thread="t", place="", step="s", write=lambda _: None)
    tasks = [Task(id=f"t{n}", goal="nothing") for n in range(agents)]
    start = time.process_time()
    await asyncio.gather(*(call(noop, task, Brief(), here=place, policy=GUARDED) for task in tasks))
    return time.process_time() - start


def main() -> None:
    """Run each way in turn, several times; print medians."""
    options = argparse.ArgumentParser(description="What guarding a call costs.")
    options.add_argument("--agents", type=int, default=1_000)
    options.add_argument("--repeat", type=int, default=5)
    given = options.parse_args()
    ways: dict[str, Callable[[int], Coroutine[Any, Any, float]]] = {
        "bare LangGraph": bare,
        "call alone": alone,
        "guarded, memory": in_this_process,
        "guarded, SQLite": in_sqlite,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeat):
        for name, way in ways.items():
            gc.collect()  # what another way left behind is not this one's
            took[name].append(asyncio.run(way(given.agents)) / given.agents * 1e6)
    floor = statistics.median(took["bare LangGraph"])
    for name, each in took.items():
        middle = statistics.median(each)
        print(f"{name:16} {middle:6.0f} µs of CPU an agent   {middle / floor:5.2f} x")


if __name__ == "__main__":
    main()
