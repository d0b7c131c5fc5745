"""Kills runs at every write and at any time, and goes on with them; says as JSON what came of it.

    python killed.py URL KILLS SEED [hasty]

The graph, driven by `Runs`: two steps, three at once, a join, a question, an end. Each process is
forked from this one, so that nothing is imported twice, opens the database anew, and goes on where
the last one died, until the run is done. What happened in between stands in a book: a line when a
node begins, a line when what it wrote was said to be durable. What must hold (the oracle):

    the result is that of an undisturbed run
    what was said to be durable is not done again
    no checkpoint shows more than the one before it and the writes kept there
    no checkpoint has two children
    the run is done in the end, its ask was asked once, and SQLite finds its file whole

`hasty` kills a saver that says too early that something is durable: the oracle has to find it.
"""

import asyncio
import gc
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from operator import add
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import uuid4

from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from sqlalchemy import event

from kapelle import Approval, Runs
from kapelle.checkpoints import Database
from kapelle.checkpoints.writing import CONTROL
from kapelle.state.approval import Escalation
from kapelle.state.errors import UnknownThread
from kapelle.state.task import Result, Task

importlib.import_module("alembic.command")  # once here, not in every process

THREAD = "t1"
CONFIG: Any = {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}
STEPS = ["a", "b", "part0", "part1", "part2", "join", "yes", "last"]
"""What an undisturbed run leaves."""

HASTY = "hasty" in sys.argv

LOT = uuid4().hex[:8]
"""Tells the tenants of this drill from those of others on the same server."""

WORKERS = 2
"""Runs that are killed at the same time."""


class Kill(NamedTuple):
    """Where a process is killed: around its n-th write or commit, or after some seconds."""

    where: str
    """`before` or `after` a write, before a `commit`, or at some `time`."""
    at: float


class State(TypedDict, total=False):
    """What there is to do, who was there, and what left the run."""

    task: Task
    log: Annotated[list[str], add]
    result: Result


# ── the run ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class Book:
    """What processes leave behind when they are killed."""

    path: Path

    def note(self, *words: object) -> None:
        """Write a line that outlives the process."""
        with self.path.open("a") as book:
            book.write(" ".join(map(str, words)) + "\n")

    def lines(self) -> list[list[str]]:
        """All lines."""
        return [line.split() for line in self.path.read_text().splitlines()]


def graph(book: Book) -> StateGraph[State]:
    """The graph that is killed."""

    def note(what: str, name: str) -> None:
        book.note(what, get_config()["configurable"]["__pregel_task_id"], name)

    def begin(name: str) -> State:
        note("begin", name)
        return {"log": [name]}

    def gate(state: State) -> State:
        answer = interrupt(Escalation(question="Go on?"))
        note("answered", "gate")
        return {"log": ["yes" if answer else "no"]}

    def last(state: State) -> State:
        done: list[Any] = [*state["log"], *begin("last")["log"]]
        return {
            "log": ["last"],
            "result": Result(task=state["task"].id, status="done", output=done),
        }

    steps: dict[str, Any] = {
        "a": lambda state: begin("a"),
        "b": lambda state: begin("b"),
        "part": lambda state: begin(f"part{state['part']}"),
        "join": lambda state: begin("join"),
        "gate": gate,
        "last": last,
    }
    built = StateGraph(State)
    for name, step in steps.items():
        built.add_node(name, step)
    built.add_edge(START, "a")
    built.add_edge("a", "b")
    built.add_conditional_edges(
        "b", lambda _: [Send("part", {"part": n}) for n in range(3)], ["part"]
    )
    built.add_edge("part", "join")
    built.add_edge("join", "gate")
    built.add_edge("gate", "last")
    built.add_edge("last", END)
    return built


