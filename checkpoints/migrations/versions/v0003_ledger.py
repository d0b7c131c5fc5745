"""The ledger: accounts and reservations.

Before deploying the new code: safe, the old code does not know these tables.
"""

from sqlalchemy import BigInteger, Column, Integer

from kapelle.checkpoints.migrations.columns import (
    DATA,
    HASH,
    TIME,
    key,
    make,
    name,
    needed,
    tenant,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTS = (
    "input_tokens",
    "output_tokens",
    "calls",
    "micro_usd",
    "unpriced",
    "held_tokens",
    "held_calls",
    "held_usd",
    "over_tokens",
    "over_calls",
    "over_usd",
    "granted_tokens",
    "granted_calls",
    "granted_usd",
    "granted_ms",
    "worked_ms",
)


def upgrade() -> None:
    """Make the tables."""
    make(
        "kapelle_accounts",
        tenant(),
        key("thread", name(255)),
        key("account", HASH),
        needed("name", DATA),
        needed("run", name(128)),
        *(needed(count, BigInteger()) for count in COUNTS),
    )
    make(
        "kapelle_spends",
        tenant(),
        key("thread", name(255)),
        key("key", HASH),
        needed("name", DATA),
        needed("accounts", DATA),
        needed("input_tokens", BigInteger()),
        needed("output_tokens", BigInteger()),
        needed("calls", BigInteger()),
        Column("micro_usd", BigInteger()),
        needed("state", Integer()),
        needed("at", TIME),
    )
