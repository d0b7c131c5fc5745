"""The store: items are found as LangGraph's contract says, the same way on every database."""

import asyncio
import gc
import math
import threading
import weakref
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.graph import START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from typing_extensions import TypedDict

from kapelle.checkpoints import Database
from kapelle.checkpoints.vectors import cosines, pack
from kapelle.state.errors import DatabaseFailed, PayloadTooLarge
from kapelle.state.task import Task

pytestmark = pytest.mark.anyio

DOCS = ("docs", "ann")


def embed(texts: list[str]) -> list[list[float]]:
    """How often each letter of a short alphabet occurs."""
    counts = [Counter(text.lower()) for text in texts]
    return [[float(c[letter]) for letter in "abcdefghijklmnopqrstuvwxyz"] for c in counts]


# -- items


def test_an_item_comes_back_as_it_was_and_can_change(database: Database) -> None:
    store = database.store
    store.put(DOCS, "one", {"text": "first", "nested": {"list": [1, 2.5, None, True]}})
    first = store.get(DOCS, "one")
    assert first is not None
    assert first.value == {"text": "first", "nested": {"list": [1, 2.5, None, True]}}
    assert (first.namespace, first.key) == (DOCS, "one")
    store.put(DOCS, "one", {"text": "second"})
    second = store.get(DOCS, "one")
    assert second is not None
    assert second.value == {"text": "second"}
    assert second.created_at == first.created_at
    assert second.updated_at >= first.updated_at
    store.delete(DOCS, "one")
    assert store.get(DOCS, "one") is None


async def test_the_same_asynchronously(database: Database) -> None:
    store = database.store
    await store.aput(DOCS, "one", {"text": "first"})
    assert [item.key for item in await store.asearch(DOCS)] == ["one"]
    await store.adelete(DOCS, "one")
    assert await store.aget(DOCS, "one") is None
    assert await store.alist_namespaces() == []


def test_nouns_may_stand_in_items(database: Database) -> None:
    task = Task(goal="Compare")
    database.store.put(DOCS, "task", {"task": task})
    item = database.store.get(DOCS, "task")
    assert item is not None
    assert item.value == {"task": task}


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        (("docs", "ann"), "One"),
        (("docs", "ann"), "one "),
        (("docs", "ann"), "ōne"),
        (("docs", "ann"), "one\x00"),
        (("docs", "ann"), "\ud800"),
        (("docs", "ann"), "x" * 5_000),
        (("docs", "Ann"), "one"),
        (("docs", "ann "), "one"),
        (("docs",), "one"),
        (("docs", "ann", "deeper"), "one"),
        (("docs", "%"), "one"),
        (("do", "cs"), "one"),
        (tuple("deep" for _ in range(200)), "one"),
        (("n" * 2_000,), "one"),
        (("docs' OR '1'='1", "x"), "one"),
    ],
)
def test_names_are_told_apart_exactly(
    database: Database, namespace: tuple[str, ...], key: str
) -> None:
    database.store.put(DOCS, "one", {"which": "usual"})
    database.store.put(namespace, key, {"which": "other"})
    usual, other = database.store.get(DOCS, "one"), database.store.get(namespace, key)
    assert usual is not None
    assert other is not None
    assert (usual.value["which"], other.value["which"]) == ("usual", "other")
    assert (other.namespace, other.key) == (namespace, key)


def test_a_batch_reads_before_it_writes_and_the_last_put_counts(database: Database) -> None:
    database.store.put(DOCS, "one", {"n": 0})
    results = database.store.batch(
        [
            PutOp(DOCS, "one", {"n": 1}),
            GetOp(DOCS, "one"),
            PutOp(DOCS, "one", {"n": 2}),
            SearchOp(DOCS),
            PutOp(DOCS, "two", {"n": 3}),
            PutOp(DOCS, "two", None),
            ListNamespacesOp(),
        ]
    )
    read: Any = results[1]
    found: Any = results[3]
    assert read.value == {"n": 0}
    assert [item.value for item in found] == [{"n": 0}]
    assert [results[i] for i in (0, 2, 4, 5)] == [None] * 4
    assert results[6] == [DOCS]
    after = database.store.get(DOCS, "one")
    assert after is not None
    assert after.value == {"n": 2}
    assert database.store.get(DOCS, "two") is None


