"""What is forgotten is gone, with all that only it needed; what is kept is whole."""

import operator
from itertools import chain
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from sqlalchemy import func, select, update

from kapelle.checkpoints import Database
from kapelle.checkpoints.tables import blobs, checkpoints, marks, metadata, payloads, writes
from kapelle.state.approval import Approval
from kapelle.state.errors import BadId, Unreadable
from kapelle.state.event import Event
from kapelle.state.task import Task

pytestmark = pytest.mark.anyio


class Grown(TypedDict, total=False):
    """A list that grows, and a count."""

    items: Annotated[list[str], operator.add]
    count: int


def graph(until: int = 10) -> StateGraph[Grown]:
    def grow(state: Grown) -> Grown:
        count = state.get("count", 0) + 1
        return {"count": count, "items": [f"{count}" * 400]}

    built = StateGraph(Grown)
    built.add_node("grow", grow)
    built.add_edge(START, "grow")
    built.add_conditional_edges(
        "grow", lambda s: "grow" if s["count"] % until else END, ["grow", END]
    )
    return built


class Delta(TypedDict, total=False):
    """A log that is put together from what was written, and a count."""

    log: Annotated[list[str], DeltaChannel(lambda old, new: [*old, *chain(*new)])]
    count: int


def logged() -> StateGraph[Delta]:
    def step(state: Delta) -> Delta:
        number = state.get("count", 0) + 1
        return {"count": number, "log": [str(number)]}

    built = StateGraph(Delta)
    built.add_node("step", step)
    built.add_edge(START, "step")
    built.add_conditional_edges("step", lambda s: "step" if s["count"] % 6 else END, ["step", END])
    return built


def config(thread: str = "t1") -> Any:
    return {"configurable": {"thread_id": thread}}


def count(database: Database, table: Any) -> int:
    with database.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


async def run(database: Database, thread: str = "t1") -> dict[str, Any]:
    app = graph().compile(checkpointer=database.saver)
    done: dict[str, Any] = await app.ainvoke({"items": []}, config(thread))
    return done


async def state(database: Database, thread: str = "t1") -> dict[str, Any]:
    found = await database.saver.aget_tuple(config(thread))
    assert found is not None
    values = found.checkpoint["channel_values"]
    return {key: values[key] for key in ("items", "count")}


async def test_what_is_left_after_pruning_is_whole_and_goes_on(database: Database) -> None:
    done = await run(database)
    assert count(database, checkpoints) == 12
    assert await database.prune() == 11
    assert (count(database, checkpoints), count(database, writes)) == (1, 0)
    assert await state(database) == done
    assert (await run(database))["count"] == 20


async def test_the_newest_and_the_young_are_kept(database: Database) -> None:
    await run(database)
    assert await database.prune(newest=5) == 7
    assert await database.prune(newest=1, seconds=3_600) == 0
    assert await database.prune(newest=1, seconds=-1) == 4
    listed = [found async for found in database.saver.alist(config())]
    assert [found.checkpoint["channel_values"]["count"] for found in listed] == [10]


async def test_only_the_threads_named_are_pruned(database: Database) -> None:
    await run(database, "t1")
    await run(database, "t2")
    assert await database.prune(threads=["t2"]) == 11
    assert count(database, checkpoints) == 13


async def test_nothing_is_left_of_what_was_deleted(database: Database) -> None:
    for thread in ("t1", "t2"):
        await run(database, thread)
    database.saver.delete_thread("t1")
    kept = {table.name: count(database, table) for table in metadata.sorted_tables}
    await database.saver.aprune(["t2"], strategy="delete")
    assert all(kept[table.name] for table in (checkpoints, blobs, writes, payloads, marks))
    assert {count(database, t) for t in (checkpoints, blobs, writes, payloads, marks)} == {0}


async def test_a_strategy_nobody_knows_is_refused(database: Database) -> None:
    with pytest.raises(BadId, match="strategy"):
        await database.saver.aprune(["t1"], strategy="some")


async def test_delta_channels_are_put_together_after_pruning(database: Database) -> None:
    app = logged().compile(checkpointer=database.saver)
    before = await app.ainvoke({"log": ["0"]}, config())
    assert before["log"] == ["0", "1", "2", "3", "4", "5", "6"]
    await database.prune()
    assert (await app.aget_state(config())).values["log"] == before["log"]
    after = await app.ainvoke({"log": ["again"]}, config())
    assert after["log"] == [*before["log"], "again", "7", "8", "9", "10", "11", "12"]


async def ids(database: Database, thread: str = "t1") -> list[str]:
    """The checkpoints of a thread, newest first."""
    with database.connect() as connection:
        of_it = select(checkpoints.c.id).where(checkpoints.c.thread == thread)
        return list(connection.scalars(of_it.order_by(checkpoints.c.seq.desc())))


def damage(database: Database, checkpoint: str, body: bytes = b"cut short") -> bytes:
    """Change what is stored of a checkpoint; what it was."""
    it = checkpoints.c.id == checkpoint
    with database.connect() as connection:
        was = connection.scalar(select(checkpoints.c.body).where(it))
        connection.execute(update(checkpoints).where(it).values(body=body))
        connection.commit()
    return bytes(was or b"")


