"""Master contexts in the database: two processes that decide at once are one after the other."""

import asyncio
from contextlib import ExitStack
from subprocess import PIPE

import pytest
from langgraph.store.base import PutOp

from kapelle.checkpoints import Database
from kapelle.nodes.memory import StoreMemory
from kapelle.state.context import MasterContext
from tests.warm import Warm

pytestmark = pytest.mark.anyio

DECIDES = """
import asyncio, sys
from kapelle.checkpoints import Database
from kapelle.nodes.memory import StoreMemory
from kapelle.state.context import Decision, with_decisions

async def main(url, me):
    async with Database(url) as db:
        memory = StoreMemory(db.store)
        await memory.context("t")
        print("here", flush=True)
        sys.stdin.readline()
        for n in range(15):
            mine = [Decision(key=f"shared{n}", value=me, rule="vote", by=(me,))]
            now = await memory.change("t", lambda c: with_decisions(c, mine, seen=0))
            (held,) = [d.value for d in now.decisions if d.key == f"shared{n}"]
            print(held)

asyncio.run(main(*sys.argv[1:]))
"""


def together(warm: Warm, url: str) -> list[list[str]]:
    """What each of two processes says that holds, after both decided the same keys at once."""
    with ExitStack() as over:
        both = [
            warm.start("-c", DECIDES, url, me, stdin=PIPE, stdout=PIPE, text=True)
            for me in ("React", "Vue")
        ]
        for process in both:
            over.callback(process.close)
        for process in both:
            assert process.stdout.readline() == "here\n"
        for process in both:
            process.stdin.write("go\n")
        said = [process.communicate(300)[0].split() for process in both]
        assert [process.returncode for process in both] == [0, 0]
    return said


@pytest.mark.slow
async def test_two_processes_that_decide_one_key_at_once_hold_the_same(
    warm: Warm, url: str
) -> None:
    async with Database(url) as db:
        memory = StoreMemory(db.store)
        await memory.open("t", MasterContext(goal="win"))
        said = await asyncio.to_thread(together, warm, url)
        context = await memory.context("t")
    held = {d.key: d.value for d in context.decisions}
    assert said[0] == said[1] == [held[f"shared{n}"] for n in range(15)]
    assert sorted(d.version for d in context.decisions) == list(range(1, 16))


async def test_a_swap_is_made_only_if_the_item_is_still_what_was_read(url: str) -> None:
    where = ("a", "b")
    async with Database(url) as db:
        first = [PutOp(where, "k", {"n": 1}), PutOp((*where, "c"), "l", {"m": 1})]
        assert await db.store.aswap(where, "k", {"n": 0}, first) is False
        assert await db.store.asearch(where) == []
        assert await db.store.aswap(where, "k", None, first) is True
        assert await db.store.aswap(where, "k", None, first) is False
        assert await db.store.aswap(where, "k", {"n": 1}, [PutOp(where, "k", {"n": 2})]) is True
        found = {item.key: item.value for item in await db.store.asearch(where)}
    assert found == {"k": {"n": 2}, "l": {"m": 1}}


async def test_of_many_swaps_at_once_one_is_made(url: str) -> None:
    async with Database(url) as one, Database(url) as other:
        tries = [
            (one, other)[n % 2].store.aswap(("a",), "k", None, [PutOp(("a",), "k", {"n": n})])
            for n in range(10)
        ]
        assert sorted(await asyncio.gather(*tries)) == [False] * 9 + [True]


async def test_a_forgotten_thread_takes_its_context_with_it(url: str) -> None:
    async with Database(url) as db:
        memory = db.services().memory
        await memory.open("t", MasterContext(goal="win"))
        await db.forget(threads=["t"])
        assert await db.store.asearch(("kapelle",)) == []