async def drive(url: str, tenant: str, book: Book, kill: Kill | None) -> None:
    """Start the run or go on with it, answer what it asks, until it is done."""
    async with Database(url, tenant=tenant) as db:
        await looks_whole(db)
        if HASTY:
            hasty(db)
        arm(db, book, kill)
        runs = Runs(db, {"graph": graph(book)})
        try:
            await db.runs.get(THREAD)
        except UnknownThread:
            run = await runs.start("graph", "Do it", thread=THREAD)
        else:
            await runs.recover()
            run = await runs.read(THREAD)
        for ask in run.asks:
            book.note("asked", ask.id)
            run = await runs.answer(ask.id, Approval(decision="approve", by="ann"))
        assert run.status == "done", run
        assert run.result is not None
        assert run.result.output == STEPS, run.result.output
        await looks_whole(db)


def hasty(db: Database) -> None:
    """Don't wait for what tasks wrote."""
    saver: Any = db.saver

    async def aput_writes(*given: Any) -> None:
        saver._access.desk.leave(saver._task(*given, *[""][len(given) - 3 :]))  # noqa: SLF001

    saver.aput_writes = aput_writes


def arm(db: Database, book: Book, kill: Kill | None) -> None:
    """Note what is said to be durable, and each write that is passed; die where it is told."""
    count: Counter[str] = Counter()

    def passing(where: str) -> None:
        count[where] += 1
        book.note("passed", where, count[where])
        if kill == (where, count[where]):
            os.kill(os.getpid(), signal.SIGKILL)

    saver: Any = db.saver
    put, put_writes = saver.aput, saver.aput_writes

    async def aput(*given: Any, **named: Any) -> Any:
        passing("before")
        done = await put(*given, **named)
        passing("after")
        return done

    async def aput_writes(config: Any, writes: Any, task: str, *more: Any) -> None:
        passing("before")
        await put_writes(config, writes, task, *more)
        if any(channel not in CONTROL for channel, _ in writes):
            book.note("kept", task)
        passing("after")

    saver.aput, saver.aput_writes = aput, aput_writes
    with db.connect() as connection:
        event.listen(connection.engine, "commit", lambda _: passing("commit"))


async def looks_whole(db: Database) -> None:
    """No checkpoint shows what is not kept before it, and none has two children."""
    found = {t.checkpoint["id"]: t async for t in db.saver.alist(CONFIG)}
    parents = [id_of(t.parent_config) for t in found.values() if t.parent_config]
    assert len(parents) == len(set(parents)), "the thread is forked"
    for one in found.values():
        parent = found.get(id_of(one.parent_config) or "")
        if parent is None:
            continue
        more = Counter(logged(one)) - Counter(logged(parent))
        writes = [value for _, channel, value in parent.pending_writes or [] if channel == "log"]
        kept = Counter(name for names in writes for name in names)
        assert more == kept, f"{more} is visible, {kept} is kept"


def logged(one: Any) -> list[str]:
    """The log of a checkpoint."""
    log: list[str] = one.checkpoint["channel_values"].get("log", [])
    return log


def id_of(config: Any) -> str | None:
    """The checkpoint that a config names."""
    return config["configurable"]["checkpoint_id"] if config else None


# ── killing it ───────────────────────────────────────────────────────────────────────────────


