"""SQLAlchemy's engine for a URL: what is committed survives, nothing is cut short."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kapelle.checkpoints.borrowing import Connect, HasEngine, as_awaited, of_sqlite
from kapelle.checkpoints.handshake import hasten
from kapelle.state.errors import DatabaseMissing, Misbuilt

PREFIX = "kapelle_"
"""What the names of all tables, indexes and constraints begin with, if nothing else is said."""

PREPARED = "kapelle_prepared"
"""Where a connection that is ours alone keeps the statements PostgreSQL knows."""

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+aiosqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
    "postgresql+psycopg_async": "postgresql+psycopg",
    "postgresql+psycopg2": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgres+asyncpg": "postgresql+psycopg",
    "postgres+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+aiomysql": "mysql+pymysql",
    "mysql+asyncmy": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+aiomysql": "mariadb+pymysql",
    "mariadb+asyncmy": "mariadb+pymysql",
}
"""Who talks to a database if nobody is named, or one that does not talk to us."""

SPOKEN = {
    "sqlite": "pysqlite",
    "postgresql": "psycopg",
    "mysql": "pymysql",
    "mariadb": "pymysql",
}
"""Who talks to a kind of database: one driver each, which is tested."""

ASYNCPG = {
    "ssl": "sslmode",
    "timeout": "connect_timeout",
    "command_timeout": None,
    "prepared_statement_cache_size": None,
    "prepared_statement_name_func": None,
    "statement_cache_size": None,
    "max_cached_statement_lifetime": None,
    "max_cacheable_statement_size": None,
}
"""Settings of asyncpg's in a URL, as psycopg knows them; None: it has no such thing."""

OPENINGS = frozenset(("cache", "immutable", "mode", "nolock", "psow", "uri", "vfs"))
"""What a URL of SQLite's may say of how its file is opened, which is ours to say."""

EXTRAS = {"psycopg": "postgres", "pymysql": "mariadb"}
"""Which extra of the package brings a driver."""


Place = str | URL | Engine | HasEngine
"""A URL, the path of an SQLite file, or an engine."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the tables are."""

    url: URL
    engine: Engine | None = None
    """An engine whose connections are used, if it is not ours."""
    connect: Connect | None = None
    """How to connect, if the URL does not say it all."""
    schema: str | None = None
    """The PostgreSQL schema, made if it is not there."""
    prefix: str = PREFIX
    create: bool = True
    """Whether an SQLite file is made if it is not there."""

    @classmethod
    def of(cls, place: Place, **more: Any) -> "Address":
        """Where a URL, a path or an engine leads; `Misbuilt` if that is nowhere.

        An engine of a server is used as it is; an async one says how it connects; of one of
        SQLite's, which needs settings of its own, the file is used.
        """
        if isinstance(place, str | URL):
            return checked(cls(url=parse(place), **more))
        engine = place if isinstance(place, Engine) else place.sync_engine
        if engine.dialect.name == "sqlite":
            of_sqlite(engine)
            return checked(cls(url=parse(engine.url), **more))
        if isinstance(place, Engine):
            return checked(cls(url=_spoken(place.url), engine=place, **more))
        return checked(cls(url=parse(engine.url), connect=as_awaited(engine), **more))


def parse(url: str | URL) -> URL:
    """A URL with a driver that is there, or the path of an SQLite file."""
    if isinstance(url, str) and "://" not in url:
        return _spoken(URL.create("sqlite+pysqlite", database=url))
    try:
        parsed = make_url(url)
        if parsed.drivername.endswith("+asyncpg"):
            parsed = parsed.set(query=_for_psycopg(parsed.query))
        parsed = _spoken(parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername)))
        parsed.get_dialect().import_dbapi()
        parsed.get_dialect()().create_connect_args(parsed)
    except (ArgumentError, ValueError) as error:
        raise Misbuilt(f"{url!r} is no database URL; try sqlite:///kapelle.db") from error
    except ImportError as error:
        extra = EXTRAS.get(error.name or "")
        package = f"'kapelle[{extra}]'" if extra else error.name
        raise Misbuilt(f"the driver is missing: pip install {package}") from error
    return parsed


