"""On PostgreSQL, indexes of an order are used by queries that want the order, and by no others.

Without statistics it took them for as good as the index of a key, and read a whole thread to find
one checkpoint of it: each step of a long thread took longer than the one before.

Before or after deploying the new code: the old one works with these indexes as well, but slowly.
"""

from alembic import op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ORDERS = {
    "kapelle_checkpoint_order": ("kapelle_checkpoints", ["tenant", "thread", "place", "seq"]),
    "kapelle_ask_status": ("kapelle_asks", ["tenant", "status", "asked_at"]),
}
"""Indexes, each with its table and columns; the last column is what counts."""


def upgrade() -> None:
    """Make the indexes anew."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for title, (table, columns) in ORDERS.items():
        op.drop_index(title, table)
        op.create_index(title, table, columns, postgresql_where=text(f"{columns[-1]} > 0"))
