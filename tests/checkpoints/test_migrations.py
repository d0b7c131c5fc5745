"""A database that any earlier version made, with all that was in it, goes on with this one."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    Connection,
    LargeBinary,
    column,
    create_engine,
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
from kapelle.checkpoints.tables import metadata
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
            kind = LargeBinary(32).compile(connection.dialect)
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
        prefix: str = connection.get_execution_options()["kapelle_prefix"]
    return prefix[1:5]


def test_all_versions_are_tested_and_the_last_is_this_ones() -> None:
    versions = Path(connect.__code__.co_filename).parent.glob("migrations/versions/v0*.py")
    assert [path.name[1:5] for path in sorted(versions)] == list(KEPT)
    assert list(KEPT)[-1] == HEAD


def test_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    with Database(url) as database, database.connect() as connection:
        opts = {"include_name": is_ours, "compare_type": False}  # Float(53) is read as DOUBLE
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return kind != "table" or (name or "") in metadata.tables


def test_tables_that_were_never_altered_are_made_word_for_word(tmp_path: Path) -> None:
    with Database(str(tmp_path / "migrated.db")) as database, database.connect() as connection:
        migrated = made(connection)
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        for title, lines in made(connection).items():
            if title in metadata.tables and "seal" not in metadata.tables[title].c:
                assert migrated[title] == lines


def made(connection: Connection) -> dict[str, set[str]]:
    """The lines of the statements that made the tables, in any order."""
    rows = connection.execute(
        select(column("name"), column("sql"))
        .select_from(table("sqlite_master"))
        .where(column("type") == "table")
    )
    return {name: {line.strip(" \t,") for line in sql.splitlines()} for name, sql in rows}
