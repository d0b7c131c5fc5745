"""What keeping costs: LangGraph's own loop with our saver, the official ones and none on disk.

    python benchmarks/saver.py                      # SQLite
    python benchmarks/saver.py --postgres URL       # and PostgreSQL
    python benchmarks/saver.py --mariadb URL        # and MariaDB (which has no official saver)

First how each sees to it that what it commits survives a loss of power. Then microseconds a step,
the median of the rounds, and the median of what they were as multiples of the same round's
`InMemorySaver`, which is the floor: what the loop costs when nothing is kept. The savers take turns
within a round, so that what else the machine does falls on all alike. "One INSERT a step" is what
waiting for the disk or the server costs whoever keeps anything (see `bounds`). Then microseconds a
look at many threads, and the bytes of a state that grows.
"""

import argparse
import asyncio
import operator
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from bounds import least
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
    async with saver._cursor() as cursor:  # noqa: SLF001  # there is no public way to empty it
        await cursor.execute("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes")


def ours(url: str) -> Saver:
    """Ours, on a server, as a tenant of its own."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with Database(url, tenant=uuid4().hex) as database:
            await database.saver.aget_tuple(config("warm"))
            yield database.saver

    return opened


def measure(savers: dict[str, Saver], rounds: int) -> None:
    """Print a table: a line a saver, a column a job."""
    for title, job in JOBS.items():
        times: dict[str, list[float]] = {name: [] for name in savers}
        for _ in range(rounds):
            for name, saver in savers.items():
                times[name].append(asyncio.run(_once(saver, job)))
        floor = times["InMemorySaver"]
        print(f"\n{title}")
        for name, taken in times.items():
            median = statistics.median(taken)
            ratio = statistics.median(t / f for t, f in zip(taken, floor, strict=True))
            print(f"  {name:34} {median * 1e6:8.0f} µs a step   {ratio:5.2f} ×")


async def _once(saver: Saver, job: Callable[[BaseCheckpointSaver[Any]], Any]) -> float:
    async with saver() as opened:
        taken: float = await job(opened)
        return taken


# ── looking ──────────────────────────────────────────────────────────────────────────────────


async def filled(saver: BaseCheckpointSaver[Any], threads: int) -> None:
    """So many threads of one checkpoint; 200 of 20 checkpoints, each with an owner."""
    app = line().compile(checkpointer=saver)
    for first in range(0, threads, 500):
        once: Any = {"input": {"count": 0, "until": 1}, "durability": "exit"}
        names = (config(f"many-{n}") for n in range(first, first + 500))
        await asyncio.gather(*(app.ainvoke(config=name, **once) for name in names))
    owned: list[Any] = [
        {**config(f"owned-{n}"), "metadata": {"owner": f"owner-{n}"}} for n in range(200)
    ]
    often: Any = {"input": {"count": 0, "until": 18}, "durability": "sync"}
    await asyncio.gather(*(app.ainvoke(config=name, **often) for name in owned))


async def state(saver: BaseCheckpointSaver[Any]) -> int:
    """`aget_state` of 50 threads."""
    app = line().compile(checkpointer=saver)
    for number in range(0, 500, 10):
        assert (await app.aget_state(config(f"many-{number}"))).values["count"] == 1
    return 50


async def newest(saver: BaseCheckpointSaver[Any]) -> int:
    """The 20 newest of all threads, 10 times."""
    for _ in range(10):
        assert len([found async for found in saver.alist(None, limit=20)]) == 20
    return 10


async def owned(saver: BaseCheckpointSaver[Any]) -> int:
    """The checkpoints of one owner, of 5 owners."""
    for number in range(5):
        wanted = {"owner": f"owner-{number * 7}"}
        assert len([found async for found in saver.alist(None, filter=wanted)]) == 20
    return 5


LOOKS = {
    "aget_state": state,
    "the 20 newest": newest,
    "by metadata, 200 threads × 20": owned,
}


def look(savers: dict[str, Saver], threads: int) -> None:
    """Print a table: a line a saver, a column a look."""
    print(f"\nµs a look at {threads:,} threads and 200 more{'':9}" + "   ".join(LOOKS))
    for name, saver in savers.items():
        taken = asyncio.run(_looked(saver, threads))
        columns = (f"{t * 1e6:{len(title)}.0f}" for title, t in zip(LOOKS, taken, strict=True))
        print(f"  {name:44} {'   '.join(columns)}")


async def _looked(saver: Saver, threads: int) -> list[float]:
    async with saver() as opened:
        await filled(opened, threads)
        taken = []
        for looking in LOOKS.values():
            await looking(opened)
            begun = time.perf_counter()
            times = await looking(opened)
            taken.append((time.perf_counter() - begun) / times)
        return taken


# ── what is stored ───────────────────────────────────────────────────────────────────────────


async def stored(name: str, saver: Callable[[str], Any]) -> None:
    """200 steps of 1 kB in a file."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for steps in (0, 200):
            path = Path(folder) / f"{steps}.db"
            async with saver(str(path)) as opened:
                keeper = opened.saver if isinstance(opened, Database) else opened
                app = growing().compile(checkpointer=keeper)
                await app.aget_state(config("one"))
                if steps:
                    await app.ainvoke({"texts": []}, config("one"), durability="sync")
            sizes.append(path.stat().st_size)
    grown = sizes[1] - sizes[0]
    print(f"  {name:34} {grown:12,} bytes   {grown / (2 * 200 * 1_000):5.2f} ×")


