"""The run book: a run is there before its first step, one advances it, no answer gets lost."""

import asyncio
from typing import Any

import pytest
from langgraph.types import Interrupt

from kapelle.checkpoints import Database
from kapelle.checkpoints.holder import has_died, holder
from kapelle.checkpoints.runbook import RunRow
from kapelle.state.approval import Approval
from kapelle.state.errors import StillWaiting, ThreadBusy, Unfinished, UnknownThread
from kapelle.state.task import Result, Task
from tests.warm import Warm

pytestmark = pytest.mark.anyio

TASK = Task(goal="Compare the five")
RESULT = Result(task="task", status="done", output={"best": "third"})


async def begin(database: Database, thread: str = "t1", **change: Any) -> RunRow:
    named = {"graph": "audit", "target": {"path": "a.py", "name": "team"}, "task": TASK}
    lease = {"holder": "host:1", "lease_seconds": 30.0}
    return await database.runs.open(thread, **{**named, **lease, **change})


async def interrupt(database: Database) -> str:
    config: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c"}}
    listed = (Interrupt(value="Pay?", id="0" * 32),)
    await database.saver.aput_writes(config, [("__interrupt__", listed)], "task")
    return (await database.inbox.pending("t1"))[0].id


async def test_a_run_is_recorded_with_all_that_finds_it_again(url: str) -> None:
    async with Database(url) as database:
        opened = await begin(database)
    async with Database(url) as other:
        row = await other.runs.get("t1")
    assert row == opened
    assert (row.graph, row.task, row.status, row.holder, row.fence) == (
        "audit",
        TASK,
        "running",
        "host:1",
        1,
    )
    assert row.target == {"path": "a.py", "name": "team"}
    assert row.lease_until is not None
    assert row.lease_until == pytest.approx(row.created_at + 30, abs=15)


async def test_an_unknown_thread_is_named(database: Database) -> None:
    with pytest.raises(UnknownThread, match="'nobody'"):
        await database.runs.get("nobody")
    with pytest.raises(UnknownThread):
        await database.runs.take("nobody", "host:1", 30)
    with pytest.raises(UnknownThread):
        await database.runs.mark("nobody", "done")


async def test_a_finished_thread_takes_another_task_as_another_run(database: Database) -> None:
    first = await begin(database)
    assert await database.runs.release("t1", "host:1", first.fence, status="done", result=RESULT)
    done = await database.runs.get("t1")
    assert (done.status, done.result, done.holder) == ("done", RESULT, None)
    assert done.finished_at is not None
    second = await begin(database, holder="host:2")
    assert second.run != first.run
    assert second.fence > first.fence
    assert (second.status, second.result, second.finished_at) == ("running", None, None)


async def test_a_thread_somebody_advances_is_busy(database: Database) -> None:
    await begin(database)
    with pytest.raises(ThreadBusy, match="host:1"):
        await begin(database, holder="host:2")
    with pytest.raises(ThreadBusy, match="host:1"):
        await database.runs.take("t1", "host:2", 30)


async def test_a_run_that_stopped_in_the_middle_is_found_and_taken_over(database: Database) -> None:
    crashed = await begin(database, lease_seconds=-1)
    assert [row.thread for row in await database.runs.abandoned()] == ["t1"]
    with pytest.raises(Unfinished):
        await begin(database)
    fence = await database.runs.take("t1", "host:2", 30)
    assert fence > crashed.fence
    assert await database.runs.abandoned() == []
    assert not await database.runs.renew("t1", "host:1", crashed.fence, 30)
    assert not await database.runs.release("t1", "host:1", crashed.fence, status="done")
    assert await database.runs.renew("t1", "host:2", fence, 30)


@pytest.fixture
def dead(warm: Warm) -> str:
    """The holder of a process that was, and is no more."""
    look = "from kapelle.checkpoints.holder import *; print(holder())"
    return warm.finish("-c", look).stdout.strip()


