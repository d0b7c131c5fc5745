"""What makes a database safe to keep runs in, what of it holds here, and how to mend the rest.

The first connection refuses what is unsafe; `Database.doctor()` tells all.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import Connection, func, select

from kapelle.checkpoints.engine import PREFIX
from kapelle.checkpoints.schema import HEAD, version
from kapelle.checkpoints.tables import metadata
from kapelle.state.errors import DatabaseUnsafe

ROOM = 65_536
"""Bytes of a statement beside its largest value."""

SETTINGS = (
    "version",
    "sql_mode",
    "max_allowed_packet",
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "sync_binlog",
    "wsrep_on",
)
"""What MariaDB and MySQL are asked for."""


NEEDED = {"SQLite": (3, 24), "PostgreSQL": (12,), "MariaDB": (10, 3), "MySQL": (8, 0, 17)}
"""The oldest versions that have what is asked of them."""

PACKAGES = ("kapelle", "langgraph", "langgraph-checkpoint", "sqlalchemy")
DRIVERS = {"psycopg": ("psycopg",), "pymysql": ("pymysql",)}
"""Whose versions are told, by SQLAlchemy's name of the driver."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    safe: bool = True
    mend: str = ""
    """What to do if it is not safe."""


def refuse_unsafe(connection: Connection, *, max_bytes: int) -> None:
    """Raise `DatabaseUnsafe` unless the server's settings are safe, and names are told apart."""
    looked = settings(connection, max_bytes=max_bytes)
    if _is_mysql(connection):
        looked.append(_exact_names(connection))
    ill = [found for found in looked if not found.safe]
    if ill:
        why = "; ".join(f"{found.what} is {found.found}" for found in ill)
        raise DatabaseUnsafe(why=why, mend="; ".join(found.mend for found in ill))


def examine(connection: Connection, *, max_bytes: int, serde: SerializerProtocol) -> list[Finding]:
    """All that can be looked at without changing anything."""
    found = [
        Finding(what="versions", found=_versions(connection)),
        *settings(connection, max_bytes=max_bytes),
        _schema(connection),
        _serializer(serde),
    ]
    if connection.dialect.name == "sqlite":
        return [*found, _intact(connection)]
    return [*found, _exact_names(connection)] if _is_mysql(connection) else found


def settings(connection: Connection, *, max_bytes: int) -> list[Finding]:
    """What the server says of itself."""
    if connection.dialect.name == "sqlite":
        return list(_sqlite(connection))
    if _is_mysql(connection):
        return list(_mariadb(connection, max_bytes))
    return list(_postgresql(connection))


def _server(name: str, found: str, connection: Connection) -> Finding:
    """Whether what answers is new enough."""
    version = connection.dialect.server_version_info or ()
    mend = f"use {name} {'.'.join(map(str, NEEDED[name]))} or newer"
    return Finding(what=name, found=found, safe=version >= NEEDED[name], mend=mend)


def _sqlite(connection: Connection) -> Iterator[Finding]:
    yield _server("SQLite", str(connection.scalar(select(func.sqlite_version()))), connection)
    mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
    yield Finding(
        what="journal_mode",
        found=mode,
        safe=mode == "wal",
        mend="put the file on a local disk, where SQLite can use a write-ahead log",
    )
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    yield Finding(
        what="synchronous",
        found=str(synchronous),
        safe=synchronous in (2, 3),
        mend="let no other engine event set PRAGMA synchronous below FULL",
    )


def _postgresql(connection: Connection) -> Iterator[Finding]:
    def setting(name: str) -> str:
        return str(connection.scalar(select(func.current_setting(name))))

    yield _server("PostgreSQL", setting("server_version"), connection)
    encoding = setting("server_encoding")
    yield Finding(
        what="server_encoding",
        found=encoding,
        safe=encoding == "UTF8",
        mend="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
    )
    for name in ("fsync", "full_page_writes"):
        value = setting(name)
        mend = f"{name} = on in postgresql.conf"
        yield Finding(what=name, found=value, safe=value == "on", mend=mend)
    commits = setting("synchronous_commit")
    yield Finding(
        what="synchronous_commit",
        found=commits,
        safe=commits != "off",
        mend="ALTER DATABASE … SET synchronous_commit = on",
    )


