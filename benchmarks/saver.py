"""What keeping costs: LangGraph's own loop with our saver, the official ones and none on disk.

    python benchmarks/saver.py                      # SQLite
    python benchmarks/saver.py --postgres URL       # and PostgreSQL
    python benchmarks/saver.py --mariadb URL        # and MariaDB (which has no official saver)

Microseconds a step, the median of the rounds, and as multiples of `InMemorySaver`, which is the
floor: what the loop costs when nothing is kept. The savers take turns within a round, so that what
else the machine does falls on all alike.
"""

import argparse
import asyncio
import operator
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from kapelle.checkpoints import Database

Saver = Callable[[], AbstractAsyncContextManager[BaseCheckpointSaver[Any]]]


class Counted(TypedDict, total=False):
    """A count, and where it ends."""

    count: int
    until: int


class Fanned(TypedDict, total=False):
    """How many at once, and what they brought."""

    width: int
    done: Annotated[list[int], operator.add]


def line() -> StateGraph[Counted]:
    """One node that goes round until it has counted far enough."""
    graph = StateGraph(Counted)
    count: Any = lambda state: {"count": state["count"] + 1}  # noqa: E731
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges(
        "count", lambda state: "count" if state["count"] < state["until"] else END, ["count", END]
    )
    return graph


def fan() -> StateGraph[Fanned]:
    """Many tasks in one step."""
    graph = StateGraph(Fanned)
    work: Any = lambda state: {"done": [state["item"]]}  # noqa: E731
    graph.add_node("work", work)
    graph.add_conditional_edges(
        START, lambda state: [Send("work", {"item": i}) for i in range(state["width"])], ["work"]
    )
    graph.add_edge("work", END)
    return graph


def config(thread: object) -> Any:
    """A thread, with a limit no benchmark reaches."""
    return {"configurable": {"thread_id": str(thread)}, "recursion_limit": 100_000}


async def many(saver: BaseCheckpointSaver[Any]) -> float:
    """64 threads of 20 steps each, all at once."""
    app = line().compile(checkpointer=saver)
    begun = time.perf_counter()
    runs = (app.ainvoke({"count": 0, "until": 20}, config(i), durability="sync") for i in range(64))
    await asyncio.gather(*runs)
    return (time.perf_counter() - begun) / (64 * 20)


async def single(saver: BaseCheckpointSaver[Any]) -> float:
    """One thread of 1,000 steps."""
    app = line().compile(checkpointer=saver)
    begun = time.perf_counter()
    await app.ainvoke({"count": 0, "until": 1_000}, config("one"), durability="sync")
    return (time.perf_counter() - begun) / 1_000


async def wide(saver: BaseCheckpointSaver[Any]) -> float:
    """1,000 tasks in one step."""
    app = fan().compile(checkpointer=saver)
    begun = time.perf_counter()
    await app.ainvoke({"width": 1_000}, config("wide"), durability="sync")
    return (time.perf_counter() - begun) / 1_000


JOBS = {"64 threads × 20 steps": many, "1 thread × 1,000 steps": single, "fan-out of 1,000": wide}


@asynccontextmanager
async def memory() -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Nothing on disk."""
    yield InMemorySaver()


@asynccontextmanager
async def official_sqlite() -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own, on a fresh file."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(str(Path(folder) / "official.db")) as saver:
            await saver.setup()
            yield saver


@asynccontextmanager
async def ours_sqlite() -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Ours, on a fresh file."""
    with tempfile.TemporaryDirectory() as folder:
        async with Database(str(Path(folder) / "ours.db")) as database:
            await database.saver.aget_tuple(config("warm"))
            yield database.saver


def official_postgres(url: str, pool: int) -> Saver:
    """LangGraph's own, one connection or a pool."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from psycopg.rows import dict_row  # noqa: PLC0415
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    plain = url.replace("postgresql+psycopg", "postgresql")
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}

    @asynccontextmanager
    async def opened() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        if pool == 1:
            async with AsyncPostgresSaver.from_conn_string(plain) as saver:
                await _cleared(saver)
                yield saver
            return
        connections: Any = AsyncConnectionPool(plain, max_size=pool, open=False, kwargs=settings)
        async with connections:
            saver = AsyncPostgresSaver(connections)
            await _cleared(saver)
            yield saver

    return opened


async def _cleared(saver: Any) -> None:
    await saver.setup()
    for thread in ("one", "wide", *map(str, range(64))):
        await saver.adelete_thread(thread)


def ours(url: str) -> Saver:
    """Ours, on a server."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with Database(url) as database:
            await _cleared(_Ready(database.saver))
            yield database.saver

    return opened


class _Ready:
    """Ours sets itself up."""

    def __init__(self, saver: Any) -> None:
        self.adelete_thread = saver.adelete_thread

    async def setup(self) -> None:
        """Nothing to do."""


def measure(savers: dict[str, Saver], rounds: int) -> None:
    """Print a table: a line a saver, a column a job."""
    for title, job in JOBS.items():
        times: dict[str, list[float]] = {name: [] for name in savers}
        for _ in range(rounds):
            for name, saver in savers.items():
                times[name].append(asyncio.run(_once(saver, job)))
        floor = statistics.median(times["InMemorySaver"])
        print(f"\n{title}")
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"  {name:34} {median * 1e6:8.0f} µs a step   {median / floor:5.2f} ×")


async def _once(saver: Saver, job: Callable[[BaseCheckpointSaver[Any]], Any]) -> float:
    async with saver() as opened:
        taken: float = await job(opened)
        return taken


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--postgres")
    parser.add_argument("--mariadb")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    savers: dict[str, Saver] = {
        "InMemorySaver": memory,
        "official AsyncSqliteSaver": official_sqlite,
        "Kapelle on SQLite": ours_sqlite,
    }
    if asked.postgres:
        savers["official AsyncPostgresSaver"] = official_postgres(asked.postgres, 1)
        savers["official, pool of 16"] = official_postgres(asked.postgres, 16)
        savers["Kapelle on PostgreSQL"] = ours(asked.postgres)
    if asked.mariadb:
        savers["Kapelle on MariaDB"] = ours(asked.mariadb)
    print(f"SQLite {sqlite3.sqlite_version}: WAL, synchronous=FULL, for both savers")
    measure(savers, asked.rounds)


if __name__ == "__main__":
    main()
