"""The first schema.

Before deploying the new code: safe, there is nothing yet.
"""

from alembic import op

from kapelle.checkpoints.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables."""
    metadata.create_all(op.get_bind(), checkfirst=False)
