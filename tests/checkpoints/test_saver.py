"""The saver: what is put comes back exactly, is stored once, and nobody forks a thread unseen."""

import asyncio
import operator
import random
import time
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from sqlalchemy import event, func, select

from kapelle.checkpoints import Database
from kapelle.checkpoints.tables import blobs, checkpoints, metadata, payloads
from kapelle.state.errors import BadId, PayloadTooLarge, ThreadBusy
from kapelle.state.task import Task

pytestmark = pytest.mark.anyio


def config(thread: str = "t1", parent: str | None = None, namespace: str = "") -> Any:
    named = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": parent}
    return {"configurable": {key: value for key, value in named.items() if value is not None}}


def put(database: Database, at: Any, source: str = "loop", **values: object) -> Any:
    """Put a checkpoint that holds these channels, each in a version of its own."""
    saver = database.saver
    versions: Any = {channel: saver.get_next_version(None, None) for channel in values}
    checkpoint: Any = {
        **empty_checkpoint(),
        "channel_values": values,
        "channel_versions": versions,
    }
    return saver.put(at, checkpoint, {"source": source, "step": 0, "parents": {}}, versions)  # type: ignore[typeddict-item]


def values(database: Database, at: Any) -> dict[str, Any]:
    found = database.saver.get_tuple(at)
    assert found is not None
    return found.checkpoint["channel_values"]


def count(database: Database, table: Any) -> int:
    with database.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def stored_bytes(database: Database) -> int:
    """Everything in the columns that hold values."""
    with database.connect() as connection:
        sizes = [
            connection.scalar(select(func.sum(func.length(column)))) or 0
            for table in metadata.sorted_tables
            for column in table.c
            if column.name in ("body", "metadata", "head")
        ]
    return int(sum(sizes))


# -- what grows is stored once


class Grown(TypedDict, total=False):
    """Three channels that grow, each in its own way."""

    texts: Annotated[list[str], operator.add]
    by_step: Annotated[dict[str, str], operator.or_]
    messages: Annotated[list[AnyMessage], add_messages]
    step: int


def grow(state: Grown) -> Grown:
    step = state.get("step", 0) + 1
    text = f"{step:04}" * 256
    return {"step": step, "texts": [text]}


def growing(until: int) -> StateGraph[Grown]:
    graph = StateGraph(Grown)
    graph.add_node("grow", grow)
    graph.add_edge(START, "grow")
    graph.add_conditional_edges(
        "grow", lambda s: "grow" if s["step"] % until else END, ["grow", END]
    )
    return graph


async def test_a_growing_list_is_stored_once(database: Database) -> None:
    """200 steps of 1 kB: at most 1.3 × the final state plus one copy of each write."""
    app = growing(200).compile(checkpointer=database.saver)
    long: Any = {**config(), "recursion_limit": 500}
    done = await app.ainvoke({"texts": []}, long)
    final = sum(map(len, done["texts"]))
    assert final == 200 * 1024
    assert stored_bytes(database) <= 1.3 * (final + final)
    history = [s.values.get("texts", []) async for s in app.aget_state_history(config())]
    assert history[0] == done["texts"]
    assert [len(texts) for texts in history] == [*range(200, -1, -1), 0]


async def test_a_list_goes_on_growing_in_another_process(url: str) -> None:
    done: Any = None
    for _ in range(3):
        async with Database(url) as database:
            app = growing(10).compile(checkpointer=database.saver)
            done = await app.ainvoke({"texts": []}, config())
    async with Database(url) as database:
        assert values(database, config())["texts"] == done["texts"]
        assert len(done["texts"]) == 30
        assert stored_bytes(database) <= 2 * 1.3 * 30 * 1024


