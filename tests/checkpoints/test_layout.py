"""How little is stored: what was asked of it, and that nothing is given up for it."""

import math
import operator
import random
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph

from kapelle.checkpoints import Database
from kapelle.checkpoints.folding import DICTIONARY, FOLDED, MOST, fold, unfold
from kapelle.checkpoints.tables import blobs, writes
from kapelle.state.errors import Unreadable
from tests.checkpoints.test_saver import config, count, put, values

pytestmark = pytest.mark.anyio


class Grown(TypedDict, total=False):
    """A list that grows, and a number."""

    texts: Annotated[list[str], operator.add]
    count: int


def growing(steps: int) -> StateGraph[Grown]:
    def grow(state: Grown) -> Grown:
        number = state.get("count", 0) + 1
        return {"texts": [f"{number:04}" * 250], "count": number}

    graph = StateGraph(Grown)
    graph.add_node("grow", grow)
    graph.add_edge(START, "grow")
    graph.add_conditional_edges(
        "grow", lambda state: "grow" if state["count"] < steps else END, ["grow", END]
    )
    return graph


def aes() -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=b"a key of one....")


async def run(database: Database, steps: int, thread: str = "t1") -> None:
    """Steps of 1 kB, read once between them as another process would."""
    app = growing(steps).compile(checkpointer=database.saver)
    limit: Any = config(thread) | {"recursion_limit": 1_000}
    found = await app.ainvoke({"texts": []}, limit, durability="sync")
    assert len(found["texts"]) == steps


async def test_200_steps_of_1_kb_take_1_3_times_the_state_and_the_writes(tmp_path: Path) -> None:
    """The whole file, but for what an empty one takes; with names as long as a UUID."""
    sizes = []
    for steps in (0, 200):
        path = tmp_path / f"{steps}.db"
        async with Database(str(path)) as database:
            await database.saver.aget_tuple(config())
            if steps:
                await run(database, steps, str(uuid4()))
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] <= 1.3 * (2 * 200 * 1_000)


@pytest.mark.parametrize("cipher", [None, aes()], ids=["clear", "encrypted"])
async def test_four_times_the_steps_take_four_times_the_bytes(
    url: str, cipher: EncryptedSerializer | None
) -> None:
    """Whether it is encrypted or not: each piece of what grows is stored once."""
    taken = []
    for steps in (25, 100):
        async with Database(url, tenant=f"of-{steps}", cipher=cipher) as database:
            await run(database, steps)
            taken.append(sum((await database.stats()).bytes.values()))
    assert taken[1] < 4.2 * taken[0]
    assert taken[1] < (2.0 if cipher is None else 3.2) * 100 * 1_000


async def test_what_grew_is_read_by_others_and_grows_on_there(url: str) -> None:
    """A process that has only read the list stores no more than what it adds."""
    app = growing(40)
    async with Database(url, cipher=aes()) as one:
        await run(one, 20)
    async with Database(url, cipher=aes()) as other:
        before = (await other.stats()).bytes["payloads"]
        found = await app.compile(checkpointer=other.saver).ainvoke({"texts": []}, config())
        assert len(found["texts"]) == 40
        assert (await other.stats()).bytes["payloads"] - before < 20 * 3 * 1_100


# -- numbers stand in the checkpoint and beside other writes

SMALL: list[Any] = [None, True, 0, 1, 1.0, -0.0, 0.5, 2**63 - 1, -(2**63), math.inf]


def test_numbers_take_no_row_and_come_back_exactly(database: Database) -> None:
    put(database, config(), **{f"c{n}": one for n, one in enumerate(SMALL)})
    assert count(database, blobs) == 0
    found = values(database, config())
    assert [repr(found[f"c{n}"]) for n in range(len(SMALL))] == [repr(one) for one in SMALL]


def test_numbers_beyond_64_bits_take_a_row(database: Database) -> None:
    put(database, config(), large=2**63, largest=-(2**70))
    assert count(database, blobs) == 2
    assert values(database, config()) == {"large": 2**63, "largest": -(2**70)}


def test_a_number_that_did_not_change_is_still_there(database: Database) -> None:
    at = put(database, config(), step=1, text="first")
    saved = database.saver.get_tuple(at)
    assert saved is not None
    changed: Any = {**saved.checkpoint, "id": str(uuid4())}
    changed["channel_values"] = {**saved.checkpoint["channel_values"], "text": "second"}
    changed["channel_versions"] = {**saved.checkpoint["channel_versions"], "text": "2"}
    database.saver.put(at, changed, {"source": "loop"}, {"text": "2"})
    assert values(database, config()) == {"step": 1, "text": "second"}


def test_a_channel_that_a_checkpoint_lacks_is_not_taken_from_another_of_its_version(
    database: Database,
) -> None:
    """A checkpoint names the channels whose values stand elsewhere: it comes back as it was put."""
    at = put(database, config(), step=1, text="first")
    saved = database.saver.get_tuple(at)
    assert saved is not None
    lacking: Any = {**saved.checkpoint, "id": str(uuid4()), "channel_values": {"step": 1}}
    database.saver.put(at, lacking, {"source": "loop"}, {})
    assert values(database, config()) == {"step": 1}
    assert values(database, at) == {"step": 1, "text": "first"}
    found = database.saver.get_tuple(at)
    assert found is not None
    assert found.checkpoint == saved.checkpoint
    assert "blobs" not in found.checkpoint


