"""Many processes at once resume one thread, or answer one ask; says as JSON what each was told.

    python -m tests.checkpoints.raced URL PROCESSES

    resume    a run whose process was killed half-way, through `Runs`
    answer    the one ask of a run, through `Runs`
    bare      the one interrupt of a thread, through LangGraph alone: there is no lease

All have the database open before the first may begin. Whoever goes on waits in the middle until all
others were told what they were told, so that each really meets somebody who is at work.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph.types import Command

from kapelle import Approval, Runs
from kapelle.checkpoints import Database
from kapelle.state.errors import KapelleError
from tests.checkpoints.killed import (
    CONFIG,
    THREAD,
    Book,
    Kill,
    drive,
    ended,
    graph,
    live,
    looks_whole,
    process,
)

MOST = 120.0
"""Seconds anybody waits for the others."""


class Slow(Book):
    """A book in which processes wait for each other's lines.

    Whoever comes to one of the `places` waits for as many lines as there are `others`, that begin
    with a word.
    """

    others = 0
    places: frozenset[tuple[object, ...]] = frozenset((("begin", "join"), ("begin", "last")))
    word = "told"

    def await_lines(self, word: str, many: int) -> None:
        """Go on when there are so many lines that begin with a word."""
        deadline = time.monotonic() + MOST
        while sum(line[0] == word for line in self.lines()) < many:
            assert time.monotonic() < deadline, f"waited in vain for {many} × {word}"
            time.sleep(0.002)

    def note(self, *words: object) -> None:
        """Write a line; then wait, if that was the line to wait after."""
        super().note(*words)
        if (words[0], *words[2:]) in self.places:
            self.await_lines(self.word, self.others)


def runs(db: Database, book: Slow) -> Runs:
    """Whoever waits for the others here can't renew a lease meanwhile, so it is long enough."""
    return Runs(db, {"graph": graph(book)}, lease=10 * MOST)


async def resume(db: Database, book: Slow) -> str:
    """Go on with what was left behind."""
    return (await runs(db, book).resume(THREAD)).status


async def answer(db: Database, book: Slow) -> str:
    """Answer what is asked."""
    (ask,) = await db.inbox.pending() or [None]
    book.note("ready")
    book.await_lines("ready", book.others + 1)
    assert ask is not None
    approval = Approval(decision="approve", by=str(os.getpid()))
    return (await runs(db, book).answer(ask.id, approval)).status


async def bare(db: Database, book: Slow) -> str:
    """Resume without `Runs`: all are at work before one may finish."""
    app = graph(book).compile(checkpointer=db.saver)
    state = await app.aget_state(CONFIG)
    book.places, book.word = frozenset({("answered", "gate")}), "answered"
    book.others += 1
    given: Any = Command(resume={state.interrupts[0].id: "yes"})
    done = await app.ainvoke(given, CONFIG, durability="sync")
    return "done" if "result" in done else "stopped"


RACES: dict[str, Callable[[Database, Slow], Coroutine[Any, Any, str]]] = {
    "resume": resume,
    "answer": answer,
    "bare": bare,
}


async def racer(url: str, tenant: str, name: str, book: Slow, gate: int) -> None:
    """One of many: opens the database, waits for the start, does it, tells what it was told."""
    async with Database(url, tenant=tenant) as db:
        await db.inbox.pending()
        book.note("here")
        os.read(gate, 1)  # until the other end is closed
        try:
            told = await RACES[name](db, book)
        except KapelleError as refusal:
            told = type(refusal).__name__
        book.note("told", told)


def prepared(url: str, tenant: str, name: str, book: Book) -> None:
    """A thread that can be gone on with."""
    if name == "resume":
        assert live(url, tenant, book, Kill("after", 9))
    else:
        assert ended(process(lambda: asyncio.run(asking(url, tenant, book)))) == 0


async def asking(url: str, tenant: str, book: Book) -> None:
    """Run until it asks."""
    async with Database(url, tenant=tenant) as db:
        run = await Runs(db, {"graph": graph(book)}).start("graph", "Do it", thread=THREAD)
        assert len(run.asks) == 1


async def left(url: str, tenant: str) -> None:
    """Look at what is left: whole, without forks."""
    async with Database(url, tenant=tenant) as db:
        await looks_whole(db)


def race(url: str, name: str, many: int, folder: Path) -> dict[str, Any]:
    """One race: what each was told, and what was begun how often."""
    tenant = f"{name}-{uuid4().hex[:8]}"
    before, book = Book(folder / f"before-{name}"), Slow(folder / name)
    prepared(url, tenant, name, before)
    book.path.touch()
    book.others = many - 1
    gate, start = os.pipe()

    def one() -> None:
        os.close(start)
        asyncio.run(racer(url, tenant, name, book, gate))

    racers = [process(one) for _ in range(many)]
    book.await_lines("here", many)
    os.close(start)
    failed = [end for end in map(ended, racers) if end]
    if name == "resume":
        assert ended(process(lambda: asyncio.run(drive(url, tenant, book, None)))) == 0
    assert ended(process(lambda: asyncio.run(left(url, tenant)))) == 0
    told = Counter(line[1] for line in book.lines() if line[0] == "told")
    begun = Counter(line[2] for line in book.lines() if line[0] == "begin")
    return {"told": told, "begun": begun, "failed": failed}


def main(url: str, many: int) -> None:
    """Each race once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = f"sqlite:///{folder / 'raced.db'}" if url == "sqlite" else url
        print(json.dumps({name: race(where, name, many, folder) for name in RACES}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