class Grown(TypedDict, total=False):
    """A list that grows."""

    texts: Annotated[list[str], operator.add]


def growing() -> StateGraph[Grown]:
    """One node that adds 1 kB, 200 times."""
    graph = StateGraph(Grown)
    grow: Any = lambda state: {"texts": [f"{len(state['texts']):04}" * 250]}  # noqa: E731
    graph.add_node("grow", grow)
    graph.add_edge(START, "grow")
    graph.add_conditional_edges(
        "grow", lambda state: "grow" if len(state["texts"]) < 200 else END, ["grow", END]
    )
    return graph


async def settings(urls: list[str | None]) -> None:
    """Print how commits reach the disk."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(f"{folder}/official.db") as saver:
            await saver.setup()
            found = {}
            for pragma in ("journal_mode", "synchronous"):
                rows = await saver.conn.execute_fetchall(f"PRAGMA {pragma}")
                found[pragma] = str(next(iter(rows))[0])
        _tell("official AsyncSqliteSaver", found)
        for url in (f"sqlite:///{folder}/ours.db", *filter(None, urls)):
            async with Database(url) as database:
                await database.upgrade()
                kind = "SQLite" if url.startswith("sqlite") else url.partition(":")[0]
                _tell(f"Kapelle on {kind}", {f.what: f.found for f in await database.doctor()})


def _tell(name: str, found: dict[str, str]) -> None:
    print(f"  {name:34} " + ", ".join(f"{k}={found[k]}" for k in DURABLE if k in found))


DURABLE = (
    "journal_mode",
    "synchronous",
    "fsync",
    "synchronous_commit",
    "innodb_flush_log_at_trx_commit",
)
"""Settings on which it depends what a loss of power leaves. The savers of one server share them."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--postgres")
    parser.add_argument("--mariadb")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=10_000, help="how many are looked at")
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
    print("How commits reach the disk (synchronous=2 is FULL)")
    asyncio.run(settings([asked.postgres, asked.mariadb]))
    bounds: dict[str, Saver] = {"one INSERT a step, SQLite": least.on_sqlite}
    if asked.postgres:
        bounds["one INSERT a step, PostgreSQL"] = least.on_postgres(asked.postgres)
    measure(savers | bounds, asked.rounds)
    look(savers, asked.threads)
    print("\n200 steps of 1 kB, as multiples of the final state and one copy of each write")
    asyncio.run(stored("official AsyncSqliteSaver", AsyncSqliteSaver.from_conn_string))
    asyncio.run(stored("Kapelle on SQLite", Database))


if __name__ == "__main__":
    main()
