"""Hostile inputs: stored and read back exactly or refused by name, the same on every database."""

import math
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from sqlalchemy import select, update

from kapelle.checkpoints import Database
from kapelle.checkpoints.marks import mark
from kapelle.checkpoints.serde import StrictSerializer
from kapelle.checkpoints.tables import blobs, checkpoints, payloads, writes
from kapelle.state.errors import BadId, KapelleError, Unreadable, Unstorable
from kapelle.state.task import Task

pytestmark = pytest.mark.anyio

THREADS = [
    "alice-1",
    "alice-1' OR '1'='1",
    "ALICE-1",
    "alice-1 ",
    " alice-1",
    "alice_1",
    "%",
    "\U0001f600",
    "\u00e9",
    "e\u0301",
    "ß",
    "ss",
    "\uff21",  # a wide A
    "a\u200b",
    "a",
    "\ufeffa",
    "\u202e",
    "../../x",
    "a|b",
    "a:b",
    "-",
    "x" * 255,
    "x" * 254,
    "\U0001f600" * 255,
    "'; DROP TABLE kapelle_checkpoints; --",
    "\\",
    "\\'",
    "\n",
    "a\n",
]

REFUSED: list[Any] = [
    "",
    "\ud800",
    "a\x00",
    "x" * 256,
    "x" * 10**6,
    1,
    True,
    None,
    ["alice-1"],
    {"$ne": ""},
    b"alice-1",
]


def config(thread: Any = "t1", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **more}}


def put(database: Database, value: Any, at: Any = None, **metadata: Any) -> Any:
    saver = database.saver
    versions: Any = {"value": saver.get_next_version(None, None)}
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {"value": value}}
    checkpoint["channel_versions"] = versions
    described: Any = {"source": "loop", **metadata}
    return saver.put(at or config(), checkpoint, described, versions)


def value(database: Database, at: Any = None) -> Any:
    found = database.saver.get_tuple(at or config())
    assert found is not None
    return found.checkpoint["channel_values"]["value"]


# -- names


def test_threads_are_told_apart_exactly(database: Database) -> None:
    for thread in THREADS:
        put(database, thread, config(thread))
    for thread in THREADS:
        assert value(database, config(thread)) == thread
        (listed,) = database.saver.list(config(thread))
        assert listed.config["configurable"]["thread_id"] == thread
    database.saver.delete_thread(THREADS[1])
    assert database.saver.get_tuple(config(THREADS[1])) is None
    assert len(list(database.saver.list(None))) == len(THREADS) - 1


@pytest.mark.parametrize("thread", REFUSED, ids=range(len(REFUSED)))
def test_threads_no_table_can_hold_are_refused_everywhere(database: Database, thread: Any) -> None:
    saver = database.saver
    doings: list[Callable[[], Any]] = [
        lambda: put(database, 1, config(thread)),
        lambda: saver.get_tuple(config(thread)),
        lambda: list(saver.list(config(thread))),
        lambda: saver.put_writes(config(thread, checkpoint_id="c"), [("a", 1)], "task"),
        lambda: saver.delete_thread(thread),
        lambda: saver.copy_thread("t1", thread),
    ]
    for do in doings:
        with pytest.raises(BadId):
            do()


NAMESPACES = ["inner:1", "Inner:1", "a|b:uuid|", "|".join(["deep" * 10] * 50), "n\x00", "\ud800"]


@pytest.mark.parametrize("namespace", NAMESPACES, ids=range(len(NAMESPACES)))
def test_namespaces_of_any_kind_and_length(database: Database, namespace: str) -> None:
    put(database, "root")
    put(database, "nested", config(checkpoint_ns=namespace))
    assert value(database, config(checkpoint_ns=namespace)) == "nested"
    assert value(database) == "root"
    (found,) = database.saver.list(config(checkpoint_ns=namespace))
    assert found.config["configurable"]["checkpoint_ns"] == namespace


