"""Statements that the desk runs with many rows at once, each built once a database kind."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Select, Table
from sqlalchemy.dialects import mysql, postgresql, sqlite

Row = dict[str, Any]

CONFLICTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Databases whose insert says ON CONFLICT; the others say ON DUPLICATE KEY."""


class Statement:
    """An insert, update or delete with parameters, in each database's own words."""

    def __init__(self, build: Callable[[str], Any]) -> None:
        """`build` is given the name of a dialect."""
        self._build = build
        self._built: dict[str, Executable] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row."""
        dialect = connection.dialect.name
        if dialect not in self._built:
            self._built[dialect] = self._build(dialect)
        connection.execute(self._built[dialect], rows)


def same(statement: Executable) -> Statement:
    """A statement that all databases understand alike."""
    return Statement(lambda _: statement)


def keep_first(table: Table, source: Select[Any] | None = None) -> Statement:
    """Insert rows, or what `source` finds; a row that is there with the same key stays."""

    def build(dialect: str) -> Any:
        if dialect in CONFLICTS:
            return _from(CONFLICTS[dialect](table), source).on_conflict_do_nothing()
        first = next(iter(table.primary_key)).name
        insert = _from(mysql.insert(table), source)
        return insert.on_duplicate_key_update({first: table.c[first]})

    return Statement(build)


def replace(table: Table, *key: str) -> Statement:
    """Insert rows; a row with the same key (the primary key, if none is named) is replaced."""
    keys = key or tuple(column.name for column in table.primary_key)
    kept = {*keys, *(column.name for column in table.primary_key)}

    def build(dialect: str) -> Any:
        if dialect in CONFLICTS:
            insert = CONFLICTS[dialect](table)
            rest = {c.name: insert.excluded[c.name] for c in table.c if c.name not in kept}
            return insert.on_conflict_do_update(index_elements=keys, set_=rest)
        other = mysql.insert(table)
        return other.on_duplicate_key_update(
            {c.name: other.inserted[c.name] for c in table.c if c.name not in kept}
        )

    return Statement(build)


def _from(insert: Any, source: Select[Any] | None) -> Any:
    return insert if source is None else insert.from_select(list(insert.table.c), source)