def _mariadb(connection: Connection, max_bytes: int) -> Iterator[Finding]:
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    rows = connection.exec_driver_sql(f"SHOW VARIABLES WHERE Variable_name IN ({names})")
    value: dict[str, str] = {row[0]: row[1] for row in rows}
    name = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else "MySQL"
    yield _server(name, value["version"], connection)
    yield Finding(
        what="sql_mode",
        found=value["sql_mode"],
        safe="STRICT_ALL_TABLES" in value["sql_mode"],
        mend="let no other engine event change sql_mode",
    )
    needed = 2 * max_bytes + ROOM
    yield Finding(
        what="max_allowed_packet",
        found=value["max_allowed_packet"],
        safe=int(value["max_allowed_packet"]) >= needed,
        mend=f"SET GLOBAL max_allowed_packet = {needed}, or Database(…, max_bytes=) smaller",
    )
    flush = value["innodb_flush_log_at_trx_commit"]
    yield Finding(
        what="innodb_flush_log_at_trx_commit",
        found=flush,
        safe=flush == "1",
        mend="SET GLOBAL innodb_flush_log_at_trx_commit = 1",
    )
    double = value.get("innodb_doublewrite", "ON")
    yield Finding(
        what="innodb_doublewrite",
        found=double,
        safe=double.upper() in ("ON", "1"),
        mend="innodb_doublewrite = ON in the server's configuration",
    )
    yield Finding(what="sync_binlog", found=value.get("sync_binlog", "none"))
    galera = value.get("wsrep_on", "OFF")
    yield Finding(
        what="wsrep_on",
        found=galera,
        safe=galera.upper() in ("OFF", "0"),
        mend="use a single primary: Galera loses updates under concurrency",
    )


def _exact_names(connection: Connection) -> Finding:
    """Whether names that differ in case, accent or padding are told apart."""
    columns = connection.exec_driver_sql(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
    ).all()
    prefix = connection.get_execution_options()["kapelle_prefix"]
    ours = {table.name.replace(PREFIX, prefix) for table in metadata.sorted_tables}
    folding = [
        f"{table}.{column} {collation}"
        for table, column, collation in columns
        if table in ours and collation not in ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
    ]
    return Finding(
        what="collation",
        found=", ".join(folding) or "all names are told apart",
        safe=not folding,
        mend="ALTER TABLE … MODIFY those columns … COLLATE utf8mb4_nopad_bin",
    )


def _versions(connection: Connection) -> str:
    driver = DRIVERS.get(connection.dialect.driver, ())
    return ", ".join(f"{name} {installed(name)}" for name in (*PACKAGES, *driver))


def _schema(connection: Connection) -> Finding:
    found = version(connection)
    return Finding(
        what="schema",
        found="not set up yet" if found is None else f"{found} of {HEAD}",
        safe=found is None or found <= HEAD,
        mend="upgrade Kapelle: the database was made by a newer one",
    )


def _intact(connection: Connection) -> Finding:
    found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    mend = "restore a backup, or save what is left with the sqlite3 shell's .recover"
    return Finding(what="quick_check", found=found, safe=found == "ok", mend=mend)


def _serializer(serde: SerializerProtocol) -> Finding:
    """Whether a stored value can name what is to be imported and run."""
    call = ormsgpack.packb(("fractions", "Fraction", "1/2"))
    log = logging.getLogger(jsonplus.__name__)
    heard, log.disabled = log.disabled, True  # it would warn of what is meant to be refused
    try:
        loaded = serde.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(0, call))))
    except Exception as refusal:  # noqa: BLE001  # whatever keeps it out is good
        loaded = repr(refusal)
    finally:
        log.disabled = heard
    strict = isinstance(loaded, str)
    return Finding(
        what="serializer",
        found="strict" if strict else "imports whatever a row names",
        safe=strict,
        mend="let Database make the serializer; name types in Database(…, allow=[…])",
    )


def _is_mysql(connection: Connection) -> bool:
    return connection.dialect.name in ("mysql", "mariadb")