def written(database: Database, at: Any) -> list[Any]:
    found = database.saver.get_tuple(at)
    assert found is not None
    return found.pending_writes or []


def test_small_writes_share_the_row_of_the_first(database: Database) -> None:
    at = put(database, config(), x=0)
    its: list[tuple[str, Any]] = [("a", ["long" * 99]), ("b", None), ("c", "text"), ("d", 1.5)]
    database.saver.put_writes(at, its, "task")
    assert count(database, writes) == 2
    assert written(database, at) == [("task", channel, value) for channel, value in its]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ([("a", 1), ("b", 2)], [("a", 3), ("b", 4)], [("a", 1), ("b", 2)]),
        ([("a", 1), ("b", 2)], [("a", 3), ("b", "long")], [("a", 1), ("b", 2)]),
        ([("a", 1), ("b", "long")], [("a", 3), ("b", 4)], [("a", 1), ("b", "long")]),
        ([("a", "long"), ("b", 2)], [("a", 1)], [("a", "long"), ("b", 2)]),
    ],
)
def test_what_a_task_wrote_first_stays(
    database: Database, first: Any, second: Any, kept: Any
) -> None:
    at = put(database, config(), x=0)
    for its in (first, second):
        database.saver.put_writes(at, its, "task")
    assert written(database, at) == [("task", *one) for one in kept]


def test_a_small_write_is_changed_by_nobody(url: str) -> None:
    with Database(url) as database:
        at = put(database, config(), x=0)
        database.saver.put_writes(at, [("a", "first"), ("b", 1)], "task")
        with database.connect() as connection:
            connection.execute(writes.update().values(more=b"msgpack\x00\x90"))
            connection.commit()
        with pytest.raises(Unreadable, match="t1"):
            database.saver.get_tuple(at)


# -- an empty dict has no mark


def empty(number: int) -> Any:
    return {**empty_checkpoint(), "id": str(number)}


@pytest.mark.parametrize("nothing", [{}, []])
def test_what_is_empty_is_found_without_a_mark(database: Database, nothing: Any) -> None:
    for number, tags in enumerate([{}, [], {"a": 1}, None]):
        at = config(f"t{number}")
        metadata: Any = {"source": "loop", "tags": tags}
        database.saver.put(at, empty(number), metadata, {})
    found = list(database.saver.list(None, filter={"tags": nothing}))
    assert [each.metadata.get("tags") for each in found] == [nothing]
    assert list(database.saver.list(None, filter={"other": nothing})) == []


def test_as_many_are_found_as_are_wanted_whatever_lies_between(database: Database) -> None:
    for number in range(120):
        metadata: Any = {"source": "loop", "tags": {} if number % 10 == 0 else {"a": 1}}
        database.saver.put(config(f"t{number}"), empty(number), metadata, {})
    found = list(database.saver.list(None, filter={"tags": {}}, limit=7))
    assert [each.checkpoint["id"] for each in found] == [str(n) for n in range(110, 40, -10)]


# -- checkpoints are folded


def test_the_dictionary_is_part_of_the_format() -> None:
    """What is stored was folded with it: another one is another type."""
    assert sha256(DICTIONARY).hexdigest()[:16] == "69096b4a29687235"


def test_what_is_folded_is_shorter_and_comes_back() -> None:
    data = random.Random(0).randbytes(500) + DICTIONARY
    kind, folded = fold("msgpack", data)
    assert kind == FOLDED
    assert len(folded) < len(data) - 200
    assert unfold(kind, folded) == ("msgpack", data)


@pytest.mark.parametrize("typed", [("exact", b"tree"), ("msgpack", bytes(MOST + 1))])
def test_what_is_long_or_no_msgpack_is_not_folded(typed: tuple[str, bytes]) -> None:
    assert fold(*typed) == typed
    assert unfold(*typed) == typed


def damaged() -> Iterator[bytes]:
    """Cut short, longer than it was, nothing, and something else."""
    _, folded = fold("msgpack", b"a checkpoint" * 20)
    yield folded[:-1]
    yield folded + b"x"
    yield b""
    yield b"\xff" * 50


@pytest.mark.parametrize("data", list(damaged()))
def test_what_was_damaged_is_unreadable_when_it_is_unfolded(data: bytes) -> None:
    with pytest.raises(Unreadable):
        unfold(FOLDED, data)


def test_nothing_unfolds_to_more_than_was_ever_folded() -> None:
    folder = zlib.compressobj(9, 8, -12, 8, zdict=DICTIONARY)
    bomb = folder.compress(bytes(100 * MOST)) + folder.flush()
    with pytest.raises(Unreadable):
        unfold(FOLDED, bomb)
