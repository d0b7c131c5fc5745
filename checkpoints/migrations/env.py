"""How Alembic reaches the database: over the connection that `schema.upgrade` hands it."""

from alembic import context

from kapelle.checkpoints.schema import VERSION_TABLE
from kapelle.checkpoints.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
