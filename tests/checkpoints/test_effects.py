"""The book of effects, in memory and in each database: whoever begins first does it."""

import asyncio

import pytest

from kapelle.checkpoints import Database
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.services import Effects
from kapelle.state.effect import Effect

pytestmark = pytest.mark.anyio

ODD = "\x00 \ud800 \U0001f600 é"


def wanted(holder: str, key: str = "mail:42") -> Effect:
    """An effect that begins."""
    return Effect(key=key, name=key, holder=holder, told={"to": ODD}, at=1.5)


@pytest.fixture(params=["memory", "database"])
def book(request: pytest.FixtureRequest, database: Database) -> Effects:
    """Each implementation of the port."""
    return database.effects if request.param == "database" else in_memory().effects


async def test_of_many_who_begin_one_does_it(book: Effects) -> None:
    found = await asyncio.gather(*(book.begin("t1", wanted(str(n))) for n in range(20)))
    assert len({effect.holder for effect in found}) == 1


async def test_what_is_done_stays_done_with_what_it_returned(book: Effects) -> None:
    await book.begin("t1", wanted("a"))
    await book.settle("t1", "mail:42", "a", "done", {"receipt": ODD})
    await book.settle("t1", "mail:42", "a", "undone")
    known = await book.begin("t1", wanted("b"))
    assert (known.status, known.output, known.told) == ("done", {"receipt": ODD}, {"to": ODD})


async def test_what_is_not_done_can_be_begun_again(book: Effects) -> None:
    await book.begin("t1", wanted("a"))
    await book.settle("t1", "mail:42", "a", "undone")
    assert (await book.begin("t1", wanted("b"))).holder == "b"


async def test_each_thread_and_each_key_is_apart(book: Effects) -> None:
    await book.begin("t1", wanted("a"))
    assert (await book.begin("t2", wanted("b"))).holder == "b"
    assert (await book.begin("t1", wanted("c", key="\x00 \U0001f600"))).holder == "c"
    assert (await book.begin("t1", wanted("d", key="MAIL:42"))).holder == "d"


async def test_two_processes_share_the_book_and_a_forgotten_thread_has_none(url: str) -> None:
    async with Database(url) as one, Database(url) as two:
        found = await asyncio.gather(
            *(db.effects.begin("t1", wanted(f"{n}{db}")) for n in range(5) for db in (one, two))
        )
        assert len({effect.holder for effect in found}) == 1
        assert [name for name, _ in await two.effects.in_doubt()] == ["t1"]
        await one.forget(threads=["t1"])
        assert await two.effects.in_doubt() == []
