"""What is encrypted belongs to its place: moved elsewhere it is unreadable, with the right key too.

Whoever does so can write to the database and has no key. Seals without a key hold him up for no
longer than it takes to make new ones, so that is done here.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from sqlalchemy import Table, column, insert, select, table, update

from kapelle.checkpoints import Database
from kapelle.checkpoints.engine import Address, connect, writing
from kapelle.checkpoints.schema import migrate
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.tables import blobs, checkpoints, items, payloads, writes
from kapelle.checkpoints.tied import tie, untie
from kapelle.state.errors import Unreadable
from tests.checkpoints.test_saver import config, put, values

EARLIER = Path(__file__).with_name("versions") / "encrypted" / "0004.json"
"""What a version kept that tied nothing to its place."""

PRIVATE = "the name of the patient"


def aes() -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=b"a key of one....")


@pytest.fixture
def database(url: str) -> Any:
    """An encrypted database, opened."""
    with Database(url, cipher=aes()) as opened:
        yield opened


def move(database: Database, rows: Table, what: tuple[str, ...], **where: Any) -> None:
    """Put the content of one row into all others, and seal them anew."""
    with database.connect() as connection:
        one = select(rows).where(*(rows.c[name] == value for name, value in where.items()))
        content = {name: connection.execute(one).mappings().one()[name] for name in what}
        connection.execute(update(rows).values(content))
        for row in connection.execute(select(rows)).mappings().all():
            its = [rows.c[key.name] == row[key.name] for key in rows.primary_key]
            connection.execute(update(rows).where(*its).values(seal=Seal().on(rows, row)))
        connection.commit()


VALUE = ("type", "head", "body", "payload")


@pytest.mark.parametrize("size", [1, 500], ids=["short", "long"])
def test_a_value_is_that_of_its_channel(database: Database, size: int) -> None:
    at = put(database, config(), limit="low" * size, name="high" * size)
    move(database, blobs, VALUE, channel="name")
    with pytest.raises(Unreadable, match="another place"):
        values(database, at)


def test_a_value_is_that_of_its_thread(database: Database) -> None:
    put(database, config("t1"), name="ann")
    at = put(database, config("t2"), name="bob")
    move(database, blobs, VALUE, thread="t1")
    assert values(database, config("t1")) == {"name": "ann"}
    with pytest.raises(Unreadable, match="another place"):
        values(database, at)


def test_a_piece_of_what_grows_is_that_of_its_version(database: Database) -> None:
    at, log = config(), ["x" * 300]
    for entry in ("yes", "no"):
        at = put(database, at, log=log)
        log = [*log, entry]
    at = put(database, at, log=log)
    with database.connect() as connection:
        pieces = connection.execute(select(blobs).order_by(blobs.c.version)).mappings().all()
    assert [row["base"] is None for row in pieces].count(True) == 1
    with database.connect() as connection:
        (yes, no) = [row for row in pieces if row["base"] is not None]
        for row, other in ((yes, no), (no, yes)):
            new = {**row, "body": other["body"]}
            its = (blobs.c.version == row["version"]) & (blobs.c.channel == "log")
            new["seal"] = Seal().on(blobs, new)
            connection.execute(update(blobs).where(its).values(body=new["body"], seal=new["seal"]))
        connection.commit()
    with pytest.raises(Unreadable, match="another place"):
        values(database, at)


def test_a_write_is_that_of_its_task(database: Database) -> None:
    at = put(database, config(), x=0)
    for task in ("one", "two"):
        database.saver.put_writes(at, [("a", task), ("b", 1)], task)
    for what in (VALUE, ("more",)):
        move(database, writes, what, task="one")
        with pytest.raises(Unreadable, match="another place"):
            database.saver.get_tuple(at)


@pytest.mark.parametrize("what", [("type", "body"), ("metadata_type", "metadata")])
def test_a_checkpoint_is_that_of_its_id(database: Database, what: tuple[str, ...]) -> None:
    at = put(database, config(), x=1)
    last = put(database, at, x=2)
    move(database, checkpoints, what, id=at["configurable"]["checkpoint_id"])
    with pytest.raises(Unreadable, match="another place"):
        database.saver.get_tuple(last)


def test_an_item_is_that_of_its_key(database: Database) -> None:
    database.store.put(("people",), "ann", {"may": "all"})
    database.store.put(("people",), "bob", {"may": "nothing"})
    with database.connect() as connection:
        bodies = list(connection.scalars(select(items.c.body)))
        connection.execute(update(items).values(body=bodies[0]))
        connection.commit()
    with pytest.raises(Unreadable, match="another place"):
        [database.store.get(("people",), name) for name in ("ann", "bob")]


def test_what_is_tied_does_not_pass_for_what_earlier_versions_wrote(database: Database) -> None:
    at = put(database, config(), name=b"bytes are whatever they are")
    with database.connect() as connection:
        row = connection.execute(select(blobs)).mappings().one()
        new = {**row, "type": row["type"].replace("/", "+")}
        seal = Seal().on(blobs, new)
        connection.execute(update(blobs).values(type=new["type"], seal=seal))
        connection.commit()
    with pytest.raises(Unreadable, match="another place"):
        values(database, at)


def test_a_copied_thread_is_encrypted_anew_for_its_new_name(database: Database) -> None:
    at = put(database, config(), name="x" * 1_000, short="y", number=1)
    database.saver.put_writes(at, [("a", "x" * 1_000), ("b", 1)], "task")
    database.saver.copy_thread("t1", "t2")
    database.saver.delete_thread("t1")
    copied = database.saver.get_tuple(config("t2"))
    assert copied is not None
    assert copied.checkpoint["channel_values"] == {"name": "x" * 1_000, "short": "y", "number": 1}
    assert copied.pending_writes == [("task", "a", "x" * 1_000), ("task", "b", 1)]


def test_a_changed_thread_is_not_copied(url: str) -> None:
    """A new seal on what was changed would say that it was written so."""
    with Database(url) as database:
        put(database, config(), name="x" * 1_000)
        with database.connect() as connection:
            connection.execute(update(payloads).values(body=b"\xa7changed"))
            connection.commit()
        with pytest.raises(Unreadable):
            database.saver.copy_thread("t1", "t2")
        assert list(database.saver.list(config("t2"))) == []


def test_a_place_is_authenticated_with_what_is_in_it() -> None:
    cipher = aes().cipher
    kind, data = tie(cipher, ("msgpack", b"value"), ("blobs", "t1", 1))
    assert kind == "msgpack/aes"
    assert untie(cipher, (kind, data), ("blobs", "t1", 1)) == ("msgpack", b"value")
    for place in (("blobs", "t1", 2), ("blobs", "t", "11"), ("blobs", "t1", True)):
        with pytest.raises(Unreadable):
            untie(cipher, (kind, data), place)
    for other in ("bytes/aes", "msgpack/des", "msgpack+aes", "msgpack"):
        with pytest.raises(Unreadable):
            untie(cipher, (other, data), ("blobs", "t1", 1))


def test_what_an_earlier_version_encrypted_is_read_and_goes_on(url: str) -> None:
    kept = json.loads(EARLIER.read_text())
    engine = connect(Address.of(url, prefix="earlier_"))
    with writing(engine) as connection, connection.begin():
        migrate(connection, kept["version"])
        for title, rows in kept["tables"].items():
            given = [{k: given_(v) for k, v in row.items()} for row in rows]
            connection.execute(insert(table(title, *map(column, rows[0]))), given)
    engine.dispose()
    with Database(url, table_prefix="earlier_", cipher=aes()) as database:
        found = database.saver.get_tuple(config())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"log": [PRIVATE] * 20, "raw": b"bytes"}
        assert found.pending_writes == [("task", "log", PRIVATE), ("task", "count", 1)]
        item = database.store.get(("people",), "ann")
        assert item is not None
        assert item.value == {"name": PRIVATE}
        log: Any = {**empty_checkpoint(), "channel_values": {"log": [PRIVATE] * 21}}
        log["channel_versions"] = {"log": "2"}
        database.saver.put(found.config, log, {"source": "loop"}, {"log": "2"})
        assert values(database, config()) == {"log": [PRIVATE] * 21}


def given_(value: Any) -> Any:
    return base64.b64decode(value[0]) if isinstance(value, list) else value