async def test_dicts_and_messages_grow_as_well(database: Database) -> None:
    def node(state: Grown) -> Grown:
        step = state.get("step", 0) + 1
        answer = AIMessage(content="x" * 1000 + str(step))
        return {"step": step, "by_step": {str(step): "y" * 1000}, "messages": [answer]}

    graph = StateGraph(Grown)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_conditional_edges("node", lambda s: "node" if s["step"] < 100 else END)
    app = graph.compile(checkpointer=database.saver)
    given: Any = {"messages": [HumanMessage(content="go")]}
    long: Any = {**config(), "recursion_limit": 500}
    done = await app.ainvoke(given, long)
    assert values(database, config())["messages"] == done["messages"]
    assert values(database, config())["by_step"] == done["by_step"]
    assert stored_bytes(database) < 2 * (100 * 1_500 + 100 * 1_100)


def test_versions_grow_from_the_long_ones_of_other_savers_on(database: Database) -> None:
    theirs = [InMemorySaver().get_next_version(f"{9:032}.0.5", None)]
    for _ in range(3):
        theirs.append(database.saver.get_next_version(theirs[-1], None))
    assert theirs == sorted(theirs)
    assert [int(version.split(".")[0]) for version in theirs] == [10, 11, 12, 13]


def test_a_list_that_changes_at_its_beginning_is_stored_whole(database: Database) -> None:
    first = put(database, config(), items=["a" * 500, "b" * 500])
    second = put(database, first, items=["A" * 500, "b" * 500, "c"])
    third = put(database, second, items=["A" * 500, "b" * 500, "c", "d"])
    fourth = put(database, third, items={"A" * 500: "b" * 500})
    for at, expected in (
        (first, ["a" * 500, "b" * 500]),
        (second, ["A" * 500, "b" * 500, "c"]),
        (third, ["A" * 500, "b" * 500, "c", "d"]),
        (fourth, {"A" * 500: "b" * 500}),
    ):
        assert values(database, at) == {"items": expected}


def test_branches_of_a_growing_list_do_not_mix(database: Database) -> None:
    root = put(database, config(), items=["r" * 500])
    left = put(database, root, items=["r" * 500, "left"])
    right = put(database, root, source="fork", items=["r" * 500, "right"])
    deeper = put(database, right, items=["r" * 500, "right", "deeper"])
    assert values(database, left)["items"] == ["r" * 500, "left"]
    assert values(database, deeper)["items"] == ["r" * 500, "right", "deeper"]


def test_what_a_value_begins_with_may_be_forgotten_meanwhile(url: str) -> None:
    with Database(url) as writer, Database(url) as other:
        first = put(writer, config(), items=["a" * 500])
        other.saver.delete_thread("t1")
        put(writer, first, items=["a" * 500, "b"])
        assert values(writer, config()) == {"items": ["a" * 500, "b"]}


def test_a_list_of_1200_rests_is_read_at_once(database: Database) -> None:
    at, items = config(), ["x" * 300]
    for step in range(1_200):
        items = [*items, str(step)]
        at = put(database, at, items=items)
    begun = time.perf_counter()
    assert values(database, config()) == {"items": items}
    assert time.perf_counter() - begun < 5


def test_equal_values_are_stored_once(database: Database) -> None:
    at = put(database, config(), a="x" * 1000, b="x" * 1000)
    put(database, at, c="x" * 1000)
    assert count(database, blobs) == 3
    assert count(database, payloads) == 1


# -- nobody forks a thread unseen


def test_the_second_child_of_a_checkpoint_is_refused(url: str) -> None:
    with Database(url) as one, Database(url) as two:
        head = put(one, config(), x=0)
        first = put(one, head, x=1)
        with pytest.raises(ThreadBusy, match="t1"):
            put(two, head, x=2)
        assert values(two, config()) == {"x": 1}
        assert count(two, checkpoints) == 2
        put(two, first, x=3)


@pytest.mark.parametrize("source", ["fork", "update"])
def test_what_is_meant_to_branch_off_may(database: Database, source: str) -> None:
    head = put(database, config(), x=0)
    put(database, head, x=1)
    branch = put(database, head, source=source, x=2)
    assert values(database, config()) == {"x": 2}
    put(database, branch, x=3)


