"""SQLAlchemy's engine for a URL, set so that what is committed survives a crash."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kapelle.state.errors import DatabaseMissing, Misbuilt

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


def parse(url: str) -> URL:
    """A URL, or the path of an SQLite file."""
    if "://" not in url:
        return URL.create("sqlite+pysqlite", database=url)
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        parsed.get_dialect()
    except (ArgumentError, ValueError) as error:
        raise Misbuilt(f"{url!r} is no database URL; try sqlite:///kapelle.db") from error
    return parsed


def writing(engine: Engine) -> Connection:
    """A connection that writes: it sees what others have committed meanwhile."""
    if engine.dialect.name == "sqlite":
        return engine.connect().execution_options(kapelle_writes=True)
    return engine.connect().execution_options(isolation_level="READ COMMITTED")


def connect(url: URL, *, create: bool) -> Engine:
    """An engine; `DatabaseMissing` if the file must be there and isn't."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, create=create)
    return _mariadb(url) if url.get_backend_name() == "mysql" else _server(url)


def _unbounded(connection: Any, _record: Any) -> None:
    """What grew in a thousand steps is put together of a thousand rows."""
    server = connection.get_server_info()
    limit = "max_recursive_iterations" if "MariaDB" in server else "cte_max_recursion_depth"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {limit} = 4294967295")


def _server(url: URL) -> Engine:
    """Reading sees one moment, however many statements it takes."""
    engine = create_engine(
        url, pool_pre_ping=True, pool_size=5, max_overflow=20, isolation_level="REPEATABLE READ"
    )
    if url.get_backend_name() in ("mysql", "mariadb"):
        event.listen(engine, "connect", _unbounded)
    return engine


def _mariadb(url: URL) -> Engine:
    """MySQL, or MariaDB where the server says that it is that."""
    engine = _server(url)
    with engine.connect():
        is_mariadb = getattr(engine.dialect, "is_mariadb", False)
    if not is_mariadb:
        return engine
    engine.dispose()
    return _server(url.set(drivername=url.drivername.replace("mysql", "mariadb", 1)))


def _sqlite(url: URL, *, create: bool) -> Engine:
    if not create and not Path(url.database or "").is_file():
        raise DatabaseMissing(url=url.render_as_string())
    engine = create_engine(
        url, connect_args={"check_same_thread": False, "timeout": 30}, pool_size=5, max_overflow=20
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see `_begin`
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("kapelle_writes", False)
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")
