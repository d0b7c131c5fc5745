"""Statements as drivers take them: compiled once, by SQLAlchemy, for a kind of database."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, RowMapping
from sqlalchemy.dialects.postgresql import psycopg

from kapelle.checkpoints.engine import PREFIX

Row = dict[str, Any]

Found = Row | RowMapping
"""A row that was found."""

NUMBERED = psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""PostgreSQL's own way to name parameters: `$1`, `$2`, …"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement as a driver takes it."""

    sql: str
    parameters: Callable[[Row], Any]
    """What the driver wants of a row: a tuple or a dict."""
    columns: tuple[str, ...] = ()
    """What the rows found have, for a query."""
    conditional: str = ""
    """The table of rows that lack their tenant where a condition does not hold; "" if none."""


@dataclass(frozen=True, slots=True)
class Manner:
    """In whose words a connection is told, and under which names."""

    dialect: Dialect
    prefix: str

    @classmethod
    def of(cls, connection: Connection) -> "Manner":
        """A connection's."""
        dialect = NUMBERED if connection.dialect.driver == "psycopg" else connection.dialect
        return cls(dialect, connection.get_execution_options()["kapelle_prefix"])

    @property
    def key(self) -> tuple[str, str]:
        """What is equal where a statement is the same."""
        return self.dialect.name, self.prefix


def compiled(statement: Any, manner: Manner, row: Row | None, **more: Any) -> Compiled:
    """A statement with the parameters that a row has; None: with those it has no values for."""
    keys = None if row is None else list(row)
    made = statement.compile(dialect=manner.dialect, column_keys=keys)
    sql = str(made).replace(PREFIX, manner.prefix)
    given = row if row is not None else {n for n, v in made.params.items() if v is None}
    fixed = {key: value for key, value in made.params.items() if key not in given}
    pick = _picking(tuple(made.positiontup)) if manner.dialect.positional else dict
    if fixed:
        return Compiled(sql, lambda row: pick({**fixed, **row}), **more)
    return Compiled(sql, pick, **more)


def _picking(names: tuple[str, ...]) -> Callable[[Row], Any]:
    """What takes the values of these names out of a row, as fast as can be."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)