@pytest.mark.parametrize("channel", ["bad\ud800", "nul\x00", "", "x" * 256])
def test_channels_no_table_can_hold_are_refused(database: Database, channel: str) -> None:
    with pytest.raises(BadId):
        database.saver.put_writes(config(checkpoint_id="c"), [(channel, 1)], "task")


@pytest.mark.parametrize("path", ["~", "\x00", "\ud800", "x" * 5_000])
def test_paths_of_tasks_may_be_anything(database: Database, path: str) -> None:
    at = put(database, 1)
    database.saver.put_writes(at, [("a", 1)], "task", path)
    found = database.saver.get_tuple(at)
    assert found is not None
    assert found.pending_writes == [("task", "a", 1)]


# -- filters

KEYS: list[Any] = [
    "x') OR '1'='1",
    "x') OR 1=1 --",
    "owner') = 'alice' OR ('1'='1",
    "x'",
    'x"',
    "x`",
    "x;DROP TABLE kapelle_checkpoints",
    "x\x00y",
    "owner\n",
    "",
    ".",
    "..",
    "$",
    "a.b",
    "a[0]",
    "#-1",
    "*",
    "%",
    "own\u200ber",
    "own\u0435r",
    "a" * 5_000,
    "__class__",
    "\ud800",
]

VALUES: list[Any] = [
    "x' OR '1'='1",
    True,
    False,
    1,
    0,
    1.0,
    "1",
    None,
    {"$ne": None},
    {"a": 1},
    {"a": True},
    ["a"],
    [],
    b"x",
    "\x00",
    "",
    "\ud800",
    math.inf,
    2**70,
    "%",
    "_",
    "\\",
    "ALICE",
    "alice",
    "alice ",
]


def test_a_filter_finds_exactly_what_equals_type_and_all(database: Database) -> None:
    """LangGraph itself drops NULs from texts in metadata."""
    for number, one in enumerate(VALUES):
        put(database, number, config(f"t{number}"), owner=one)
    put(database, -1, config("none"))
    for wanted in VALUES:
        found = list(database.saver.list(None, filter={"owner": wanted}))
        expected = {
            i for i, one in enumerate(VALUES) if _cleaned(one) is wanted or _same(one, wanted)
        }
        assert {f.checkpoint["channel_values"]["value"] for f in found} == expected


def _cleaned(one: Any) -> Any:
    return one.replace("\x00", "") if isinstance(one, str) else one


def _same(one: Any, wanted: Any) -> bool:
    return mark("k", _cleaned(one)) == mark("k", wanted)


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_a_key_is_never_a_path_or_a_statement(database: Database, key: str) -> None:
    put(database, 1, config("a"), owner="alice", a={"b": "x"})
    assert list(database.saver.list(None, filter={key: "alice"})) == []
    put(database, 2, config("b"), **{key: "alice"})
    found = [f.checkpoint["channel_values"]["value"] for f in database.saver.list(None)]
    assert found == [2, 1]
    hits = list(database.saver.list(None, filter={key: "alice"}))
    assert [hit.config["configurable"]["thread_id"] for hit in hits] == ["b"]


@pytest.mark.parametrize("wanted", [{"owner": math.nan}, {5: 1}, {None: 1}, {("a",): 1}])
def test_what_equals_nothing_finds_nothing(database: Database, wanted: Any) -> None:
    put(database, 1, owner=math.nan)
    assert list(database.saver.list(None, filter=wanted)) == []


# -- values


@dataclass
class Pair:
    """A user's own."""

    left: str
    right: int


EXACT: list[Any] = [
    None,
    "",
    "\x00",
    "a\x00b",
    "\ud800",
    ["\udfff", {"\ud800": "\ud83d alone"}],
    "\U0001f600",
    2**63,
    2**64,
    -(2**63) - 1,
    [2**70, -(2**70)],
    math.inf,
    -math.inf,
    0.1,
    b"\x00\xff",
    {"a": {"b": [None, True, 1.5]}},
    {1: "one", "1": "text", None: "none"},
    {1, 2},
    deque(["\ud800"]),
    Path("a/b"),
    Task(goal="\x00", inputs={"big": 1.5}),
    HumanMessage(content="hello \x00"),
    Send("node", {"text": "\ud800"}),
    Pair("\ud800", 2**70),
    _DeltaSnapshot(["\ud800", 2**65]),
    list(range(100_000)),
]


