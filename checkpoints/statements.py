"""Statements that the desk runs with many rows at once, each built once a database kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect, Executable, Select, Table
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

Row = dict[str, Any]

CONFLICTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Databases whose insert says ON CONFLICT; the others say ON DUPLICATE KEY."""


class Statement:
    """An insert, update or delete with parameters, in each database's own words.

    SQLAlchemy builds and compiles it once; running it goes straight to the driver, because that is
    where the time of a small transaction went. Parameters are texts, bytes, numbers and None, which
    every driver takes as they are.
    """

    def __init__(self, build: Callable[[str], Any]) -> None:
        """`build` is given the name of a dialect."""
        self._build = build
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row. All rows have the same keys."""
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = _compile(self._build(dialect.name), dialect, rows[0])
            self._compiled[dialect.name] = compiled
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(compiled.sql, [compiled.parameters(row) for row in rows])
        except dialect.loaded_dbapi.Error as error:
            raise DBAPIError(compiled.sql, None, error) from error
        finally:
            cursor.close()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as a driver takes it."""

    sql: str
    parameters: Callable[[Row], Any]
    """What the driver wants of a row: a tuple or a dict."""


def _compile(statement: Any, dialect: Dialect, row: Row) -> _Compiled:
    compiled = statement.compile(dialect=dialect, column_keys=list(row))
    fixed = {key: value for key, value in compiled.params.items() if key not in row}
    if not dialect.positional:
        return _Compiled(str(compiled), lambda row: {**fixed, **row})
    names = tuple(compiled.positiontup)
    if fixed:
        return _Compiled(str(compiled), lambda row: _pick(names, {**fixed, **row}))
    return _Compiled(str(compiled), lambda row: _pick(names, row))


def _pick(names: tuple[str, ...], row: Row) -> tuple[Any, ...]:
    return tuple([row[name] for name in names])


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
