"""A database that any earlier version made, with all that was in it, goes on with this one."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import (
    Connection,
    Inspector,
    column,
    func,
    insert,
    inspect,
    select,
    table,
    text,
)

from kapelle import Approval, Runs
from kapelle.checkpoints import Database
from kapelle.checkpoints.engine import Address, connect, writing
from kapelle.checkpoints.schema import HEAD, migrate
from kapelle.checkpoints.tables import HASH, metadata
from tests.checkpoints.kept import LONG, graph

pytestmark = pytest.mark.anyio

KEPT = {path.stem: path for path in sorted(Path(__file__).with_name("versions").glob("*.json"))}
"""What each version kept, in its own words; `kept.py` writes it."""


@pytest.fixture(params=KEPT)
def earlier(request: pytest.FixtureRequest, url: str) -> Database:
    """A database as a version left it, not opened yet."""
    version: str = request.param
    prefix = f"v{version}_{uuid4().hex[:8]}_"
    engine = connect(Address.of(url, prefix=prefix))
    with writing(engine) as connection, connection.begin():
        migrate(connection, version)
        fill(connection, prefix, json.loads(KEPT[version].read_text())["tables"])
    engine.dispose()
    return Database(url, table_prefix=prefix)


def fill(connection: Connection, prefix: str, kept: dict[str, list[dict[str, Any]]]) -> None:
    """Put rows in as they were."""
    for title, rows in kept.items():
        its = title.replace("kapelle_", prefix)
        there = {each["name"] for each in inspect(connection).get_columns(its)}
        for name in rows[0].keys() - there if rows else ():  # seals once came without a migration
            kind = HASH.compile(connection.dialect) + " DEFAULT '' NOT NULL"
            connection.execute(text(f"ALTER TABLE {its} ADD COLUMN {name} {kind}"))
        if rows:
            connection.execute(insert(table(title, *map(column, rows[0]))), [*map(given, rows)])
        if "seq" in there and title != "kapelle_marks":
            count_on(connection, its)


def given(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a driver takes it; leases of long ago are over."""
    row = {k: base64.b64decode(v[0]) if isinstance(v, list) else v for k, v in row.items()}
    return row | ({"lease_until": 0.0} if row.get("lease_until") else {})


def count_on(connection: Connection, title: str) -> None:
    """Have PostgreSQL count on from what is there, as the other two do by themselves."""
    if connection.dialect.name == "postgresql":
        highest = select(func.max(column("seq"))).select_from(table(title)).scalar_subquery()
        counter = func.pg_get_serial_sequence(title, "seq")
        connection.execute(select(func.setval(counter, highest)))


async def test_runs_that_an_earlier_version_left_come_to_their_end(earlier: Database) -> None:
    async with earlier as db:
        runs = Runs(db, {"graph": graph()})
        recovered = {run.thread: run for run in await runs.recover()}
        assert {thread: run.status for thread, run in recovered.items()} == {
            "killed": "done",
            "running": "done",
            "claimed": "done",
        }
        for thread, said in (("killed", "second"), ("running", "second"), ("claimed", "approve")):
            result = recovered[thread].result
            assert result is not None
            assert result.output == ["first", *LONG, said]
        (ask,) = await db.inbox.pending()
        assert (ask.thread, ask.question, ask.evidence) == ("waiting", "Pay?", {"amount": 100})
        run = await runs.answer(ask.id, Approval(decision="reject", by="ann"))
        assert run.status == "done"
        assert run.result is not None
        assert run.result.output == ["first", *LONG, "reject"]


async def test_what_an_earlier_version_kept_is_read_as_it_was(earlier: Database) -> None:
    at: Any = {"configurable": {"thread_id": "done", "checkpoint_ns": ""}}
    async with earlier as db:
        history = [each async for each in db.saver.alist(at)]
        logs = [each.checkpoint["channel_values"].get("log", []) for each in history]
        assert list(map(len, logs)) == [14, 14, 13, 0, 0]
        assert logs[0] == ["first", *LONG, "second"]
        assert (await db.runs.get("done")).status == "done"
        found = [each async for each in db.saver.alist(None, filter={"step": 1})]
        assert len(found) == 4
        assert "planned" in [event.what for event in await db.journal.read("done")]
        item = await db.store.aget(("people", "\u00e9"), "ann \x00")
        assert item is not None
        assert item.value == {"likes": LONG}
        assert [key for _, key in await in_doubt(db)] == ["in doubt"] * (version(db) >= "0002")
        spent = await db.ledger.spent("killed")
        assert spent.tokens == 150 * (version(db) >= "0003")
        assert [each.key for each in await db.ledger.held("killed")] == ["held"] * bool(
            spent.tokens
        )


async def in_doubt(db: Database) -> list[tuple[str, str]]:
    return [(thread, effect.key) for thread, effect in await db.effects.in_doubt()]


def version(db: Database) -> str:
    """The version whose rows a database was filled with."""
    with db.connect() as connection:
        return prefix_of(connection)[1:5]


def test_all_versions_are_tested_and_the_last_is_this_ones() -> None:
    versions = Path(connect.__code__.co_filename).parent.glob("migrations/versions/v0*.py")
    assert [path.name[1:5] for path in sorted(versions)] == list(KEPT)
    assert list(KEPT)[-1] == HEAD


@pytest.mark.parametrize("earlier", ["0001", "0003"], indirect=True)
def test_migrations_come_to_what_is_made_at_once(earlier: Database, url: str) -> None:
    with earlier, earlier.connect() as connection:
        prefix = prefix_of(connection)
        migrated = described(connection, prefix)
    with Database(url) as database, database.connect() as connection:
        assert described(connection, "kapelle_") == migrated


def prefix_of(connection: Connection) -> str:
    prefix: str = connection.get_execution_options()["kapelle_prefix"]
    return prefix


def described(connection: Connection, prefix: str) -> dict[str, set[str]]:
    """What the database says of each table: its columns, key, indexes, constraints, options."""
    seen = inspect(connection)
    return {
        table.name: {
            line.replace(prefix, "kapelle_")
            for line in details(seen, table.name.replace("kapelle_", prefix))
        }
        for table in metadata.sorted_tables
    }


def details(seen: Inspector, title: str) -> Iterator[str]:
    for each in seen.get_columns(title):
        collation = getattr(each["type"], "collation", None)
        counts = each.get("autoincrement") is True
        yield f"{each['name']} {each['type']} {each['nullable']} {collation} {counts}"
    yield f"key {seen.get_pk_constraint(title)['constrained_columns']}"
    for index in seen.get_indexes(title):
        yield f"{index['name']} {index['column_names']} {index['unique']}"
    for unique in seen.get_unique_constraints(title):
        yield f"{unique['name']} {unique['column_names']}"
    yield from (f"{k} {v}" for k, v in seen.get_table_options(title).items() if "engine" in k)
    if seen.dialect.name == "sqlite":
        made = select(column("sql")).select_from(table("sqlite_master"))
        (sql,) = seen.bind.execute(made.where(column("name") == title)).scalars()  # type: ignore[union-attr]
        yield from (word for word in ("WITHOUT ROWID", "AUTOINCREMENT") if word in sql)