async def test_where_the_newest_is_damaged_so_is_the_newest_whole_one_kept(
    database: Database,
) -> None:
    await run(database)
    newest, second, *older = await ids(database)
    was = damage(database, newest)
    assert await database.prune() == len(older)
    assert await ids(database) == [newest, second]
    at = config() | {"configurable": {**config()["configurable"], "checkpoint_id": second}}
    found = await database.saver.aget_tuple(at)
    assert found is not None
    assert len(found.checkpoint["channel_values"]["items"]) == 9
    damage(database, newest, was)
    assert len((await state(database))["items"]) == 10


async def test_a_damaged_checkpoint_is_forgotten_like_any_other(database: Database) -> None:
    await run(database)
    newest, *_, old, oldest = await ids(database)
    damage(database, old)
    damage(database, oldest)
    await database.saver.aprune(["t1"])
    assert await ids(database) == [newest]
    damage(database, newest)
    await database.saver.aprune(["t1"], strategy="delete")
    assert {count(database, t) for t in (checkpoints, blobs, writes, payloads, marks)} == {0}


async def test_forgetting_one_run_leaves_what_a_damaged_checkpoint_of_another_needs(
    database: Database,
) -> None:
    app = graph().compile(checkpointer=database.saver)
    kept = await app.ainvoke({"items": ["kept"]}, config() | {"metadata": {"run_id": "kept"}})
    last, *_ = await ids(database)
    await app.ainvoke({"items": ["gone"]}, config() | {"metadata": {"run_id": "forgotten"}})
    was = damage(database, last)
    await database.saver.adelete_for_runs(["forgotten"])
    assert (await ids(database))[0] == last
    damage(database, last, was)
    assert await state(database) == kept


async def test_where_delta_channels_build_on_a_damaged_one_nothing_of_the_thread_is_forgotten(
    database: Database,
) -> None:
    app = logged().compile(checkpointer=database.saver)
    await app.ainvoke({"log": ["0"]}, config("torn"))
    await run(database, "well")
    before = await ids(database, "torn")
    damage(database, before[1])
    with pytest.raises(Unreadable, match=r"'torn' .* restore a backup, or forget the whole thread"):
        await database.prune()
    assert await ids(database, "torn") == before
    assert len(await ids(database, "well")) == 1
    database.saver.delete_thread("torn")
    assert await ids(database, "torn") == []


async def test_a_forgotten_thread_leaves_no_run_and_no_journal(database: Database) -> None:
    lease: Any = {"graph": "g", "target": None, "holder": "h", "lease_seconds": 30}
    for thread in ("done", "open"):
        await run(database, thread)
        row = await database.runs.open(thread, task=Task(goal="x"), **lease)
        database.journal.record([Event(kind="run", what="began", thread=thread)])
        if thread == "done":
            await database.runs.release(thread, "h", row.fence, status="done")
    assert await database.forget(seconds=-1) == ["done"]
    assert [row.thread for row in await database.runs.list()] == ["open"]
    assert await database.journal.read("done") == []
    assert await database.forget(threads=["open"]) == ["open"]
    assert {count(database, table) for table in metadata.sorted_tables} == {0}


async def test_a_copy_is_whole_and_asks_anew(database: Database) -> None:
    def gate(state: Grown) -> Grown:
        return {"items": [interrupt("Go on?")]}

    built = graph()
    built.add_node("gate", gate)
    built.add_edge(START, "gate")
    app = built.compile(checkpointer=database.saver)
    await app.ainvoke({"items": []}, config())
    (ask,) = await database.inbox.pending()
    await database.inbox.claim(ask.id, Approval(decision="approve", by="ann"))
    await database.saver.acopy_thread("t1", "t2")
    (copied,) = await database.inbox.pending("t2")
    assert (copied.question, copied.interrupt) == (ask.question, ask.interrupt)
    assert copied.id != ask.id
    original, copy = [database.saver.get_tuple(config(thread)) for thread in ("t1", "t2")]
    assert original is not None
    assert copy is not None
    assert (copy.checkpoint, copy.metadata) == (original.checkpoint, original.metadata)
    assert copy.pending_writes == original.pending_writes
    database.saver.delete_thread("t1")
    done = await app.ainvoke(Command(resume={copied.interrupt: "yes"}), config("t2"))
    assert {"yes", "1" * 400} <= set(done["items"])
    with pytest.raises(BadId, match="exists"):
        await database.saver.acopy_thread("t1", "t2")


async def test_stats_tell_where_the_bytes_are(database: Database) -> None:
    await run(database, "large")
    database.journal.record([Event(kind="run", what="began", thread="small")])
    found = await database.stats()
    assert found.rows["checkpoints"] == 12
    assert found.rows["runs"] == 0
    assert found.bytes["payloads"] >= 10 * 400
    assert list(found.threads) == ["large", "small"]
    assert found.threads["large"] > found.threads["small"] > 0
    assert list((await database.stats(largest=1)).threads) == ["large"]
