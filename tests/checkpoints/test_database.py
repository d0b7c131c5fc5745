"""Opening: what is missing or newer is refused in one line, anything else is set up."""

import asyncio
import gc
import os
import re
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import QueuePool, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from kapelle.checkpoints import Database
from kapelle.checkpoints.engine import parse
from kapelle.checkpoints.saver import SqlSaver
from kapelle.state.errors import DatabaseFailed, DatabaseMissing, DatabaseNewer, Misbuilt

pytestmark = pytest.mark.anyio

ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
"""The async drivers that are installed for tests."""

NOWHERE: Any = {"configurable": {"thread_id": "t1"}}


def test_a_missing_database_is_not_made_where_it_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "absent.db"
    with (
        Database(str(path), create=False) as database,
        pytest.raises(DatabaseMissing, match=r"absent\.db"),
    ):
        database.saver.get_tuple(NOWHERE)
    assert not path.exists()


def test_a_path_is_a_url(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    with Database(str(path)) as database:
        assert database.saver.get_tuple(NOWHERE) is None
    assert path.is_file()


@pytest.mark.parametrize("prefix", ["", "x'; DROP TABLE runs; --", "Up_", "1_", "a" * 40])
def test_a_prefix_that_could_be_a_statement_is_refused(url: str, prefix: str) -> None:
    with pytest.raises(Misbuilt, match="table_prefix"):
        Database(url, table_prefix=prefix)


def test_a_schema_is_postgresqls(tmp_path: Path) -> None:
    with pytest.raises(Misbuilt, match="PostgreSQL"):
        Database(str(tmp_path / "x.db"), schema="own")


def test_an_engine_of_sqlites_gives_its_file(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'engine.db'}")
    with Database(engine) as database:
        assert database.saver.get_tuple(NOWHERE) is None
    assert (tmp_path / "engine.db").is_file()


async def test_a_saver_alone_is_opened_by_its_url(url: str) -> None:
    at: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    with SqlSaver.from_url(url) as saver:
        saver.put(at, empty_checkpoint(), {"source": "loop", "step": 7}, {})
    async with SqlSaver.from_url(url) as saver, SqlSaver.from_url(url, tenant="other") as other:
        found = await saver.aget_tuple(at)
        assert found is not None
        assert found.metadata["step"] == 7
        assert await other.aget_tuple(at) is None
    with pytest.raises(DatabaseFailed, match="closed"):
        saver.delete_thread("t1")


async def test_it_stands_on_an_engine_that_is_there(url: str) -> None:
    at: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    engine = create_engine(url)
    async with Database(engine) as database:
        await database.saver.aput(at, empty_checkpoint(), {"source": "loop", "step": 7}, {})
    with engine.connect() as still:
        assert still.exec_driver_sql("SELECT count(*) FROM kapelle_checkpoints").scalar() == 1
    engine.dispose()


async def test_an_engine_that_is_there_gets_the_connections_back_that_looked(url: str) -> None:
    engine = create_engine(url)
    async with Database(engine) as database:
        looks = (database.inbox.pending() for _ in range(8))
        assert await asyncio.gather(*looks) == [[]] * 8
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.checkedout() == 0
    engine.dispose()


async def test_it_stands_on_an_async_engine_that_is_there(url: str) -> None:
    at: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    if (driver := ASYNC.get(make_url(url).get_backend_name())) is None:
        pytest.skip("no async driver for it is installed")
    engine = create_async_engine(make_url(url).set(drivername=driver))
    async with Database(engine) as database, Database(url) as other:
        await database.saver.aput(at, empty_checkpoint(), {"source": "loop", "step": 7}, {})
        found = await other.saver.aget_tuple(at)
        assert found is not None
        assert found.metadata["step"] == 7
    await engine.dispose()


@pytest.mark.parametrize(
    "driver",
    [
        "sqlite+aiosqlite",
        "postgresql+asyncpg",
        "postgresql+psycopg_async",
        "postgresql+psycopg2",
        "postgres",
        "postgres+asyncpg",
        "mysql+aiomysql",
        "mysql+asyncmy",
        "mariadb+aiomysql",
        "mariadb+asyncmy",
    ],
)
def test_a_url_for_another_driver_is_as_good(url: str, driver: str) -> None:
    there, family = make_url(url), {"mysql": "mariadb", "postgres": "postgresql"}
    named = driver.partition("+")[0]
    if family.get(named, named) != family.get(there.get_backend_name(), there.get_backend_name()):
        pytest.skip("the URL of another server")
    asked = there.set(drivername=driver).render_as_string(hide_password=False)
    with Database(asked) as database, database.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_what_a_url_tells_asyncpg_is_told_to_psycopg() -> None:
    url = "postgresql+asyncpg://ann:secret@host/runs?ssl=require&prepared_statement_cache_size=0"
    parsed = parse(url)
    assert parsed.render_as_string(hide_password=False) == (
        "postgresql+psycopg://ann:secret@host/runs?sslmode=require"
    )


def test_an_async_engine_connects_as_it_was_told(url: str) -> None:
    if make_url(url).get_backend_name() != "postgresql":
        pytest.skip("psycopg is PostgreSQL's")
    heard: list[str] = []
    told = make_url(url).set(username="nobody", drivername="postgresql+psycopg")
    engine = create_async_engine(told, connect_args={"application_name": "mine"})

    @event.listens_for(engine.sync_engine, "do_connect")
    def token(_dialect: Any, _record: Any, _given: Any, named: Any) -> None:
        heard.append(named["user"])
        named["user"] = make_url(url).username

    with Database(engine) as database, database.connect() as connection:
        asked = "SELECT current_user, current_setting('application_name')"
        assert tuple(connection.exec_driver_sql(asked).one()) == (make_url(url).username, "mine")
    assert set(heard) == {"nobody"}


def test_an_async_engine_whose_way_to_connect_is_its_own_is_refused() -> None:
    async def connect() -> Any:
        raise NotImplementedError

    engine = create_async_engine("postgresql+psycopg://localhost/x", async_creator=connect)
    with pytest.raises(Misbuilt, match=r"async_creator .* create_engine"):
        Database(engine)


def test_an_sqlite_engine_without_a_file_is_refused() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(Misbuilt, match="path of a file"):
        Database(engine)
    with pytest.raises(Misbuilt, match="path of a file"):
        Database(create_async_engine("sqlite+aiosqlite://"))


def test_a_driver_that_is_not_there_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Misbuilt, match=r"pip install 'kapelle\[postgres\]'"):
        Database("postgresql://localhost/x")


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+pg8000://localhost/x", "psycopg is who talks to it; write postgresql://"),
        ("mysql+mysqldb://localhost/x", "pymysql is who talks to it; write mysql://"),
        ("mariadb+mariadbconnector://localhost/x", "write mariadb://"),
        ("sqlite+pysqlcipher:///x.db", "write sqlite://"),
        ("oracle://localhost/x", "knows sqlite://, postgresql://, mysql://, mariadb://"),
        ("sqlite://x.db", "write sqlite:///x.db"),
        ("sqlite:///x.db?mode=ro", "mode= can't be said of an SQLite file"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "opens it to read and to write"),
        ("file:x.db?mode=ro", "write sqlite:///PATH"),
        ("sqlite:///x.db?timeout=soon", "is no database URL"),
        ("mysql://localhost", "write mysql://…/NAME"),
    ],
)
def test_a_url_that_would_not_be_followed_is_refused_with_what_to_write(
    url: str, instead: str
) -> None:
    with pytest.raises(Misbuilt, match=re.escape(instead)) as refusal:
        Database(url)
    assert "\n" not in str(refusal.value)


