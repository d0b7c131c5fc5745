"""Connections to MariaDB are encrypted as PyMySQL would encrypt them, and begin at once."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, make_url

from kapelle.checkpoints import Database
from tests.checkpoints.conftest import url_of


@pytest.fixture
def mariadb(tmp_path: Path, made: dict[str, str]) -> str:
    """Where a MariaDB is."""
    return url_of("mariadb", tmp_path, made)


def cipher(connection: Connection) -> Any:
    """What it is encrypted with; empty if it is not."""
    return connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1]


def driver(connection: Connection) -> Any:
    """The driver's own connection."""
    return connection.connection.dbapi_connection


def test_it_is_encrypted_as_the_driver_alone_would(mariadb: str) -> None:
    alone = create_engine(mariadb)
    with alone.connect() as theirs, Database(mariadb) as database, database.connect() as ours:
        assert cipher(ours) == cipher(theirs)
        assert driver(ours).ssl == driver(theirs).ssl
    alone.dispose()


def test_what_it_is_encrypted_with_is_made_once(mariadb: str) -> None:
    with (
        Database(mariadb) as one,
        Database(mariadb) as other,
        one.connect() as first,
        one.connect() as second,
        other.connect() as third,
    ):
        assert driver(first) is not driver(second)
        assert driver(first).ctx is driver(second).ctx is driver(third).ctx


def test_what_a_url_says_of_tls_is_left_to_the_driver(mariadb: str) -> None:
    url = make_url(mariadb).update_query_dict({"ssl_disabled": "1"})
    with Database(url) as database, database.connect() as connection:
        assert driver(connection).ssl is False