async def test_puts_and_deletions_that_share_a_transaction_keep_their_order(
    database: Database,
) -> None:
    store = database.store
    for _ in range(5):
        await asyncio.gather(
            store.aput(DOCS, "one", {"n": 1}), store.adelete(DOCS, "one"), store.aput(DOCS, "b", {})
        )
        assert await store.aget(DOCS, "one") is None
        await asyncio.gather(store.adelete(DOCS, "one"), store.aput(DOCS, "one", {"n": 2}))
        assert await store.aget(DOCS, "one") is not None


def test_a_value_above_the_limit_is_refused(url: str) -> None:
    with Database(url, max_bytes=1_000) as database, pytest.raises(PayloadTooLarge, match="'big'"):
        database.store.put(DOCS, "big", {"text": "x" * 1_000})


@pytest.mark.parametrize("namespace", [(), ("a.b",), ("",), ("langgraph", "x"), (1,), ("a\x00",)])
def test_bad_namespaces_are_refused(database: Database, namespace: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        database.store.put(namespace, "key", {})


def test_tenants_have_their_own_items(url: str) -> None:
    with Database(url, tenant="one") as one, Database(url, tenant="two") as two:
        one.store.put(DOCS, "x", {"of": "one"})
        assert two.store.get(DOCS, "x") is None
        assert two.store.search(()) == []
        assert two.store.list_namespaces() == []


# -- searching


def fill(database: Database) -> None:
    for n, kind in enumerate(["report", "note", "note", "report", "draft"]):
        value = {"kind": kind, "n": n, "by": {"name": "ann" if n % 2 else "bob"}, "tags": [n]}
        database.store.put(("docs", "ann" if n < 3 else "bob"), f"k{n}", value)
    database.store.put(("docsx",), "other", {"kind": "note"})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"kind": "note"}, {1, 2}),
        ({"kind": {"$eq": "note"}}, {1, 2}),
        ({"kind": {"$ne": "note"}}, {0, 3, 4}),
        ({"n": {"$gt": 2}}, {3, 4}),
        ({"n": {"$gte": 2, "$lt": 4}}, {2, 3}),
        ({"n": {"$lte": 1.5}}, {0, 1}),
        ({"n": 1.0}, {1}),
        ({"n": True}, set()),
        ({"n": "1"}, set()),
        ({"n": {"$gt": "0"}}, set()),
        ({"by": {"name": "ann"}}, {1, 3}),
        ({"by": {"name": {"$ne": "ann"}}}, {0, 2, 4}),
        ({"tags": [3]}, {3}),
        ({"kind": "report", "n": 3}, {3}),
        ({"by.name": "ann"}, set()),
        ({"kind') = 'note' OR '1'='1": "note"}, set()),
        ({"kind": "note' OR '1'='1"}, set()),
        ({"absent": None}, {0, 1, 2, 3, 4}),
        ({"absent": {"$gt": 0}}, set()),
    ],
)
def test_filters_find_what_they_say(
    database: Database, wanted: dict[str, Any], found: set[int]
) -> None:
    fill(database)
    assert {item.value["n"] for item in database.store.search(("docs",), filter=wanted)} == found


def test_an_unknown_operator_is_refused(database: Database) -> None:
    fill(database)
    with pytest.raises(ValueError, match=r"\$regex"):
        database.store.search(("docs",), filter={"kind": {"$regex": ".*"}})


