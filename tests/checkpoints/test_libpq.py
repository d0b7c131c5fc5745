"""What is sent to PostgreSQL without waiting comes to the same as if one had waited."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.checkpoints.conftest import VARIABLES

psycopg = pytest.importorskip("psycopg")

from kapelle.checkpoints.libpq import Pipe  # noqa: E402  # it needs psycopg


@pytest.fixture
def driver() -> Iterator[Any]:
    """A connection with a table of its own."""
    variable = VARIABLES["postgresql"]
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    url = make_url(os.environ[variable]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE kept (id int PRIMARY KEY, body bytea, said text)"
        )
        connection.commit()
        yield connection


INSERT = "INSERT INTO kept VALUES ($1, $2, $3)"


def kept(driver: Any) -> list[Any]:
    rows: list[Any] = driver.execute("SELECT * FROM kept ORDER BY id").fetchall()
    driver.rollback()
    return rows


def send_one(driver: Any) -> None:
    pipe = Pipe(driver, {})
    pipe.send(INSERT, [(1, b"", "")])
    pipe.settle()


def test_what_is_settled_is_committed_in_the_order_it_was_sent(driver: Any) -> None:
    pipe = Pipe(driver, {})
    pipe.send(INSERT, [(1, b"\x00\xff", "é"), (2, None, None)])
    pipe.send("UPDATE kept SET said = $1 WHERE id = $2", [("later", 2)])
    pipe.commit()
    pipe.settle()
    driver.rollback()
    assert kept(driver) == [(1, b"\x00\xff", "é"), (2, None, "later")]


def test_what_is_not_committed_is_part_of_the_transaction(driver: Any) -> None:
    send_one(driver)
    driver.execute("INSERT INTO kept VALUES (2)")
    pipe = Pipe(driver, {})
    pipe.send(INSERT, [(3, b"", "")])
    pipe.settle()
    driver.rollback()
    assert kept(driver) == []


def test_the_first_error_is_raised_and_nothing_is_committed(driver: Any) -> None:
    prepared: dict[str, bytes] = {}
    pipe = Pipe(driver, prepared)
    pipe.send(INSERT, [(1, b"", ""), (1, b"", ""), (None, b"", "")])
    pipe.send("UPDATE kept SET said = $1", [("unheard",)])
    pipe.commit()
    with pytest.raises(psycopg.errors.UniqueViolation):
        pipe.settle()
    driver.rollback()
    assert kept(driver) == []
    pipe.send(INSERT, [(1, b"", "again")])
    pipe.commit()
    pipe.settle()
    assert kept(driver) == [(1, b"", "again")]
    assert list(prepared) == [INSERT]


def test_a_query_finds_what_was_sent_before_it(driver: Any) -> None:
    pipe = Pipe(driver, {})
    pipe.send(INSERT, [(1, b"\x00", "é"), (2, None, None)])
    asked = "SELECT id, body, said, id = 1, id / 8.0::float8 FROM kept WHERE id <= $1 ORDER BY id"
    assert pipe.ask(asked, (2,)) == [(1, b"\x00", "é", True, 0.125), (2, None, None, False, 0.25)]
    assert pipe.ask(asked, (0,)) == []
    assert not pipe.is_open
    driver.rollback()
    assert kept(driver) == []


def test_what_is_not_prepared_comes_to_the_same(driver: Any) -> None:
    pipe = Pipe(driver, None)
    pipe.send(INSERT, [(1, b"\x00\xff", "é"), (2, None, None)])
    assert pipe.ask("SELECT id FROM kept WHERE body = $1", (b"\x00\xff",)) == [(1,)]
    pipe.commit()
    pipe.settle()
    assert kept(driver) == [(1, b"\x00\xff", "é"), (2, None, None)]


def test_more_is_sent_than_any_buffer_holds(driver: Any) -> None:
    pipe = Pipe(driver, {})
    pipe.send(INSERT, [(number, b"x" * 1_000, "") for number in range(20_000)])
    pipe.commit()
    pipe.settle()
    assert len(kept(driver)) == 20_000


def test_a_connection_that_is_cut_is_an_error_that_passes(driver: Any) -> None:
    url = make_url(os.environ[VARIABLES["postgresql"]]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        send_one(driver)