def test_the_loser_of_a_batch_does_not_spoil_it(database: Database) -> None:
    """Refused alone, whatever shares its transaction."""

    async def all_at_once() -> list[object]:
        saver = database.saver
        head = await saver.aput(config(), empty_checkpoint(), {"source": "loop"}, {})
        at_once = [
            saver.aput(head, empty_checkpoint(), {"source": "loop"}, {}),
            saver.aput(head, empty_checkpoint(), {"source": "loop"}, {}),
            saver.aput(config("t2"), empty_checkpoint(), {"source": "loop"}, {}),
            saver.aput_writes(head, [("channel", 1)], "task"),
        ]
        return await asyncio.gather(*at_once, return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    assert [isinstance(outcome, ThreadBusy) for outcome in outcomes] == [False, True, False, False]
    assert count(database, checkpoints) == 3


async def test_what_is_refused_leaves_nothing_behind_that_hinders_later_orders(
    database: Database,
) -> None:
    head = put(database, config(), x=0)
    for number in range(3):
        for _ in range(10):  # so often that the driver remembers how
            await database.saver.adelete_thread("other")
        ahead = put(database, head, x=number)
        with pytest.raises(ThreadBusy):
            put(database, head, x=-1)
        head = ahead
    assert values(database, config()) == {"x": 2}


async def test_a_run_may_begin_again_at_an_old_checkpoint(database: Database) -> None:
    app = growing(3).compile(checkpointer=database.saver)
    await app.ainvoke({"texts": []}, config())
    history = [state async for state in app.aget_state_history(config())]
    replayed = await app.ainvoke(None, history[2].config)
    assert len(replayed["texts"]) == 3
    branched = await app.ainvoke({"texts": ["new"]}, history[2].config)
    assert "new" in branched["texts"]
    assert (await app.aget_state(config())).values == branched


async def test_two_runs_of_a_thread_at_once_do_not_fork_it(url: str) -> None:
    async with Database(url) as one, Database(url) as two:
        apps = [growing(20).compile(checkpointer=d.saver) for d in (one, two)]
        await apps[0].ainvoke({"texts": []}, config())
        await apps[1].aget_state(config())  # connected, or one ends before the other begins
        runs = [app.ainvoke({"texts": []}, config()) for app in apps]
        outcomes = await asyncio.gather(*runs, return_exceptions=True)
        assert sum(isinstance(outcome, ThreadBusy) for outcome in outcomes) == 1
        parents = [t.parent_config async for t in one.saver.alist(config())]
        ids = [p["configurable"]["checkpoint_id"] for p in parents if p is not None]
        assert len(ids) == len(set(ids))


# -- the newest is the one that was put last


def test_the_last_put_is_the_newest_whatever_its_id(database: Database) -> None:
    """A thread begun on a host whose clock was ahead goes on on one whose clock is right."""
    saver = database.saver
    ahead: Any = {**empty_checkpoint(), "id": "1fffffff-ffff-6fff-bfff-ffffffffffff"}
    late = empty_checkpoint()
    head = saver.put(config(), ahead, {"source": "loop"}, {})
    saver.put(head, late, {"source": "loop"}, {})
    newest = saver.get_tuple(config())
    assert newest is not None
    assert newest.checkpoint["id"] == late["id"]
    listed = [found.checkpoint["id"] for found in saver.list(config())]
    assert listed == [late["id"], ahead["id"]]
    before = saver.list(config(), before=config(parent=late["id"]))
    assert [found.checkpoint["id"] for found in before] == [ahead["id"]]


def test_a_checkpoint_put_twice_is_one(database: Database) -> None:
    checkpoint = empty_checkpoint()
    database.saver.put(config(), checkpoint, {"source": "loop", "step": 1}, {})
    database.saver.put(config(), checkpoint, {"source": "loop", "step": 2}, {})
    (found,) = database.saver.list(config())
    assert found.metadata["step"] == 2


# -- listing


def test_listing_holds_nothing_while_the_consumer_pauses(database: Database) -> None:
    at = config()
    for number in range(120):
        at = put(database, at, x=number)
    listing = database.saver.list(config())
    seen = [next(listing).checkpoint["channel_values"]["x"]]
    database.saver.put_writes(at, [("channel", 1)], "task")
    put(database, at, x=120)
    seen += [found.checkpoint["channel_values"]["x"] for found in listing]
    assert seen == list(range(119, -1, -1))


def test_a_listing_of_all_threads_gives_each_its_own_values(database: Database) -> None:
    for number in range(60):
        at = put(database, config(f"t{number}"), x=[str(number)] * 200)
        database.saver.put_writes(at, [("w", number)], "task")
    found = list(database.saver.list(None, limit=55))
    assert [f.checkpoint["channel_values"]["x"][0] for f in found] == [
        str(n) for n in range(59, 4, -1)
    ]
    assert [f.pending_writes for f in found] == [[("task", "w", n)] for n in range(59, 4, -1)]


@pytest.mark.parametrize("limit", [True, 1.5, "1"])
def test_a_limit_is_a_whole_number(database: Database, limit: Any) -> None:
    with pytest.raises(BadId):
        list(database.saver.list(config(), limit=limit))


@pytest.mark.parametrize("inner_first", [True, False])
def test_a_nested_checkpoint_is_as_early_as_the_one_around_it(
    database: Database, *, inner_first: bool
) -> None:
    """Whichever of the two was put first: they arrive as they like."""
    at, nested = config(), config(namespace="inner:1")
    outers, inners = [], []
    for _ in range(4):
        outer, inner = empty_checkpoint(), empty_checkpoint()
        parents: Any = {"source": "loop", "parents": {"": outer["id"]}}
        puts: list[Any] = [(at, outer, {"source": "loop"}), (nested, inner, parents)]
        put_ = {p[1]["id"]: database.saver.put(*p, {}) for p in puts[:: -1 if inner_first else 1]}
        at, nested = put_[outer["id"]], put_[inner["id"]]
        outers.append(outer["id"])
        inners.append(inner["id"])
    found = database.saver.list(config(namespace="inner:1"), before=config(parent=outers[2]))
    assert [f.checkpoint["id"] for f in found] == [inners[1], inners[0]]
    (last,) = database.saver.list(
        config(namespace="inner:1"), before=config(parent=outers[2]), limit=1
    )
    assert last.checkpoint["id"] == inners[1]


# -- writes


def test_writes_come_back_in_the_order_langgraph_applies_them(database: Database) -> None:
    at = put(database, config(), x=0)
    for path, task in (("b", "1"), ("a", "3"), ("a", "2"), ("", "4")):
        database.saver.put_writes(at, [("c", f"{path}{task}"), ("d", 0)], task, path)
    found = database.saver.get_tuple(at)
    assert found is not None
    assert [w[2] for w in found.pending_writes or [] if w[1] == "c"] == ["4", "a2", "a3", "b1"]


def test_the_first_of_two_ordinary_writes_stays_the_last_special_one_counts(
    database: Database,
) -> None:
    at = put(database, config(), x=0)
    database.saver.put_writes(at, [("channel", "first")], "task")
    database.saver.put_writes(at, [("channel", "second")], "task")
    database.saver.put_writes(at, [("__resume__", "first")], "task")
    database.saver.put_writes(at, [("__resume__", "second")], "task")
    found = database.saver.get_tuple(at)
    assert found is not None
    assert found.pending_writes == [
        ("task", "__resume__", "second"),
        ("task", "channel", "first"),
    ]


def test_writes_may_come_before_their_checkpoint(database: Database) -> None:
    checkpoint = empty_checkpoint()
    database.saver.put_writes(config(parent=checkpoint["id"]), [("channel", 1)], "task")
    assert database.saver.get_tuple(config()) is None
    database.saver.put(config(), checkpoint, {"source": "loop"}, {})
    found = database.saver.get_tuple(config())
    assert found is not None
    assert found.pending_writes == [("task", "channel", 1)]


def test_one_bad_write_keeps_out_all_of_its_task(database: Database) -> None:
    at = put(database, config(), x=0)
    with pytest.raises(BadId):
        database.saver.put_writes(at, [("a", 1), ("bad\ud800", 2), ("c", 3)], "task")
    found = database.saver.get_tuple(at)
    assert found is not None
    assert found.pending_writes == []


# -- limits and types


def test_a_payload_above_the_limit_is_refused_before_anything_is_written(url: str) -> None:
    with Database(url, max_bytes=10_000) as database:
        at = put(database, config(), small="x")
        with pytest.raises(PayloadTooLarge, match="'large'"):
            put(database, at, small="y", large="x" * 10_000)
        with pytest.raises(PayloadTooLarge):
            database.saver.put_writes(at, [("a", 1), ("large", "x" * 10_000)], "task")
        found = database.saver.get_tuple(config())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"small": "x"}
        assert found.pending_writes == []
        assert put(database, at, just="x" * 9_997)


