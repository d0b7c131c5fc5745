"""The schema's version: bring a database up to this code's, refuse one that is ahead of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, func, inspect, select

from kapelle.checkpoints.engine import PREFIX
from kapelle.checkpoints.tables import metadata
from kapelle.state.errors import DatabaseNewer

HEAD = "0006"
"""The newest migration in `migrations/versions`."""

VERSION_TABLE = "kapelle_version"

KEY = 0x6B6170656C6C65
"""PostgreSQL's locks are numbers; this one reads "kapelle"."""

WAIT = 300
"""Seconds to wait for another's migration at most."""

LOCKS = {
    "postgresql": (func.pg_advisory_lock(KEY), func.pg_advisory_unlock(KEY)),
    "mysql": (func.get_lock("kapelle", WAIT), func.release_lock("kapelle")),
    "mariadb": (func.get_lock("kapelle", WAIT), func.release_lock("kapelle")),
}
"""How to be the only one, for as long as the connection lasts."""

_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def upgrade(connection: Connection, url: str) -> None:
    """Make the schema what this code expects; who comes at the same time waits."""
    with connection.begin():
        found = version(connection)
    if found is not None and found > HEAD:
        raise DatabaseNewer(url=url, found=found, known=HEAD)
    if found != HEAD:
        with _alone(connection), connection.begin():
            _bring_up(connection)


def version(connection: Connection) -> str | None:
    """The version of the schema there; None if there is none."""
    prefix = connection.get_execution_options()["kapelle_prefix"]
    if not inspect(connection).has_table(VERSION_TABLE.replace(PREFIX, prefix)):
        return None
    return connection.scalar(select(_version.c.version_num))


def make(connection: Connection) -> None:
    """Make the tables as the code has them now, where nothing is."""
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection, checkfirst=False)
    connection.execute(_version.insert().values(version_num=HEAD))


def migrate(connection: Connection, to: str = HEAD) -> None:
    """Make the schema what this version has, from whatever earlier one it is."""
    # Alembic is heavy, and needed seldom in a database's life.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _bring_up(connection: Connection) -> None:
    """What is new is made at once; migrations, one after the other, come to the same."""
    found = version(connection)
    if found is None:
        make(connection)
    elif found != HEAD:
        migrate(connection)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Nobody else changes the schema. SQLite's writers are alone anyway."""
    lock, unlock = LOCKS.get(connection.dialect.name, (None, None))
    if lock is None or unlock is None:
        yield
        return
    with connection.begin():
        connection.execute(select(lock))
    try:
        yield
    finally:
        with connection.begin():
            connection.execute(select(unlock))
