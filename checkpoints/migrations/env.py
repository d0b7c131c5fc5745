"""How Alembic reaches the database: over the connection that `schema.upgrade` hands it."""

from alembic import context

from kapelle.checkpoints.engine import PREFIX
from kapelle.checkpoints.schema import VERSION_TABLE
from kapelle.checkpoints.tables import metadata

connection = context.config.attributes["connection"]
prefix = connection.get_execution_options()["kapelle_prefix"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE.replace(PREFIX, prefix),
)
context.run_migrations()