def process(work: Callable[[], Any]) -> int:
    """Do it in a process of its own; the process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # told where all processes tell
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """The signal that ended a process; 0 if it came to its end; less than 0 if it failed."""
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def live(url: str, tenant: str, book: Book, kill: Kill | None) -> bool:
    """One process of a run; whether it was killed."""
    child = process(lambda: asyncio.run(drive(url, tenant, book, kill)))
    if kill is not None and kill.where == "time":
        time.sleep(kill.at)
        os.kill(child, signal.SIGKILL)  # not waited for yet, so it is ours, alive or not
    end = ended(child)
    assert end in (0, signal.SIGKILL), f"a process of the run failed: {end}"
    return end == signal.SIGKILL


def run(url: str, tenant: str, folder: Path, kills: Sequence[Kill]) -> tuple[int, int]:
    """One run with its kills: how many there were, how often a node was begun again."""
    book = Book(folder / tenant)
    killed = sum(live(url, tenant, book, kill) for kill in kills)
    if killed == len(kills):
        assert not live(url, tenant, book, None)
    begun: Counter[str] = Counter()
    kept: set[str] = set()
    for what, key, *_ in book.lines():
        assert what != "begin" or key not in kept, "what was durable is done again"
        if what == "begin":
            begun[key] += 1
        elif what == "kept":
            kept.add(key)
    names = {words[2] for words in book.lines() if words[0] == "begin"}
    assert names == {*STEPS} - {"yes"}, names
    assert len(begun) == len(names), "a task was made twice"
    assert len({words[1] for words in book.lines() if words[0] == "asked"}) == 1
    return killed, begun.total() - len(begun)


def undisturbed(url: str, folder: Path) -> tuple[list[Kill], float]:
    """All writes and commits of a run, and how long it takes."""
    asyncio.run(
        drive(url, f"warm-{LOT}", Book(folder / "warm"), None)
    )  # what is compiled once is, here
    gc.collect()
    gc.freeze()  # nor copied by each process
    gc.disable()
    begun = time.monotonic()
    run(url, f"undisturbed-{LOT}", folder, [])
    took = time.monotonic() - begun
    passed = [
        words for words in Book(folder / f"undisturbed-{LOT}").lines() if words[0] == "passed"
    ]
    return [Kill(where, int(at)) for _, where, at in passed], took


def plans(known: Sequence[Kill], took: float, lot: random.Random) -> Iterator[list[Kill]]:
    """One to three kills a run: each of the known ones first, and any number at random times."""
    for first in chain(known, repeat(None)):
        plan = [Kill("time", lot.uniform(0, took)) for _ in range(lot.randint(1, 3))]
        yield [first, *plan[1:]] if first else plan


def work(url: str, folder: Path, number: int, kills: int, planned: Iterable[list[Kill]]) -> None:
    """One worker: runs until there were so many kills; what came of them goes to a file."""
    told: dict[str, Any] = {"kills": 0, "again": 0, "runs": 0, "failures": []}
    for index, plan in enumerate(planned):
        if told["kills"] >= kills or len(told["failures"]) >= 3:
            break
        try:
            killed, again = run(url, f"run-{LOT}-{number}-{index}", folder, plan)
        except AssertionError as failure:
            told["failures"].append(f"{plan}: {failure}")
        else:
            told["kills"] += killed
            told["again"] += again
            told["runs"] += 1
    (folder / f"told-{number}").write_text(json.dumps(told))


def main(url: str, kills: int, seed: int) -> None:
    """Kill at every boundary, then at random until there were so many kills."""
    lot = random.Random(seed)
    shm = Path("/dev/shm")  # noqa: S108  # SIGKILL says nothing of disks, so none is needed
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as name:
        folder = Path(name)
        places = [folder / f"{n}.db" for n in range(WORKERS)]
        urls = [f"sqlite:///{p}" if url == "sqlite" else url for p in places]
        known, took = undisturbed(urls[0], folder)
        children = []
        for n in range(WORKERS):
            planned = plans(known[n::WORKERS], took, random.Random(lot.random()))
            share = partial(work, urls[n], folder, n, kills // WORKERS, planned)
            children.append(process(share))
        failed = [end for end in map(ended, children) if end]
        told = [json.loads((folder / f"told-{n}").read_text()) for n in range(WORKERS)]
        whole = [checked(place) for place in places if url == "sqlite"]
    whole_story = {
        "boundaries": len(known),
        "kills": sum(share["kills"] for share in told),
        "runs": sum(share["runs"] for share in told),
        "again": sum(share["again"] for share in told),
        "failures": [f for share in told for f in share["failures"]] + failed,
        "whole": all(whole),
    }
    print(json.dumps(whole_story))  # noqa: T201


def checked(path: Path) -> bool:
    """Whether SQLite finds a file whole."""
    import sqlite3  # noqa: PLC0415  # only here

    with sqlite3.connect(path) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