def test_an_engine_that_only_reads_a_file_is_refused(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///file:{tmp_path / 'x.db'}?mode=ro&uri=true")
    with pytest.raises(Misbuilt, match="opens it to read and to write"):
        Database(engine)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_an_untested_driver_is_refused() -> None:
    engine = create_engine("mysql+pymysql://localhost/x")
    engine.url = engine.url.set(drivername="mysql+mysqldb")
    with pytest.raises(Misbuilt, match="write mysql://"):
        Database(engine)


def test_what_cannot_be_reached_is_one_line_of_ours(tmp_path: Path) -> None:
    with Database(str(tmp_path / "no" / "such.db")) as database:
        with pytest.raises(DatabaseFailed, match="unable to open"):
            database.saver.get_tuple(NOWHERE)
        with pytest.raises(DatabaseFailed, match="unable to open"):
            database.connect()


def test_a_setting_the_driver_does_not_know_is_one_line_of_ours() -> None:
    url = make_url(os.environ.get("KAPELLE_TEST_MARIADB") or pytest.skip("no server"))
    with (
        Database(url.update_query_dict({"nonsense": "1"})) as database,
        pytest.raises(Misbuilt, match="nonsense"),
    ):
        database.saver.get_tuple(NOWHERE)


def test_nonsense_is_no_database() -> None:
    with pytest.raises(Misbuilt, match="no database that Kapelle knows"):
        Database("nonsense://kapelle")


def test_a_newer_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    with Database(str(path)) as database:
        database.saver.get_tuple(NOWHERE)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE kapelle_version SET version_num = '9999'")
    with Database(str(path)) as database, pytest.raises(DatabaseNewer) as refusal:
        database.saver.get_tuple(NOWHERE)
    assert "9999" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("I am a text" * 1000)
    with Database(str(path)) as database, pytest.raises(DatabaseFailed, match="not a database"):
        database.saver.get_tuple(NOWHERE)
    assert path.read_text() == "I am a text" * 1000


def test_many_may_make_the_same_new_database_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "shared.db")
    found: list[object] = []

    def use() -> None:
        with Database(path) as database:
            found.append(database.saver.get_tuple(NOWHERE))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 8


def test_a_passing_database_is_gone_when_closed() -> None:
    with Database("sqlite://") as database:
        assert database.saver.get_tuple(NOWHERE) is None
        path = Path(database.url.removeprefix("sqlite+pysqlite:///"))
        assert path.is_file()
    assert not path.exists()


def test_a_closed_database_says_so(url: str) -> None:
    database = Database(url)
    database.close()
    database.close()
    with pytest.raises(DatabaseFailed, match="closed"):
        database.saver.delete_thread("t1")


def test_a_database_lasts_as_long_as_anything_of_it_is_used(url: str) -> None:
    saver = Database(url).saver
    gc.collect()
    assert saver.get_tuple(NOWHERE) is None
    saver.delete_thread("t1")
    assert [t for t in threading.enumerate() if t.name.startswith("kapelle-desk")]
    del saver
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name.startswith("kapelle-desk")]


def test_services_keep_the_journal_in_the_database(database: Database) -> None:
    assert database.services().journal is database.journal


def test_commits_are_synced_to_disk(tmp_path: Path) -> None:
    with Database(str(tmp_path / "a.db")) as database:
        database.saver.get_tuple(NOWHERE)
        with database.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
