"""The journal: recording never waits, nothing is recorded twice, order is kept."""

from typing import Any

import pytest

from kapelle.checkpoints import Database
from kapelle.state.budget import Usage
from kapelle.state.event import Event

pytestmark = pytest.mark.anyio


def event(what: str, **more: Any) -> Event:
    return Event(kind="choice", what=what, thread="t1", **more)


async def test_what_was_recorded_is_read_in_order(database: Database) -> None:
    for number in range(50):
        database.journal.record([event(f"a{number}"), event(f"b{number}")])
    read = await database.journal.read("t1")
    assert [e.what for e in read] == [f"{x}{n}" for n in range(50) for x in "ab"]


async def test_an_event_comes_back_as_it_was(database: Database) -> None:
    given = event(
        "assigned\x00\ud800",
        task="t\ud800",
        agent="w\x00",
        place="inner:1",
        at=1.5,
        key="k",
        usage=Usage(input_tokens=2**40, micro_usd=None),
        why="because \ud800 é 😀",
        data={"a": [1, None, {"\x00": 1.5}]},
    )
    database.journal.record([given])
    assert await database.journal.read("t1") == [given]


async def test_the_same_key_is_the_same_event(database: Database) -> None:
    database.journal.record([event("first", key="k"), event("second", key="k"), event("no key")])
    database.journal.record([event("third", key="k"), event("no key")])
    assert [e.what for e in await database.journal.read("t1")] == ["first", "no key", "no key"]


async def test_events_are_durable_no_later_than_the_checkpoint_after_them(url: str) -> None:
    config: Any = {"configurable": {"thread_id": "t1", "checkpoint_id": "c1"}}
    async with Database(url) as database, Database(url) as other:
        database.journal.record([event("before")])
        await database.saver.aput_writes(config, [("channel", 1)], "task")
        assert [e.what for e in await other.journal.read("t1")] == ["before"]


async def test_threads_and_tenants_have_their_own_journal(url: str) -> None:
    async with Database(url, tenant="one") as one, Database(url, tenant="two") as two:
        one.journal.record([event("mine", key="k")])
        two.journal.record([event("theirs", key="k")])
        assert [e.what for e in await one.journal.read("t1")] == ["mine"]
        assert [e.what for e in await two.journal.read("t1")] == ["theirs"]
        assert await one.journal.read("t2") == []


async def test_what_was_recorded_is_written_at_the_latest_on_close(url: str) -> None:
    with Database(url) as database:
        database.journal.record([event("last words")])
    async with Database(url) as again:
        assert [e.what for e in await again.journal.read("t1")] == ["last words"]
