"""Statements that the desk runs with many rows at once, each built once a database kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    Table,
    bindparam,
    cast,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from kapelle.checkpoints.engine import PREFIX

Row = dict[str, Any]

CONFLICTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Databases whose insert says ON CONFLICT; the others say ON DUPLICATE KEY."""


class Unmet(Exception):
    """A row was not written, because the statement's condition did not hold."""

    def __init__(self, statement: "Statement") -> None:
        super().__init__("the condition of a statement does not hold")
        self.statement = statement


class Statement:
    """An insert, update or delete with parameters, in each database's own words.

    SQLAlchemy builds and compiles it once; running it goes straight to the driver, because that is
    where the time of a small transaction went. Parameters are texts, bytes, numbers and None, which
    every driver takes as they are.
    """

    def __init__(self, build: Callable[[str], Any], *, conditional: bool = False) -> None:
        """`build` is given the name of a dialect; None from it: nothing is to be done there.

        `conditional`: a row that changes nothing is `Unmet`.
        """
        self._build = build
        self._conditional = conditional
        self._compiled: dict[tuple[str, str], _Compiled | None] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row. All rows have the same keys."""
        dialect = connection.dialect
        prefix = connection.get_execution_options()["kapelle_prefix"]
        if (dialect.name, prefix) not in self._compiled:
            compiled = _compile(self._build(dialect.name), dialect, prefix, rows[0])
            self._compiled[dialect.name, prefix] = compiled
        compiled = self._compiled[dialect.name, prefix]
        if compiled is None:
            return
        parameters = [compiled.parameters(row) for row in rows]
        cursor = connection.connection.cursor()
        try:
            if not self._conditional:
                cursor.executemany(compiled.sql, parameters)
            elif _changed(cursor, compiled.sql, parameters, dialect) < len(rows):
                raise Unmet(self)
        except dialect.loaded_dbapi.Error as error:
            raise DBAPIError(compiled.sql, None, error) from error
        finally:
            cursor.close()


def same(statement: Executable) -> Statement:
    """A statement that all databases understand alike."""
    return Statement(lambda _: statement)


def keep_first(table: Table, source: Any | None = None) -> Statement:
    """Insert rows, or what `source` finds; a row that is there with the same key stays."""

    def build(dialect: str) -> Any:
        insert = CONFLICTS.get(dialect, mysql.insert)(table)
        if source is not None:
            insert = insert.from_select(list(table.c), source)
        if dialect in CONFLICTS:
            return insert.on_conflict_do_nothing()
        first = next(iter(table.primary_key)).name
        return insert.on_duplicate_key_update({first: table.c[first]})

    return Statement(build)


def replace(table: Table, kept: Sequence[str] = (), **computed: ColumnElement[Any]) -> Statement:
    """Insert rows; a row with the same primary key is replaced, but for the columns `kept`.

    `computed`: columns that the database fills.
    """

    def build(dialect: str) -> Any:
        insert = CONFLICTS.get(dialect, mysql.insert)(table)
        return _replacing(insert.values(computed) if computed else insert, (), kept)

    return Statement(build)


def replace_if(
    table: Table,
    condition: ColumnElement[bool],
    key: Sequence[str] = (),
    **computed: ColumnElement[Any],
) -> Statement:
    """Insert rows where a condition holds, else `Unmet`; a row with the same key is replaced.

    `key`: what the row is known by; the primary key, if none is named. `computed`: columns that the
    database fills.
    """

    def build(dialect: str) -> Any:
        filled = [c for c in table.c if c.autoincrement is not True]
        shown = [computed.get(c.name, _given(c, dialect)) for c in filled]
        insert = CONFLICTS.get(dialect, mysql.insert)(table)
        insert = insert.from_select([c.name for c in filled], select(*shown).where(condition))
        return _replacing(insert, key)

    return Statement(build, conditional=True)


def locks(table: Table, *key: str) -> Statement:
    """Lock rows until the transaction ends; in SQLite, where one writes at a time, nothing."""
    query = select(*(table.c[k] for k in key)).where(*(table.c[k] == bindparam(k) for k in key))
    return Statement(lambda dialect: None if dialect == "sqlite" else query.with_for_update())


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as a driver takes it."""

    sql: str
    parameters: Callable[[Row], Any]
    """What the driver wants of a row: a tuple or a dict."""


def _compile(statement: Any, dialect: Dialect, prefix: str, row: Row) -> _Compiled | None:
    if statement is None:
        return None
    compiled = statement.compile(dialect=dialect, column_keys=list(row))
    sql = str(compiled).replace(PREFIX, prefix)
    fixed = {key: value for key, value in compiled.params.items() if key not in row}
    if not dialect.positional:
        return _Compiled(sql, lambda row: {**fixed, **row})
    names = tuple(compiled.positiontup)
    if fixed:
        return _Compiled(sql, lambda row: _pick(names, {**fixed, **row}))
    return _Compiled(sql, lambda row: _pick(names, row))


def _pick(names: tuple[str, ...], row: Row) -> tuple[Any, ...]:
    return tuple([row[name] for name in names])


def _changed(cursor: Any, sql: str, parameters: Sequence[Any], dialect: Dialect) -> int:
    """How many rows were written. MariaDB counts a replaced row twice, so there each is asked."""
    if dialect.name in CONFLICTS:
        cursor.executemany(sql, parameters)
        return int(cursor.rowcount)
    return sum(min(1, cursor.execute(sql, each)) for each in parameters)


def _given(column: Any, dialect: str) -> ColumnElement[Any]:
    parameter = bindparam(column.name, type_=column.type)
    return cast(parameter, column.type) if dialect == "postgresql" else parameter


def _replacing(insert: Any, key: Sequence[str], kept: Sequence[str] = ()) -> Any:
    table: Table = insert.table
    primary = tuple(column.name for column in table.primary_key)
    new = insert.excluded if hasattr(insert, "excluded") else insert.inserted
    rest = {c.name: new[c.name] for c in table.c if c.name not in {*key, *primary, *kept}}
    if hasattr(insert, "on_conflict_do_update"):
        return insert.on_conflict_do_update(index_elements=key or primary, set_=rest)
    return insert.on_duplicate_key_update(rest)
