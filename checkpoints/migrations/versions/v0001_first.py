"""The first schema.

Before deploying the new code: safe, there is nothing yet.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, UniqueConstraint

from kapelle.checkpoints.migrations.columns import (
    DATA,
    HASH,
    SEQ,
    TIME,
    key,
    make,
    name,
    needed,
    tenant,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _of_the_saver()
    _of_runs()
    _of_the_store()


def value() -> tuple[Column[object], ...]:
    """A serialized value."""
    return (
        needed("type", name(64)),
        needed("head", HASH),
        Column("body", DATA),
        Column("payload", HASH),
    )


def _of_the_saver() -> None:
    make(
        "kapelle_checkpoints",
        Column("seq", SEQ, primary_key=True, autoincrement=True),
        needed("tenant", name(64)),
        needed("thread", name(255)),
        needed("id", name(128)),
        needed("place", HASH),
        needed("namespace", DATA),
        Column("parent", name(128)),
        needed("type", name(64)),
        needed("body", DATA),
        needed("metadata_type", name(64)),
        needed("metadata", DATA),
        needed("at", TIME),
        UniqueConstraint("tenant", "thread", "id", "place", name="kapelle_checkpoint_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "kapelle_checkpoint_order", "kapelle_checkpoints", ["tenant", "thread", "place", "seq"]
    )
    make(
        "kapelle_blobs",
        tenant(),
        key("thread", name(255)),
        key("place", HASH),
        key("version", name(64)),
        key("channel", name(255)),
        *value(),
        Column("base", name(64)),
        sqlite_with_rowid=False,
    )
    make(
        "kapelle_writes",
        tenant(),
        key("thread", name(255)),
        key("place", HASH),
        key("checkpoint", name(128)),
        key("task", name(128)),
        key("idx", Integer()),
        needed("path", DATA),
        needed("channel", name(255)),
        *value(),
        sqlite_with_rowid=False,
    )
    make(
        "kapelle_payloads",
        tenant(),
        key("thread", name(255)),
        key("hash", HASH),
        needed("body", DATA),
    )
    make("kapelle_marks", tenant(), key("seq", SEQ), key("mark", HASH), sqlite_with_rowid=False)
    op.create_index("kapelle_mark_index", "kapelle_marks", ["tenant", "mark", "seq"])


def _of_runs() -> None:
    make(
        "kapelle_asks",
        tenant(),
        key("id", name(64)),
        needed("thread", name(255)),
        needed("interrupt", name(128)),
        needed("task", name(128)),
        needed("checkpoint", name(128)),
        needed("proposal", DATA),
        needed("sha256", name(64)),
        needed("asked_at", TIME),
        needed("status", name(16)),
        Column("decision", name(16)),
        Column("by", DATA),
        Column("answer", DATA),
        Column("answered_at", TIME),
    )
    op.create_index("kapelle_ask_thread", "kapelle_asks", ["tenant", "thread", "status"])
    op.create_index("kapelle_ask_status", "kapelle_asks", ["tenant", "status", "asked_at"])
    make(
        "kapelle_runs",
        tenant(),
        key("thread", name(255)),
        needed("run", name(64)),
        needed("graph", DATA),
        needed("target", DATA),
        needed("task", DATA),
        needed("status", name(16)),
        Column("result", DATA),
        needed("created_at", TIME),
        needed("updated_at", TIME),
        Column("finished_at", TIME),
        Column("holder", name(128)),
        Column("lease_until", TIME),
        needed("fence", SEQ),
    )
    op.create_index("kapelle_run_order", "kapelle_runs", ["tenant", "created_at"])
    op.create_index("kapelle_run_status", "kapelle_runs", ["tenant", "status", "lease_until"])
    make(
        "kapelle_events",
        Column("seq", SEQ, primary_key=True, autoincrement=True),
        needed("tenant", name(64)),
        needed("thread", name(255)),
        Column("key", HASH),
        needed("kind", name(16)),
        needed("what", DATA),
        needed("task", DATA),
        needed("agent", DATA),
        needed("at", TIME),
        needed("input_tokens", BigInteger()),
        needed("output_tokens", BigInteger()),
        needed("calls", BigInteger()),
        Column("micro_usd", BigInteger()),
        needed("data", DATA),
        UniqueConstraint("tenant", "thread", "key", name="kapelle_event_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("kapelle_event_order", "kapelle_events", ["tenant", "thread", "seq"])


def _of_the_store() -> None:
    make(
        "kapelle_items",
        tenant(),
        key("space", HASH),
        key("name", HASH),
        needed("key", DATA),
        needed("type", name(64)),
        needed("body", DATA),
        needed("created_at", TIME),
        needed("updated_at", TIME),
        Column("expires_at", TIME),
        Column("ttl", TIME),
    )
    op.create_index("kapelle_item_expiry", "kapelle_items", ["tenant", "expires_at"])
    make(
        "kapelle_spaces",
        tenant(),
        key("prefix", HASH),
        key("space", HASH),
        needed("path", DATA),
        sqlite_with_rowid=False,
    )
    make(
        "kapelle_vectors",
        tenant(),
        key("space", HASH),
        key("name", HASH),
        key("number", Integer()),
        needed("vector", DATA),
    )