def _spoken(url: URL) -> URL:
    """`url` itself if its driver is one that is tested; `Misbuilt` says what to write instead."""
    kind, _, driver = url.drivername.partition("+")
    if kind not in SPOKEN:
        kinds = ", ".join(f"{kind}://" for kind in SPOKEN)
        raise Misbuilt(f"{kind}:// is no database that Kapelle knows; it knows {kinds}")
    if driver and driver != SPOKEN[kind]:
        raise Misbuilt(f"{url.drivername}: {SPOKEN[kind]} is who talks to it; write {kind}://…")
    if kind == "sqlite":
        _is_path(url)
    elif kind != "postgresql" and not url.database:
        raise Misbuilt(f"{shown(url)} names no database; write {kind}://…/NAME")
    return url


def _is_path(url: URL) -> None:
    """Raise `Misbuilt` unless a URL of SQLite's says the path of a file, and not how to open it."""
    if url.host:
        raise Misbuilt(f"sqlite:// takes three slashes: write sqlite:///{url.host}")
    said = sorted(OPENINGS & url.query.keys())
    if said or (url.database or "").startswith("file:"):
        what = ", ".join(f"{name}=" for name in said) or "file:"
        raise Misbuilt(
            f"{what} can't be said of an SQLite file: Kapelle opens it to read and to write, in a "
            "way that survives a crash; write sqlite:///PATH, and copy what must not be written to"
        )


def _for_psycopg(query: Mapping[str, Any]) -> dict[str, Any]:
    """What stands behind the ? of a URL for asyncpg, in psycopg's words."""
    renamed = {ASYNCPG.get(name, name): value for name, value in query.items()}
    return {name: value for name, value in renamed.items() if name is not None}


def shown(url: URL) -> str:
    """A URL as people know it: without its password; the path of an SQLite file.

    >>> shown(parse("kapelle.db")), shown(make_url("postgresql://ann:secret@host/runs"))
    ('kapelle.db', 'postgresql://ann:***@host/runs')
    """
    sqlite = url.get_backend_name() == "sqlite"
    return url.database if sqlite and url.database else url.render_as_string(hide_password=True)


def identifier(what: str, value: str) -> str:
    """`value` itself if it may stand in a statement as it is, else `Misbuilt`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", value) or PREFIX in value[1:]:
        raise Misbuilt(f"{what} {value!r}: a letter, then letters, digits and _, 31 at most")
    return value


def checked(address: Address) -> Address:
    """An address whose names may stand in statements; `Misbuilt` if they may not."""
    if address.prefix != PREFIX:
        identifier("table_prefix", address.prefix)
    if address.schema is not None:
        identifier("schema", address.schema)
        if address.url.get_backend_name() != "postgresql":
            raise Misbuilt("schema= is PostgreSQL's; elsewhere the URL names the database")
    return address


def connect(address: Address) -> Engine:
    """An engine; `DatabaseMissing` if the file must be there and isn't."""
    if address.url.get_backend_name() == "sqlite":
        engine = _sqlite(address)
    elif address.url.get_backend_name() == "postgresql":
        engine = _server(address)
        event.listen(engine, "engine_connect", lambda c: _set_up_postgresql(c, address.schema))
        if address.engine is None:
            event.listen(engine, "connect", _prepare_ourselves)
    else:
        engine = _mysql(address)
        event.listen(engine, "engine_connect", _set_up_mysql)
    engine = engine.execution_options(kapelle_prefix=address.prefix)
    if address.prefix != PREFIX:
        event.listen(engine, "before_cursor_execute", _renaming(address.prefix), retval=True)
    return engine


def writing(engine: Engine) -> Connection:
    """A connection that writes: it sees what others have committed meanwhile."""
    if engine.dialect.name == "sqlite":
        return engine.connect().execution_options(kapelle_writes=True)
    connection = engine.connect().execution_options(isolation_level="READ COMMITTED")
    if engine.dialect.name == "postgresql" and PREPARED not in connection.info:
        _prepare_ourselves(connection.connection.driver_connection, connection)
    return connection


