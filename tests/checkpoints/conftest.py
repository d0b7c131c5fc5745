"""What these tests stand on: an empty database each, on every kind of database that is there."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from kapelle.checkpoints import Database
from kapelle.checkpoints.tables import metadata

VARIABLES = {"postgresql": "KAPELLE_TEST_POSTGRES", "mariadb": "KAPELLE_TEST_MARIADB"}


@pytest.fixture(scope="session")
def made() -> Iterator[dict[str, str]]:
    """The databases made for these tests, by kind; gone when they are over."""
    urls: dict[str, str] = {}
    yield urls
    for kind, url in urls.items():
        _broom(url).dispose()
        _run(VARIABLES[kind], f"DROP DATABASE {make_url(url).database}")


@pytest.fixture(params=["sqlite", *VARIABLES])
def url(request: pytest.FixtureRequest, tmp_path: Path, made: dict[str, str]) -> Iterator[str]:
    """Where an empty database is."""
    where = url_of(request.param, tmp_path, made)
    yield where
    if request.param != "sqlite":
        _empty(where)


def url_of(kind: str, folder: Path, made: dict[str, str]) -> str:
    """Where a database of a kind is; those of a server are shared and made once."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'test.db'}"
    if not os.environ.get(VARIABLES[kind]):
        pytest.skip(f"{VARIABLES[kind]} is not set")
    if kind not in made:
        made[kind] = _make(VARIABLES[kind])
    return made[kind]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty database, opened."""
    with Database(url) as opened:
        yield opened


def _make(variable: str) -> str:
    name = f"kapelle_test_{uuid4().hex[:12]}"
    _run(variable, f"CREATE DATABASE {name}")
    url = make_url(os.environ[variable]).set(database=name).render_as_string(hide_password=False)
    with Database(url) as database, database.connect():
        return url


def _run(variable: str, statement: str) -> None:
    engine = create_engine(os.environ[variable], isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _empty(url: str) -> None:
    with _broom(url).begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())


@cache
def _broom(url: str) -> Engine:
    """What empties a database after each test."""
    return create_engine(url, pool_pre_ping=True)
