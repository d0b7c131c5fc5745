"""The doctor: what is unsafe is refused with the mend, what is safe is told."""

import os
from typing import Any
from uuid import uuid4

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import create_engine, event, text

from kapelle.checkpoints import Database
from kapelle.checkpoints.doctor import examine, refuse_unsafe
from kapelle.checkpoints.schema import HEAD
from kapelle.checkpoints.tables import metadata
from kapelle.state.errors import DatabaseUnsafe

pytestmark = pytest.mark.anyio

NOWHERE: Any = {"configurable": {"thread_id": "t1"}}


def server(variable: str) -> str:
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set")
    return url


async def test_a_safe_database_is_told_to_be(database: Database) -> None:
    assert await database.upgrade() == HEAD
    findings = await database.doctor()
    assert [found.what for found in findings if not found.safe] == []
    by_name = {found.what: found.found for found in findings}
    assert by_name["serializer"] == "strict"
    assert by_name["schema"] == f"{HEAD} of {HEAD}"


def test_a_permissive_serializer_is_found(database: Database) -> None:
    with database.connect() as connection:
        permissive = JsonPlusSerializer(allowed_msgpack_modules=True)
        findings = examine(connection, max_bytes=1, serde=permissive)
    assert [found.what for found in findings if not found.safe] == ["serializer"]


def test_values_larger_than_a_packet_are_refused_at_the_start() -> None:
    url = server("KAPELLE_TEST_MARIADB")
    with (
        Database(url, max_bytes=500_000_000) as database,
        pytest.raises(DatabaseUnsafe, match="SET GLOBAL max_allowed_packet"),
    ):
        database.saver.get_tuple(NOWHERE)


def test_a_server_that_is_too_old_is_refused_with_the_version_it_takes(database: Database) -> None:
    with database.connect() as connection:
        refuse_unsafe(connection, max_bytes=1)
        connection.dialect.server_version_info = (3, 23, 1)
        with pytest.raises(DatabaseUnsafe, match=r": use \w+ (3\.24|12|10\.3|8\.0\.17) or newer"):
            refuse_unsafe(connection, max_bytes=1)


def test_commits_that_may_be_lost_are_refused() -> None:
    url = server("KAPELLE_TEST_POSTGRES")
    engine = create_engine(url, connect_args={"options": "-csynchronous_commit=off"})
    with (
        Database(engine) as database,
        pytest.raises(DatabaseUnsafe, match="synchronous_commit is off"),
    ):
        database.saver.get_tuple(NOWHERE)
    engine.dispose()


def test_values_that_could_be_cut_short_are_refused() -> None:
    """Where the server, the URL and the schema say latin1 and lenient, ours say otherwise."""
    name = f"kapelle_latin_{uuid4().hex[:12]}"
    engine = create_engine(server("KAPELLE_TEST_MARIADB"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} CHARACTER SET latin1"))
    try:
        latin = engine.url.set(database=name).update_query_dict({"charset": "latin1"})
        with Database(latin.update_query_dict({"sql_mode": "ANSI"})) as database:
            put = database.saver.put_writes
            for thread in ("thread", "Thread", "thread ", "thréad", "thr\U0001f600ad"):
                at: Any = {"configurable": {"thread_id": thread, "checkpoint_id": "c"}}
                put(at, [("channel", thread)], "task")
            with database.connect() as seen:
                count = seen.exec_driver_sql("SELECT count(*) FROM kapelle_writes").scalar()
                mode = seen.exec_driver_sql("SELECT @@sql_mode").scalar()
            assert count == 5
            assert "STRICT_ALL_TABLES" in str(mode)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))
        engine.dispose()


async def test_names_that_would_be_folded_are_found_and_refused() -> None:
    url = server("KAPELLE_TEST_MARIADB")
    with Database(url, table_prefix="folded_") as database:
        with database.connect() as connection:
            connection.exec_driver_sql(
                "ALTER TABLE folded_runs MODIFY holder varchar(128) COLLATE utf8mb4_general_ci"
            )
        (ill,) = [found for found in await database.doctor() if not found.safe]
        assert ill.what == "collation"
        assert "folded_runs.holder" in ill.found
        with Database(url, table_prefix="folded_") as other, pytest.raises(DatabaseUnsafe) as no:
            other.saver.get_tuple({"configurable": {"thread_id": "t1"}})
        assert "folded_runs.holder" in str(no.value)
        drop_all(database, "folded_")


async def test_names_of_tables_begin_as_one_likes(url: str) -> None:
    async with Database(url) as usual, Database(url, table_prefix="other_") as other:
        at: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c"}}
        await other.saver.aput_writes(at, [("channel", 1)], "task")
        await usual.saver.aget_tuple(at)
        with other.connect() as connection:
            count = connection.exec_driver_sql("SELECT count(*) FROM other_writes").scalar()
        assert count == 1
        assert all(found.safe for found in await other.doctor())
        drop_all(other, "other_")


async def test_a_schema_of_its_own_and_an_engine_of_ones_own() -> None:
    engine = create_engine(server("KAPELLE_TEST_POSTGRES"))
    used: list[object] = []
    event.listen(engine, "checkout", lambda *_: used.append(1))
    async with Database(engine, schema="kapelle_own") as database:
        database.journal.record([])
        assert await database.inbox.pending() == []
        with database.connect() as connection:
            where = connection.exec_driver_sql("SELECT current_schema()").scalar()
        assert where == "kapelle_own"
    assert used
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA kapelle_own CASCADE"))
    engine.dispose()


def drop_all(database: Database, prefix: str) -> None:
    """Drop the tables of a prefix."""
    names = [table.name for table in metadata.sorted_tables] + ["kapelle_version"]
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.exec_driver_sql("DROP TABLE " + name.replace("kapelle_", prefix))