@pytest.mark.parametrize("one", EXACT, ids=range(len(EXACT)))
def test_values_come_back_exactly(url: str, one: Any) -> None:
    with Database(url, allow=[Pair]) as database:
        at = put(database, one)
        database.saver.put_writes(at, [("w", one)], "task")
        found = database.saver.get_tuple(config())
        assert found is not None
        assert found.pending_writes is not None
        assert found.checkpoint["channel_values"]["value"] == one
        assert found.pending_writes[0][2] == one
        assert type(found.checkpoint["channel_values"]["value"]) is type(one)


def test_not_a_number_comes_back(database: Database) -> None:
    put(database, [math.nan])
    assert math.isnan(value(database)[0])


def test_a_million_items_come_back(database: Database) -> None:
    items = [str(n) for n in range(1_000_000)]
    put(database, items)
    assert value(database) == items


def test_a_hundred_megabytes_come_back_where_the_limit_is_raised(tmp_path: Path) -> None:
    body = random.Random(0).randbytes(100_000_000)
    with Database(str(tmp_path / "large.db"), max_bytes=200_000_000) as database:
        put(database, body)
        assert value(database) == body


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize("one", [object(), lambda: None, DEEP, 1j, range(3), {"a": {object()}}])
def test_what_would_not_come_back_is_refused(database: Database, one: Any) -> None:
    at = put(database, "before")
    with pytest.raises(Unstorable):
        put(database, one, at)
    with pytest.raises(Unstorable):
        database.saver.put_writes(at, [("ok", 1), ("bad", one)], "task")
    found = database.saver.get_tuple(config())
    assert found is not None
    assert (found.checkpoint["channel_values"], found.pending_writes) == ({"value": "before"}, [])


TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(PLAIN)
def test_any_plain_value_is_serialized_exactly(one: Any) -> None:
    serde = StrictSerializer()
    assert serde.loads_typed(serde.dumps_typed(one)) == one


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.text(max_size=20))
def test_any_plain_value_is_serialized_exactly_within_objects(one: Any, name: str) -> None:
    serde = StrictSerializer()
    given_: list[Any] = [Send(name, one), {"message": HumanMessage(content=name, extra=one)}]
    assert serde.loads_typed(serde.dumps_typed(given_)) == given_


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(PLAIN)
def test_any_plain_value_comes_back_from_every_database(database: Database, one: Any) -> None:
    put(database, one, at=database.saver.get_tuple(config()) and None)
    assert value(database) == one


# -- rows at rest

CALL = ("os", "system", "echo was run > {}")


def payload(code: int, marker: Path) -> bytes:
    command = CALL[2].format(marker)
    arguments: Any = {1: (command,), 2: {"command": command}}.get(code, command)
    return ormsgpack.packb(
        ormsgpack.Ext(code, ormsgpack.packb((*CALL[:2], arguments, "model_validate_json")))
    )


@pytest.fixture
def imported() -> Iterator[list[str]]:
    """What is imported or run while a test looks."""
    seen: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("import", "os.system", "subprocess.Popen", "exec"):
            seen.append(f"{event} {arguments[:1]}")

    sys.addaudithook(watch)
    yield seen
    watching = False


@pytest.mark.parametrize("code", range(128))
def test_no_extension_runs_what_a_row_names(code: int, tmp_path: Path, imported: list[str]) -> None:
    marker = tmp_path / "marker"
    serde = StrictSerializer()
    pytest.importorskip("numpy")  # LangGraph reads arrays with it: that is no import of the row's
    imported.clear()
    for kind in ("msgpack", "exact"):
        try:
            serde.loads_typed((kind, payload(code, marker)))
        except Unreadable:
            continue
    assert not marker.exists()
    assert [event for event in imported if "import" not in event] == []