def test_a_search_lies_under_its_prefix_and_turns_pages(database: Database) -> None:
    fill(database)
    search = database.store.search
    assert {item.key for item in search(("docs", "ann"))} == {"k0", "k1", "k2"}
    assert len(search(("docs",))) == 5
    assert len(search(())) == 6
    pages = [search(("docs",), limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({item.key for page in pages for item in page}) == 5
    kept = search(("docs",), filter={"n": {"$gte": 1}}, limit=3, offset=2)
    assert len(kept) == 2


def test_what_changed_last_comes_first(database: Database) -> None:
    for key in ("a", "b", "c"):
        database.store.put(DOCS, key, {})
    database.store.put(DOCS, "a", {"changed": True})
    times = [item.updated_at for item in database.store.search(DOCS)]
    assert times == sorted(times, reverse=True)


def test_namespaces_are_listed_by_beginning_end_and_depth(database: Database) -> None:
    for namespace in (("a", "b", "c"), ("a", "b", "d", "e"), ("a", "x", "c"), ("b",), ("ab",)):
        database.store.put(namespace, "k", {})
    listed = database.store.list_namespaces
    assert listed() == [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "x", "c"), ("ab",), ("b",)]
    assert listed(prefix=("a", "b")) == [("a", "b", "c"), ("a", "b", "d", "e")]
    assert listed(suffix=("c",)) == [("a", "b", "c"), ("a", "x", "c")]
    assert listed(prefix=("a", "*", "c")) == [("a", "b", "c"), ("a", "x", "c")]
    assert listed(max_depth=2) == [("a", "b"), ("a", "x"), ("ab",), ("b",)]
    assert listed(prefix=("a",), max_depth=1) == [("a",)]
    assert listed(limit=2, offset=1) == [("a", "b", "d", "e"), ("a", "x", "c")]
    database.store.delete(("b",), "k")
    assert ("b",) not in listed()


ALL: Any = list(HealthCheck)
LABELS = st.lists(st.sampled_from(["a", "b", "*", "%"]), min_size=1, max_size=3).map(tuple)
VALUES = st.dictionaries(
    st.sampled_from(["x", "y"]), st.one_of(st.integers(0, 3), st.text("ab", max_size=2))
)


def namespaces(store: BaseStore, condition: Any) -> Any:
    return store.batch([ListNamespacesOp(condition)])[0] or []


@settings(max_examples=40, deadline=None, suppress_health_check=ALL)
@given(
    puts=st.lists(st.tuples(LABELS, st.sampled_from("kl"), st.none() | VALUES), max_size=12),
    prefix=st.lists(st.sampled_from(["a", "b", "%"]), max_size=2).map(tuple),
    wanted=st.none() | VALUES,
)
def test_it_finds_what_langgraphs_own_store_finds(
    puts: list[Any], prefix: tuple[str, ...], wanted: dict[str, Any] | None
) -> None:
    with Database("sqlite://") as database:
        ours, theirs = database.store, InMemoryStore()
        for namespace, key, value in puts:
            for store in (ours, theirs):
                store.batch([PutOp(namespace, key, value)])
        condition = (MatchCondition("prefix", ("a", "*")),)
        found = [
            {
                (item.namespace, item.key, str(item.value))
                for item in store.search(prefix, filter=wanted, limit=100)
            }
            for store in (ours, theirs)
        ]
        assert found[0] == found[1]
        full = {item.namespace for item in theirs.search((), limit=100)}
        empty = set(theirs.list_namespaces(limit=100)) - full  # it keeps what was emptied
        listed: list[Any] = [
            [n for n in namespaces(store, condition) if n not in empty] for store in (ours, theirs)
        ]
        assert listed[0] == listed[1]


# -- meaning


def test_the_nearest_item_comes_first(url: str) -> None:
    index: Any = {"dims": 26, "embed": embed}
    with Database(url, index=index) as database:
        for text in ("aaaa", "aabb", "zzzz"):
            database.store.put(DOCS, text, {"text": text})
        database.store.put(DOCS, "not indexed", {"text": "aaaa"}, index=False)
        found = database.store.search(DOCS, query='{"text": "aaaa"}')
        assert [item.key for item in found] == ["aaaa", "aabb", "zzzz", "not indexed"]
        scores = [item.score for item in found]
        assert scores[0] == pytest.approx(1)
        assert scores[3] is None
        assert found[0].score > found[1].score > found[2].score  # type: ignore[operator]
        page = database.store.search(DOCS, query='{"text": "aaaa"}', limit=1, offset=1)
        assert [item.key for item in page] == ["aabb"]


@pytest.mark.parametrize("name", ["fields", "text_fields"])
def test_the_fields_that_are_embedded_may_have_either_name(url: str, name: str) -> None:
    """LangGraph's SQLite store has a name of its own for them."""
    index: Any = {"dims": 26, "embed": embed, name: ["title"]}
    with Database(url, index=index) as database:
        database.store.put(DOCS, "one", {"title": "aaaa", "text": "zzzz"})
        database.store.put(DOCS, "two", {"title": "zzzz", "text": "aaaa"})
        (first, _) = database.store.search(DOCS, query="aaaa")
        assert (first.key, first.score) == ("one", pytest.approx(1))
        assert database.store.embeddings is not None
        assert database.store.embeddings.embed_query("aaaa") == embed(["aaaa"])[0]


async def test_an_item_that_changes_is_embedded_anew(url: str) -> None:
    index: Any = {"dims": 26, "embed": embed, "fields": ["title", "parts[*].text"]}
    async with Database(url, index=index) as database:
        store = database.store
        await store.aput(DOCS, "x", {"title": "aaa", "parts": [{"text": "bbb"}, {"text": "ccc"}]})
        await store.aput(DOCS, "y", {"title": "ddd"})
        for query in ("a", "b", "c"):
            found = await store.asearch(DOCS, query=query)
            assert (found[0].key, found[0].score) == ("x", pytest.approx(1))
        await store.aput(DOCS, "x", {"title": "zzz"})
        found = await store.asearch(DOCS, query="b")
        assert [item.score for item in found] == [0, 0]
        await store.adelete(DOCS, "x")
        assert [item.key for item in await store.asearch(DOCS, query="b")] == ["y"]


def test_the_cosine_is_the_same_with_and_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [-2.0, 0.0]]
    expected = [1, 1 / math.sqrt(2), 0, -1]
    packed = [pack(vector) for vector in vectors]
    assert cosines([3.0, 0.0], packed) == pytest.approx(expected)
    monkeypatch.setattr("kapelle.checkpoints.vectors._numpy", lambda: None)
    assert cosines([3.0, 0.0], packed) == pytest.approx(expected)


