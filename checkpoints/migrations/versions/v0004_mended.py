"""What earlier versions left out: seals on the saver's rows, and runs whose answer was claimed.

A seal says that a row is as it was written. A run whose answer was claimed is running, so that who
looks for runs to go on with finds it; earlier it was waiting until the answer was applied.

Before deploying the new code: stop the old, which writes rows without a seal. Rows that are there
are sealed without a key, so a `Database(key=…)` does not read them. Some databases of version 0003
have seals already.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import ormsgpack
from alembic import op
from sqlalchemy import (
    Column,
    and_,
    bindparam,
    column,
    exists,
    func,
    inspect,
    select,
    table,
    text,
    update,
)

from kapelle.checkpoints.engine import PREFIX
from kapelle.checkpoints.migrations.columns import HASH

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

AT_ONCE = 1_000
"""Rows that are in memory at most."""

VALUE = ("type", "head", "body", "payload")

SEALED: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "kapelle_checkpoints": (
        ("tenant", "thread", "id", "place"),
        ("namespace", "parent", "type", "body", "metadata_type", "metadata"),
    ),
    "kapelle_blobs": (
        ("tenant", "thread", "place", "version", "channel"),
        (*VALUE, "base"),
    ),
    "kapelle_writes": (
        ("tenant", "thread", "place", "checkpoint", "task", "idx"),
        ("path", "channel", *VALUE),
    ),
}
"""Tables: the columns of their keys, and the others; together, in this order, what is sealed."""


def upgrade() -> None:
    """Add what is not there."""
    prefix = op.get_bind().get_execution_options()["kapelle_prefix"]
    for title, (keys, others) in SEALED.items():
        known = inspect(op.get_bind()).get_columns(title.replace(PREFIX, prefix))
        if "seal" not in {each["name"] for each in known}:
            op.add_column(title, Column("seal", HASH, nullable=False, server_default=text("''")))
            _seal(title, keys, others)
    _go_on()


def _seal(title: str, keys: Sequence[str], others: Sequence[str]) -> None:
    """Seal some rows after the other: nobody knows how many there are."""
    rows = table(title, *(column(each) for each in (*keys, *others, "seal")))
    bare = select(*(rows.c[each] for each in (*keys, *others)))
    bare = bare.where(func.length(rows.c.seal) == 0).limit(AT_ONCE)
    its = (rows.c[each] == bindparam(f"of_{each}") for each in keys)
    sealing = update(rows).where(*its).values(seal=bindparam("its_seal", type_=HASH))
    while found := op.get_bind().execute(bare).mappings().all():
        sealed = [
            {**{f"of_{k}": row[k] for k in keys}, "its_seal": _of(title, row.values())}
            for row in found
        ]
        op.get_bind().execute(sealing, sealed)


def _of(title: str, row: Iterable[Any]) -> bytes:
    parts = [bytes(part) if isinstance(part, memoryview) else part for part in row]
    return hashlib.blake2b(ormsgpack.packb([title, *parts]), digest_size=16).digest()


def _go_on() -> None:
    runs = table("kapelle_runs", *map(column, ("tenant", "thread", "status")))
    asks = table("kapelle_asks", *map(column, ("tenant", "thread", "status")))
    its = and_(asks.c.tenant == runs.c.tenant, asks.c.thread == runs.c.thread)
    claimed = exists().where(its, asks.c.status == "claimed")
    op.execute(update(runs).where(runs.c.status == "waiting", claimed).values(status="running"))
