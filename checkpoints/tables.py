"""The tables: one schema for all databases. The tenant is part of every key.

    checkpoints   one row a checkpoint; `seq` orders them, never an id or a clock
    blobs         one row a channel version, only where a step changed the channel
    writes        what tasks of a step wrote, before the step is folded into a checkpoint
    payloads      values too long to stand in the row itself, once per thread and content
    marks         the metadata index: a hash of key and value for each pair
    asks          interrupts of every thread, and their answers
    runs          one row a thread: what runs there, how it stands, who may advance it
    events        the journal
    effects       what agents did to the world, written before and after it is done
    accounts      the ledger: what is spent and reserved, one row for each envelope of a run
    spends        the ledger: reservations whose outcome is not known
    items         what the store keeps
    spaces        the namespaces of items, each with all that it lies under
    vectors       what of items can be searched by meaning

Names that are compared stand in columns without padding and folding; texts of models and values
stand in binary columns only. Change nothing here without a migration.
"""

from dataclasses import fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Constraint,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    column,
    literal_column,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from kapelle.checkpoints.clock import db_now
from kapelle.state.budget import Balance

metadata = MetaData()

DATA = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
"""Bytes of any length."""

HASH = LargeBinary(32).with_variant(mysql.VARBINARY(32), "mysql", "mariadb")
"""A SHA-256, or nothing."""

SEQ = BigInteger().with_variant(Integer(), "sqlite")
"""What the database counts up itself."""

TIME = Float(53)
"""Unix time in seconds, by the database's clock."""


def name(length: int) -> TypeEngine[str]:
    """Text of at most `length` characters that equals only itself, case, accent and padding."""
    return (
        String(length)
        .with_variant(mysql.VARCHAR(length, collation="utf8mb4_nopad_bin"), "mariadb")
        .with_variant(mysql.VARCHAR(length, collation="utf8mb4_0900_bin"), "mysql")
    )


def tenant() -> Column[str]:
    """The first column of every key."""
    return Column("tenant", name(64), primary_key=True)


def value() -> tuple[Column[object], ...]:
    """A serialized value: its type, and `head` + the bytes in the row itself or in `payloads`."""
    return (
        Column("seal", HASH, nullable=False),
        Column("type", name(64), nullable=False),
        Column("head", HASH, nullable=False),
        Column("body", DATA),
        Column("payload", HASH),
    )


def ordered(by: ColumnElement[Any]) -> ColumnElement[bool]:
    """True of every row; said by a query that walks the index which ends with this column.

    While PostgreSQL has no statistics it takes any index for as good as the one of a key, and reads
    a whole thread to find one row of it. So there such an index is only for those who say this.
    """
    return by > literal_column("0")


def table(title: str, *parts: Column[Any] | Constraint | Index, **options: Any) -> Table:
    """A table; on MariaDB and MySQL in the engine that has transactions."""
    options |= {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}
    return Table(title, metadata, *parts, **options)


checkpoints = table(
    "kapelle_checkpoints",
    Column("seq", SEQ, primary_key=True, autoincrement=True),
    Column("tenant", name(64), nullable=False),
    Column("thread", name(255), nullable=False),
    Column("id", name(128), nullable=False),
    Column("place", HASH, nullable=False),
    Column("namespace", DATA, nullable=False),
    Column("parent", name(128)),
    Column("type", name(64), nullable=False),
    Column("body", DATA, nullable=False),
    Column("metadata_type", name(64), nullable=False),
    Column("metadata", DATA, nullable=False),
    Column("seal", HASH, nullable=False),
    Column("at", TIME, nullable=False, default=db_now()),
    UniqueConstraint("tenant", "thread", "id", "place", name="kapelle_checkpoint_key"),
    Index(
        "kapelle_checkpoint_order",
        *("tenant", "thread", "place", "seq"),
        postgresql_where=ordered(column("seq")),
    ),
    sqlite_autoincrement=True,
)

blobs = table(
    "kapelle_blobs",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("place", HASH, primary_key=True),
    Column("version", name(64), primary_key=True),
    Column("channel", name(255), primary_key=True),
    *value(),
    Column("base", name(64)),
    sqlite_with_rowid=False,
)