def test_eight_megabytes_fit(database: Database) -> None:
    body = random.Random(0).randbytes(7_999_990)
    put(database, config(), large=body)
    assert values(database, config())["large"] == body


def test_nouns_come_back_as_nouns(database: Database) -> None:
    task = Task(goal="Compare", inputs={"a": [1, None]})
    put(database, config(), task=task)
    assert values(database, config()) == {"task": task}


def test_a_shallow_copy_writes_where_the_original_does(database: Database) -> None:
    copy: BaseCheckpointSaver[Any] = database.saver.with_allowlist([("json", "loads")])
    assert copy is not database.saver
    copy.put(config(), empty_checkpoint(), {"source": "loop"}, {})
    assert database.saver.get_tuple(config()) is not None


def test_tenants_do_not_see_each_others_threads(url: str) -> None:
    with Database(url, tenant="one") as one, Database(url, tenant="two") as two:
        put(one, config(), x="one")
        put(two, config(), x="two")
        assert values(one, config()) == {"x": "one"}
        one.saver.delete_thread("t1")
        assert list(one.saver.list(None)) == []
        assert [f.checkpoint["channel_values"] for f in two.saver.list(None)] == [{"x": "two"}]


def test_the_writes_of_many_are_committed_together(url: str) -> None:
    """Group commit: what is ordered while a transaction runs goes in the next one, all of it."""
    commits: list[int] = []

    async def order(database: Database) -> None:
        saver = database.saver
        at = await saver.aput(config(), empty_checkpoint(), {"source": "loop"}, {})
        tasks: Sequence[Any] = [saver.aput_writes(at, [("c", n)], f"task{n}") for n in range(500)]
        before = len(commits)
        await asyncio.gather(*tasks)
        assert len(commits) - before < 50

    with Database(url) as database:
        database.saver.get_tuple(config())
        with database.connect() as connection:
            event.listen(connection.engine, "commit", lambda _: commits.append(1))
        asyncio.run(order(database))
        found = database.saver.get_tuple(config())
        assert found is not None
        assert len(found.pending_writes or []) == 500


async def test_a_step_is_one_transaction(url: str) -> None:
    """The writes of a task wait an instant for the checkpoint that follows them."""
    async with Database(url) as database:
        app = growing(30).compile(checkpointer=database.saver)
        await app.ainvoke({"texts": []}, config("warm"))
        commits: list[object] = []
        with database.connect() as connection:
            event.listen(connection.engine, "commit", commits.append)
        await app.ainvoke({"texts": []}, config() | {"recursion_limit": 100}, durability="sync")
        assert len(commits) <= 45  # 30 steps, the input, the end; more where the machine is slow


async def test_the_history_of_a_thread_takes_a_few_queries_a_page(database: Database) -> None:
    """However many checkpoints there are, and whatever they hold: no query a row."""
    app = growing(120).compile(checkpointer=database.saver)
    await app.ainvoke({"texts": []}, config() | {"recursion_limit": 200})
    queries: list[str] = []
    with database.connect() as connection:
        event.listen(
            connection.engine,
            "before_cursor_execute",
            lambda *seen: queries.append(seen[2]),
        )
    history = [t async for t in database.saver.alist(config())]
    assert len(history) == 122
    assert len([q for q in queries if q.startswith(("SELECT", "WITH"))]) <= 3 * 5
