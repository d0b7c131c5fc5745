"""Effects: what agents did to the world.

Before deploying the new code: safe, a table is added. After: nothing to drop.
"""

from alembic import op

from kapelle.checkpoints.migrations.columns import DATA, HASH, key, make, name, needed, tenant

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    make(
        "kapelle_effects",
        tenant(),
        key("thread", name(255)),
        key("key", HASH),
        needed("status", name(16)),
        needed("data", DATA),
    )
    op.create_index("kapelle_effect_status", "kapelle_effects", ["tenant", "status"])
