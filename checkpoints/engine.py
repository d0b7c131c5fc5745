"""SQLAlchemy's engine for a URL, set so that what is committed survives a crash."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kapelle.state.errors import DatabaseMissing, Misbuilt

WRITES = {"kapelle_writes": True}
"""Execution options of a connection that writes."""

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


def connect(url: URL, *, create: bool) -> Engine:
    """An engine; `DatabaseMissing` if the file must be there and isn't."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, create=create)
    return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=20)


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
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
