"""Encryption at rest: nothing that was said is readable, nothing that is not encrypted is read."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from sqlalchemy import select, update

from kapelle import Approval, Runs
from kapelle.checkpoints import Database
from kapelle.checkpoints.saver import SqlSaver
from kapelle.checkpoints.secret import aes as of_environment
from kapelle.checkpoints.serde import StrictSerializer
from kapelle.checkpoints.tables import asks, effects, events, items, metadata, runs
from kapelle.state.approval import Escalation
from kapelle.state.effect import Effect
from kapelle.state.errors import AlreadyAnswered, Misbuilt, Unreadable
from kapelle.state.event import Event
from kapelle.state.task import Result, Task

pytestmark = pytest.mark.anyio

AT: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c"}}
HERE: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
PRIVATE = "the name of the patient"


def aes(key: bytes = b"a key of one....") -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


class State(TypedDict, total=False):
    """What a run holds."""

    task: Task
    log: Annotated[list[str], lambda old, new: old + new]
    result: Result


def graph() -> StateGraph[State]:
    def treat(state: State) -> State:
        asked = Escalation(question=f"Treat {PRIVATE}?", reason=PRIVATE, evidence=[PRIVATE])
        return {"log": [interrupt(asked)["value"]]}

    def end(state: State) -> State:
        return {"result": Result(task=state["task"].id, status="done", output=state["log"][0])}

    built = StateGraph(State)
    built.add_node("treat", treat)
    built.add_node("end", end)
    built.add_edge(START, "treat")
    built.add_edge("treat", "end")
    built.add_edge("end", END)
    return built


async def keep(db: Database) -> None:
    """Say it wherever something can be said."""
    kept = Runs(db, {"graph": graph()})
    run = await kept.start("graph", f"Look after {PRIVATE}", thread="t1")
    answer = Approval(decision="edit", by=PRIVATE, value=PRIVATE * 20, reason=PRIVATE)
    run = await kept.answer(run.asks[0].id, answer)
    assert run.result is not None
    assert run.result.output == PRIVATE * 20
    said: Any = {"what": PRIVATE, "task": PRIVATE, "agent": PRIVATE, "why": PRIVATE}
    db.journal.record([Event(kind="choice", thread="t1", **said)])
    await db.effects.begin("t1", Effect(key="paid", name=PRIVATE, holder="h", told=PRIVATE))
    await db.effects.settle("t1", "paid", "h", "done", PRIVATE)
    await db.effects.begin("t1", Effect(key="lost", name=PRIVATE, holder="h", told=PRIVATE))
    await db.store.aput((PRIVATE,), PRIVATE, {"name": PRIVATE})


def found(db: Database) -> list[str]:
    """The columns in which it can be read."""
    with db.connect() as connection:
        return [
            f"{table.name}.{name}"
            for table in metadata.sorted_tables
            for row in connection.execute(select(table)).mappings()
            for name, value in row.items()
            if PRIVATE.encode() in (value if isinstance(value, bytes) else str(value).encode())
        ]


async def test_nothing_that_was_said_is_readable_and_all_comes_back(url: str) -> None:
    async with Database(url, cipher=aes()) as db:
        await keep(db)
        (run,) = await db.runs.list()
        assert run.task.goal == f"Look after {PRIVATE}"
        (ask,) = await db.inbox.answered("t1")
        assert (ask.question, ask.evidence) == (f"Treat {PRIVATE}?", [PRIVATE])
        assert ask.answer is not None
        with pytest.raises(AlreadyAnswered, match=PRIVATE):
            await db.inbox.claim(ask.id, Approval(decision="approve", by="bob"))
        assert PRIVATE in [event.agent for event in await db.journal.read("t1")]
        ((_, effect),) = await db.effects.in_doubt()
        assert (effect.name, effect.told) == (PRIVATE, PRIVATE)
        (item,) = await db.store.asearch((PRIVATE,))
        assert (item.namespace, item.key, item.value) == ((PRIVATE,), PRIVATE, {"name": PRIVATE})
        assert await db.store.alist_namespaces() == [(PRIVATE,)]
        assert found(db) == []


def test_nothing_readable_is_in_the_file(tmp_path: Path) -> None:
    with Database(str(tmp_path / "encrypted.db"), cipher=aes()) as db:
        Runs(db, {"graph": graph()}).sync.start("graph", PRIVATE, thread="t1")
        db.store.put((PRIVATE,), PRIVATE, {"name": PRIVATE})
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert len(stored) > 10_000
        assert PRIVATE.encode() not in stored


async def test_without_a_cipher_it_is_readable_all_over_the_place(url: str) -> None:
    async with Database(url) as db:
        await keep(db)
        tables = {where.partition(".")[0].removeprefix("kapelle_") for where in found(db)}
        assert tables >= {"asks", "effects", "events", "items", "runs", "spaces", "writes"}


def ways(db: Database) -> dict[str, Callable[[], Awaitable[Any]]]:
    """All ways to read what was said."""
    return {
        "checkpoints": lambda: db.saver.aget_tuple(HERE),
        "runs": lambda: db.runs.get("t1"),
        "asks": lambda: db.inbox.answered("t1"),
        "journal": lambda: db.journal.read("t1"),
        "effects": db.effects.in_doubt,
        "items": lambda: db.store.aget((PRIVATE,), PRIVATE),
        "namespaces": db.store.alist_namespaces,
    }


@pytest.mark.parametrize("key", [None, b"another key....."])
async def test_what_is_not_encrypted_by_this_key_is_not_read(url: str, key: bytes | None) -> None:
    async with Database(url, cipher=aes(key) if key else None) as other:
        await keep(other)
    async with Database(url, cipher=aes()) as db:
        for read in ways(db).values():
            with pytest.raises(Unreadable):
                await read()


async def test_what_is_encrypted_is_not_read_without_a_cipher(url: str) -> None:
    async with Database(url, cipher=aes()) as other:
        await keep(other)
    async with Database(url) as db:
        for read in ways(db).values():
            with pytest.raises(Unreadable):
                await read()


async def test_what_was_cut_short_or_swapped_is_unreadable_whoever_reads(url: str) -> None:
    """Also without a cipher: a typed error, not that of whoever parses JSON."""
    async with Database(url) as db:
        await keep(db)
        with db.connect() as connection:
            for column in (runs.c.task, asks.c.proposal, events.c.data, effects.c.data):
                connection.execute(update(column.table).values({column.name: b'{"half'}))
            connection.execute(update(items).values(body=b"\xc1"))
            connection.commit()
        for name, read in ways(db).items():
            if name not in ("checkpoints", "namespaces"):
                with pytest.raises(Unreadable):
                    await read()


def test_vectors_are_hidden_and_search_by_meaning_works_as_ever(url: str) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float("cat" in text), float("dog" in text)] for text in texts]

    index: Any = {"dims": 2, "embed": embed}
    hits = []
    for tenant, cipher in (("clear", None), ("hidden", aes())):
        with Database(url, tenant=tenant, cipher=cipher, index=index) as db:
            db.store.put(("a",), "1", {"text": "a cat"})
            db.store.put(("a",), "2", {"text": "a dog"})
            hits.append([(hit.key, hit.score) for hit in db.store.search(("a",), query="dog")])
    assert hits[0] == hits[1]
    assert hits[0][0] == ("2", 1.0)


def test_a_saver_alone_encrypts_as_well(url: str) -> None:
    with SqlSaver.from_url(url, cipher=aes()) as saver:
        saver.put_writes(AT, [("channel", PRIVATE * 100)], "task")
        saver.put(HERE, {**empty_checkpoint(), "id": "c"}, {"source": "loop"}, {})
        read = saver.get_tuple(AT)
        assert read is not None
        assert [value for _, _, value in read.pending_writes or []] == [PRIVATE * 100]
    with SqlSaver.from_url(url) as saver, pytest.raises(Unreadable):
        saver.get_tuple(AT)


def test_the_serializer_alone_reads_nothing_that_is_encrypted(url: str) -> None:
    with Database(url, cipher=aes()) as database:
        kind, data = database.saver.serde.dumps_typed(PRIVATE)
    with pytest.raises(Unreadable):
        StrictSerializer().loads_typed((kind, data))


def test_the_environment_holds_the_key_where_only_a_url_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_environment() is None
    monkeypatch.setenv("KAPELLE_AES_KEY", "a key of one....")
    path = str(tmp_path / "encrypted.db")
    with Database(path, cipher=of_environment()) as db:
        db.store.put(("a",), "b", {"name": PRIVATE})
    with Database(path, cipher=aes()) as db:
        assert db.store.get(("a",), "b") is not None
    monkeypatch.setenv("KAPELLE_AES_KEY", "short")
    with pytest.raises(Misbuilt, match="KAPELLE_AES_KEY has 5 bytes"):
        of_environment()