def _prepare_ourselves(driver: Any, known: Any) -> None:
    """Statements are prepared as `libpq` says: psycopg, which forgets all in a rollback, must not.

    Each is planned once, for any values: PostgreSQL takes one it has no statistics of, as of a new
    tenant, for a value that no row has, and reads all rows of the tenant for each that it finds.
    And by an index: a table without statistics it takes for one that is soon read as a whole.
    A connection that others look with as well is left as it is.
    """
    driver.prepare_threshold = None
    if driver.info.server_version >= 120000:  # older ones are refused as soon as they are looked at
        driver.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
    driver.commit()
    known.info[PREPARED] = {}


def _server(address: Address) -> Engine:
    """Reading sees one moment, however many statements it takes."""
    if address.engine is not None:
        return address.engine.execution_options(isolation_level="REPEATABLE READ")
    how = {} if address.connect is None else {"creator": address.connect}
    engine = create_engine(
        address.url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=20,
        isolation_level="REPEATABLE READ",
        **how,
    )
    hasten(engine)
    return engine


def _set_up_postgresql(connection: Connection, schema: str | None) -> None:
    """Names without a schema are those of ours."""
    if schema is not None and _is_new(connection):
        _run_once(connection, f'SET search_path TO "{schema}"')


def _mysql(address: Address) -> Engine:
    """MySQL, or MariaDB where the server says that it is that; in any case with all of Unicode."""
    if address.engine is not None:
        return _server(address)
    url = address.url.update_query_dict({"charset": "utf8mb4"})
    engine = _server(replace(address, url=url))
    try:
        with engine.connect():
            is_mariadb = getattr(engine.dialect, "is_mariadb", False)
    except TypeError as error:
        raise Misbuilt(f"{shown(url)} says what the driver does not know: {error}") from error
    if engine.dialect.name == "mariadb" or not is_mariadb:
        return engine
    engine.dispose()
    url = url.set(drivername=url.drivername.replace("mysql", "mariadb", 1))
    return _server(replace(address, url=url))


def _set_up_mysql(connection: Connection) -> None:
    """Nothing is cut short in silence: no value, and no value of a thousand parts."""
    if not _is_new(connection):
        return
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    parts = "max_recursive_iterations" if is_mariadb else "cte_max_recursion_depth"
    _run_once(connection, "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    if (connection.dialect.server_version_info or ()) >= (8,):  # older ones are refused
        _run_once(connection, f"SET SESSION {parts} = 4294967295")


def _is_new(connection: Connection) -> bool:
    """Whether this is the first use of the driver's connection behind one of SQLAlchemy's."""
    known = bool(connection.info.get("kapelle"))
    connection.info["kapelle"] = True
    return not known


def _run_once(connection: Connection, setting: str) -> None:
    driver = connection.connection
    cursor = driver.cursor()
    cursor.execute(setting)
    cursor.close()
    driver.commit()


def _sqlite(address: Address) -> Engine:
    if not address.create and not Path(address.url.database or "").is_file():
        raise DatabaseMissing(url=shown(address.url))
    engine = create_engine(
        address.url,
        connect_args={"check_same_thread": False, "timeout": 30},
        pool_size=5,
        max_overflow=20,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see `_begin`
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("kapelle_writes", False)
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def _renaming(prefix: str) -> Callable[..., tuple[str, Any]]:
    """Puts another prefix into statements as they go out; what users give is not in them.

    A name in backticks before a dot is that of the database, as SQLAlchemy looks for tables.
    """
    ours = re.compile(PREFIX + r"(?!\w*`\.)")

    @lru_cache(1_000)
    def renamed(statement: str) -> str:
        return ours.sub(prefix, statement)

    def rename(*seen: Any) -> tuple[str, Any]:
        _, _, statement, parameters, *_ = seen
        return renamed(statement), parameters

    return rename