# -- time to live


def test_what_is_over_is_swept(database: Database) -> None:
    store = database.store
    store.put(DOCS, "over", {}, ttl=-1)
    store.put(DOCS, "fresh", {}, ttl=10)
    store.put(DOCS, "forever", {})
    assert store.sweep_ttl() == 1
    assert {item.key for item in store.search(DOCS)} == {"fresh", "forever"}


def test_what_is_over_can_be_left_out_before_it_is_swept(url: str) -> None:
    with Database(url, ttl={"omit_expired": True, "default_ttl": -1}) as database:
        store = database.store
        store.put(DOCS, "over", {})
        store.put(("forever",), "k", {}, ttl=None)
        assert store.get(DOCS, "over") is None
        assert store.search(DOCS) == []
        assert store.list_namespaces() == [("forever",)]


@pytest.mark.parametrize("refresh", [True, False])
def test_reading_gives_an_item_its_full_time_again(database: Database, refresh: bool) -> None:  # noqa: FBT001
    store = database.store
    store.put(DOCS, "x", {}, ttl=10)
    with database.connect() as connection:
        connection.exec_driver_sql("UPDATE kapelle_items SET expires_at = 1")
        connection.commit()
    assert store.get(DOCS, "x", refresh_ttl=refresh) is not None
    assert store.sweep_ttl() == (0 if refresh else 1)


def test_the_sweeper_sweeps_and_ends_with_its_store(url: str) -> None:
    database = Database(url)
    swept = threading.Event()
    store = database.store
    sweep = type(store).sweep_ttl

    class Watched(type(store)):  # type: ignore[misc]
        """Says when it was swept."""

        def sweep_ttl(self) -> int:
            """Sweep and say so."""
            number = sweep(self)
            swept.set()
            return number

    store.__class__ = Watched
    store.put(DOCS, "over", {}, ttl=-1)
    store.start_ttl_sweeper(0.001)
    assert swept.wait(60)
    assert store.get(DOCS, "over") is None
    (sweeper,) = [t for t in threading.enumerate() if t.name == "kapelle-sweep"]
    gone = weakref.ref(store)
    database.close()
    del database, store
    sweeper.join(60)
    assert not sweeper.is_alive()
    gc.collect()
    assert gone() is None


def test_a_sweeper_outlives_a_sweep_that_failed_and_ends_when_the_database_is_closed(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, tries = database.store, threading.Semaphore(0)

    def fails() -> int:
        tries.release()
        raise DatabaseFailed(url="there", why="it is gone for a moment")

    monkeypatch.setattr(store, "sweep_ttl", fails)
    store.start_ttl_sweeper(0.0001)
    for _ in range(3):
        assert tries.acquire(timeout=60)
    (sweeper,) = [t for t in threading.enumerate() if t.name == "kapelle-sweep"]
    database.close()
    sweeper.join(60)
    assert not sweeper.is_alive()
    assert "it is gone for a moment" in caplog.text


# -- in a graph


class State(TypedDict):
    """What the node saw."""

    seen: list[str]


async def test_a_node_uses_the_store(database: Database) -> None:
    async def remember(state: State, *, runtime: Any) -> State:
        await runtime.store.aput(("memories",), "one", {"text": "hello"})
        found = await runtime.store.asearch(("memories",))
        return {"seen": [*state["seen"], *(item.value["text"] for item in found)]}

    graph = StateGraph(State)
    graph.add_node("remember", remember)
    graph.add_edge(START, "remember")
    app = graph.compile(checkpointer=database.saver, store=database.store)
    done = await app.ainvoke({"seen": []}, {"configurable": {"thread_id": "t1"}})
    assert done == {"seen": ["hello"]}
