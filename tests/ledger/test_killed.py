"""Processes that share a budget are killed in the middle: nobody ever spends more than it."""

import asyncio
import random
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from kapelle.checkpoints import Database
from kapelle.state.budget import Budget, Envelope, Usage
from tests.checkpoints.conftest import VARIABLES, url_of
from tests.warm import Process, Warm

SPENDER = Path(__file__).parent / "spender.py"
CAP = 3_000
LARGEST = 100


def start(warm: Warm, url: str, book: str, file: Path) -> Process:
    return warm.start(str(SPENDER), url, book, str(CAP), str(file), stderr=PIPE, text=True)


def spent(file: Path) -> int:
    return sum(map(int, file.read_text().split())) if file.exists() else 0


def kill_some(warm: Warm, url: str, book: str, file: Path, *, processes: int, kills: int) -> None:
    """So many at a time; one of them is killed and replaced, again and again."""
    lot = random.Random(5)
    running = [start(warm, url, book, file) for _ in range(processes)]
    try:
        wait_for(lambda: spent(file) > 0, running)
        for _ in range(kills):
            time.sleep(lot.random() / 4)
            victim = running.pop(lot.randrange(len(running)))
            victim.close()
            running.append(start(warm, url, book, file))
        for process in running:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in running:
            process.close()


def wait_for(what: object, running: list[Process]) -> None:
    end = time.monotonic() + 240
    while callable(what) and not what():
        assert time.monotonic() < end
        assert all(process.poll() in (None, 0) for process in running)
        time.sleep(0.02)


def stands(url: str, book: str, file: Path) -> None:
    """More was never spent than the cap; what is in flight counts; what is free can be spent."""

    async def look() -> None:
        async with Database(url) as database:
            ledger = database.ledger
            counted = (await ledger.spent(book)).tokens
            held = sum(spend.reserved.tokens for spend in await ledger.held(book))
            assert spent(file) <= counted <= CAP
            assert counted - held <= spent(file), "what settled was spent"
            await ledger.charge(book)
            assert await ledger.held(book) == []
            assert (await ledger.spent(book)).tokens == counted
            assert CAP - counted < LARGEST, "and nearly all of it was"
            more = Usage(output_tokens=CAP - counted + 1)
            said = await ledger.reserve(book, "more", more, [Envelope("", Budget(tokens=CAP))])
            assert said.fit == "never"

    asyncio.run(look())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_processes_never_spend_more_than_the_budget(
    warm: Warm, kind: str, tmp_path: Path, made: dict[str, str], book: str
) -> None:
    url, file = url_of(kind, tmp_path, made), tmp_path / "spent"
    Database(url).close()
    kill_some(warm, url, book, file, processes=2, kills=1)
    stands(url, book, file)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", *VARIABLES])
def test_sixteen_processes_of_which_many_are_killed(
    warm: Warm, kind: str, tmp_path: Path, made: dict[str, str], book: str
) -> None:
    url, file = url_of(kind, tmp_path, made), tmp_path / "spent"
    kill_some(warm, url, book, file, processes=16, kills=24)
    stands(url, book, file)