async def test_the_lease_of_a_dead_process_is_over_at_once(database: Database, dead: str) -> None:
    await begin(database, holder=dead)
    await begin(database, "t2", holder=holder())
    assert [row.thread for row in await database.runs.abandoned()] == ["t1"]
    fence = await database.runs.take("t1", holder(), 30)
    assert fence > 1
    with pytest.raises(ThreadBusy):
        await database.runs.take("t2", holder(), 30)
    await begin(database, "t3", holder=dead)
    with pytest.raises(Unfinished):
        await begin(database, "t3", holder=holder())


def test_only_who_is_certainly_gone_is_dead(dead: str) -> None:
    ours, gone = holder().split("/"), dead.split("/")
    assert not has_died("/".join(ours))
    assert has_died("/".join(gone))
    for part, other in ((0, "elsewhere"), (3, "0" * 8), (4, "1"), (3, "")):
        unsure = [*gone[:part], other, *gone[part + 1 :]]
        assert not has_died("/".join(unsure))
    assert has_died("/".join([*ours[:2], "1", *ours[3:]]))  # its number came round again
    for nonsense in (None, "", "host:1", "a/b/c/d/e/f", "/" * 5):
        assert not has_died(nonsense)


async def test_of_many_who_take_a_lease_one_wins(url: str) -> None:
    async with Database(url) as database:
        row = await begin(database)
        await database.runs.release("t1", "host:1", row.fence, status="waiting")
        everybody = [Database(url) for _ in range(6)]

        async def take(number: int) -> int | None:
            try:
                return await everybody[number].runs.take("t1", f"host:{number}", 30)
            except ThreadBusy:
                return None

        fences = await asyncio.gather(*(take(n) for n in range(6)))
        assert len([f for f in fences if f is not None]) == 1
        for each in everybody:
            await each.aclose()


async def test_new_input_waits_for_open_asks(database: Database) -> None:
    row = await begin(database)
    ask = await interrupt(database)
    assert await database.runs.release("t1", "host:1", row.fence, status="waiting")
    with pytest.raises(StillWaiting, match=ask):
        await begin(database)


async def test_an_answer_claimed_while_the_run_was_finishing_is_not_lost(
    database: Database,
) -> None:
    row = await begin(database)
    ask = await interrupt(database)
    await database.inbox.claim(ask, Approval(decision="approve", by="ann"))
    assert not await database.runs.release("t1", "host:1", row.fence, status="waiting")
    held = await database.runs.get("t1")
    assert (held.status, held.holder) == ("running", "host:1")


async def test_runs_are_listed_newest_first(database: Database) -> None:
    for thread in ("a", "b", "c"):
        await begin(database, thread)
    await database.runs.mark("b", "failed", Result(task="task", status="failed"))
    assert [row.thread for row in await database.runs.list(2)] == ["c", "b"]
    assert [row.thread for row in await database.runs.list(10, status="failed")] == ["b"]
    assert [row.thread for row in await database.runs.list(10)] == ["c", "b", "a"]


async def test_tenants_have_their_own_run_of_a_thread_of_the_same_name(url: str) -> None:
    """Nothing one of them does to it is done to the other's."""
    async with Database(url, tenant="one") as one, Database(url, tenant="two") as two:
        mine = await begin(one)
        theirs = await begin(two, holder="host:2")
        assert await one.runs.renew("t1", "host:1", mine.fence, 60)
        assert not await one.runs.renew("t1", "host:2", theirs.fence, 60)
        await one.runs.mark("t1", "waiting")
        assert (await two.runs.get("t1")) == theirs
        await one.runs.mark("t1", "running")
        assert not await one.runs.release("t1", "host:2", theirs.fence, status="done")
        assert await one.runs.release("t1", "host:1", mine.fence, status="done", result=RESULT)
        assert (await two.runs.get("t1")) == theirs
        assert [(row.status, row.holder) for row in await one.runs.list()] == [("done", None)]
        assert await two.runs.abandoned() == []
        assert await one.runs.take("t1", "host:3", 30) == mine.fence + 1
        assert (await two.runs.get("t1")) == theirs
