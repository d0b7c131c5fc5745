"""The ledger: accounts and reservations.

Before deploying the new code: safe, the old code does not know these tables.
"""

from alembic import op

from kapelle.checkpoints.tables import metadata

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("kapelle_accounts", "kapelle_spends")


def upgrade() -> None:
    """Make the tables."""
    tables = [metadata.tables[name] for name in TABLES]
    metadata.create_all(op.get_bind(), tables, checkfirst=False)
