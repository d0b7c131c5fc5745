"""The schema's version: bring a database up to this code's, refuse one that is ahead of it."""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from kapelle.state.errors import DatabaseNewer

HEAD = "0001"
"""The newest migration in `migrations/versions`."""

VERSION_TABLE = "kapelle_version"

_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def upgrade(connection: Connection, url: str) -> None:
    """Make the schema what this code expects, in the connection's own transaction."""
    found = version(connection)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise DatabaseNewer(url=url, found=found, known=HEAD)
    _migrate(connection)


def version(connection: Connection) -> str | None:
    """The version of the schema there; None if there is none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_version.c.version_num))


def _migrate(connection: Connection) -> None:
    # Alembic is heavy, and needed once in a database's life.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