writes = table(
    "kapelle_writes",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("place", HASH, primary_key=True),
    Column("checkpoint", name(128), primary_key=True),
    Column("task", name(128), primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("path", DATA, nullable=False),
    Column("channel", name(255), nullable=False),
    *value(),
    Column("more", DATA),
    sqlite_with_rowid=False,
)

payloads = table(
    "kapelle_payloads",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("hash", HASH, primary_key=True),
    Column("body", DATA, nullable=False),
)

marks = table(
    "kapelle_marks",
    tenant(),
    Column("seq", SEQ, primary_key=True, autoincrement=False),
    Column("mark", HASH, primary_key=True),
    Index("kapelle_mark_index", "tenant", "mark", "seq"),
    sqlite_with_rowid=False,
)

asks = table(
    "kapelle_asks",
    tenant(),
    Column("id", name(64), primary_key=True),
    Column("thread", name(255), nullable=False),
    Column("interrupt", name(128), nullable=False),
    Column("task", name(128), nullable=False),
    Column("checkpoint", name(128), nullable=False),
    Column("proposal", DATA, nullable=False),
    Column("sha256", name(64), nullable=False),
    Column("asked_at", TIME, nullable=False),
    Column("status", name(16), nullable=False),
    Column("decision", name(16)),
    Column("by", DATA),
    Column("answer", DATA),
    Column("answered_at", TIME),
    Index("kapelle_ask_thread", "tenant", "thread", "status"),
    Index(
        "kapelle_ask_status",
        *("tenant", "status", "asked_at"),
        postgresql_where=ordered(column("asked_at")),
    ),
)

runs = table(
    "kapelle_runs",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("run", name(64), nullable=False),
    Column("graph", DATA, nullable=False),
    Column("target", DATA, nullable=False),
    Column("task", DATA, nullable=False),
    Column("status", name(16), nullable=False),
    Column("result", DATA),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    Column("finished_at", TIME),
    Column("holder", name(128)),
    Column("lease_until", TIME),
    Column("fence", SEQ, nullable=False),
    Index("kapelle_run_order", "tenant", "created_at"),
    Index("kapelle_run_status", "tenant", "status", "lease_until"),
)

events = table(
    "kapelle_events",
    Column("seq", SEQ, primary_key=True, autoincrement=True),
    Column("tenant", name(64), nullable=False),
    Column("thread", name(255), nullable=False),
    Column("key", HASH),
    Column("kind", name(16), nullable=False),
    Column("what", DATA, nullable=False),
    Column("task", DATA, nullable=False),
    Column("agent", DATA, nullable=False),
    Column("at", TIME, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("micro_usd", BigInteger),
    Column("data", DATA, nullable=False),
    UniqueConstraint("tenant", "thread", "key", name="kapelle_event_key"),
    Index("kapelle_event_order", "tenant", "thread", "seq"),
    sqlite_autoincrement=True,
)

effects = table(
    "kapelle_effects",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("key", HASH, primary_key=True),
    Column("status", name(16), nullable=False),
    Column("data", DATA, nullable=False),
    Index("kapelle_effect_status", "tenant", "status"),
)

accounts = table(
    "kapelle_accounts",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("account", HASH, primary_key=True),
    Column("name", DATA, nullable=False),
    Column("run", name(128), nullable=False),
    *(Column(each.name, BigInteger, nullable=False) for each in fields(Balance)),
)

spends = table(
    "kapelle_spends",
    tenant(),
    Column("thread", name(255), primary_key=True),
    Column("key", HASH, primary_key=True),
    Column("name", DATA, nullable=False),
    Column("accounts", DATA, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("micro_usd", BigInteger),
    Column("state", Integer, nullable=False),
    Column("at", TIME, nullable=False),
)

items = table(
    "kapelle_items",
    tenant(),
    Column("space", HASH, primary_key=True),
    Column("name", HASH, primary_key=True),
    Column("key", DATA, nullable=False),
    Column("type", name(64), nullable=False),
    Column("body", DATA, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("updated_at", TIME, nullable=False),
    Column("expires_at", TIME),
    Column("ttl", TIME),
    Index("kapelle_item_expiry", "tenant", "expires_at"),
)

spaces = table(
    "kapelle_spaces",
    tenant(),
    Column("prefix", HASH, primary_key=True),
    Column("space", HASH, primary_key=True),
    Column("path", DATA, nullable=False),
    sqlite_with_rowid=False,
)

vectors = table(
    "kapelle_vectors",
    tenant(),
    Column("space", HASH, primary_key=True),
    Column("name", HASH, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("vector", DATA, nullable=False),
)