def change(database: Database, table: Any, **columns: Any) -> None:
    """Change rows behind the saver's back."""
    with database.connect() as connection:
        connection.execute(update(table).values(columns))
        connection.commit()


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (blobs, {"body": b"\xa7changed"}),
        (blobs, {"type": "pickle"}),
        (blobs, {"type": "bytes"}),
        (blobs, {"base": "other"}),
        (writes, {"body": b"\xa7changed"}),
        (writes, {"channel": "other"}),
        (writes, {"task": "other"}),
        (checkpoints, {"body": b"\x80"}),
        (checkpoints, {"metadata": b"\x80"}),
        (checkpoints, {"parent": "other"}),
        (checkpoints, {"seal": b""}),
    ],
)
def test_a_changed_row_is_unreadable(
    url: str, table: Any, columns: dict[str, Any], *, sealed: bool
) -> None:
    with Database(url, key=b"secret" if sealed else b"") as database:
        at = put(database, "value")
        database.saver.put_writes(at, [("channel", "written")], "task")
        change(database, table, **columns)
        with pytest.raises(Unreadable, match="t1"):
            database.saver.get_tuple(config())
        with pytest.raises(Unreadable, match="t1"):
            list(database.saver.list(config()))


def test_a_changed_or_lost_payload_is_unreadable(database: Database) -> None:
    put(database, "x" * 5_000)
    change(database, payloads, body=b"changed")
    with pytest.raises(Unreadable, match="payload"):
        value(database)
    with database.connect() as connection:
        connection.execute(payloads.delete())
        connection.commit()
    with pytest.raises(Unreadable, match="payload"):
        value(database)


def test_a_row_of_another_thread_is_foreign(database: Database) -> None:
    at = put(database, "mine")
    put(database, "theirs", config("t2"))
    theirs = select(blobs.c.body, blobs.c.seal).where(blobs.c.thread == "t2")
    with database.connect() as connection:
        body, seal = connection.execute(theirs).one()
        connection.execute(update(blobs).where(blobs.c.thread == "t1").values(body=body, seal=seal))
        connection.commit()
    with pytest.raises(Unreadable):
        value(database, at)


def test_rows_sealed_with_another_key_are_unreadable(url: str) -> None:
    with Database(url, key=b"one") as one, Database(url, key=b"two") as two:
        put(one, "value")
        assert value(one) == "value"
        with pytest.raises(Unreadable):
            value(two)


def test_damaged_values_are_unreadable_or_plain_in_no_time(tmp_path: Path) -> None:
    """Cut at every byte, and each bit flipped: a typed error or a plain value, nothing is run."""
    serde = StrictSerializer()
    kind, data = serde.dumps_typed({"task": Task(goal="x" * 20), "n": [1, 2, 3]})
    flips = [
        data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :]
        for i in range(len(data))
        for bit in range(8)
    ]
    huge = b"\xdd\xff\xff\xff\xff"
    nested = b"\x91" * 10**6
    before = set(os.listdir(tmp_path))  # noqa: PTH208
    for damaged in [*(data[:i] for i in range(len(data))), *flips, huge, nested]:
        try:
            serde.loads_typed((kind, damaged))
        except Unreadable:
            continue
    assert set(os.listdir(tmp_path)) == before  # noqa: PTH208


FRONT_DOOR: list[Any] = [
    {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
    {"lc": 2, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "x"}},
    {"__lc_escaped__": {"lc": 1}},
    {"__interrupt__": ["x"]},
    {"__pregel_task_id": "x", "__resume__": 1},
]


@pytest.mark.parametrize("one", FRONT_DOOR, ids=range(len(FRONT_DOOR)))
def test_what_looks_like_machinery_stays_plain_data(database: Database, one: Any) -> None:
    put(database, one, checkpoint_id="x", thread_id="y")
    assert value(database) == one


async def test_errors_name_no_secret(tmp_path: Path) -> None:
    with pytest.raises(KapelleError) as failure:
        async with Database("postgresql://me:secret@127.0.0.1:1/none") as database:
            await database.saver.aget_tuple(config())
    assert "secret" not in str(failure.value)
    assert str(tmp_path) not in str(failure.value)
