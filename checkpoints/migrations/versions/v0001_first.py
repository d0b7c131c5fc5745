"""The first schema.

Before deploying the new code: safe, there is nothing yet.
"""

from alembic import op

from kapelle.checkpoints.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "kapelle_checkpoints",
    "kapelle_blobs",
    "kapelle_writes",
    "kapelle_payloads",
    "kapelle_marks",
    "kapelle_asks",
    "kapelle_runs",
    "kapelle_events",
    "kapelle_items",
    "kapelle_spaces",
    "kapelle_vectors",
)
"""What there was at first; what is added later has a migration of its own."""


def upgrade() -> None:
    """Make the tables."""
    tables = [metadata.tables[name] for name in TABLES]
    metadata.create_all(op.get_bind(), tables, checkfirst=False)
