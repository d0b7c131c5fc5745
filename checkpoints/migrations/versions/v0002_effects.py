"""Effects: what agents did to the world.

Before deploying the new code: safe, a table is added. After: nothing to drop.
"""

from alembic import op

from kapelle.checkpoints.tables import effects

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    effects.create(op.get_bind(), checkfirst=False)
