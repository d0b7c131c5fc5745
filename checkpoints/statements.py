"""What is asked of the database most often, each built and compiled once a database kind.

Running it goes straight to the driver: with SQLAlchemy's way there, that is where the time of a
small transaction went. Parameters are texts, bytes, numbers and None, which every driver takes as
they are.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    RowMapping,
    Select,
    Table,
    bindparam,
    cast,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from kapelle.checkpoints.engine import PREFIX

Row = dict[str, Any]

Found = Row | RowMapping
"""A row that was found."""

Among = Callable[[ColumnElement[Any], str], ColumnElement[bool]]
"""Says that a column is among the values of a list, by the list's name."""

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
    """An insert, update or delete with parameters, in each database's own words."""

    def __init__(self, build: Callable[[str], Any], *, conditional: bool = False) -> None:
        """`build` is given the name of a dialect; None from it: nothing is to be done there.

        `conditional`: a row that changes nothing is `Unmet`.
        """
        self._build = build
        self._conditional = conditional
        self._compiled: dict[tuple[str, str], _Compiled | None] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row. All rows have the same keys."""
        run_all(connection, {self: rows})

    def begin(self, connection: Connection, rows: Sequence[Row]) -> "Callable[[], None] | None":
        """Begin to run it once a row; what looks, once it did, whether its condition held."""
        dialect = connection.dialect
        prefix = connection.get_execution_options()["kapelle_prefix"]
        if (dialect.name, prefix) not in self._compiled:
            built = self._build(dialect.name)
            compiled = None if built is None else _compile(built, dialect, prefix, rows[0])
            self._compiled[dialect.name, prefix] = compiled
        compiled = self._compiled[dialect.name, prefix]
        if compiled is None:
            return None
        parameters = [compiled.parameters(row) for row in rows]
        cursor = connection.connection.cursor()
        if self._conditional:
            changed = _changing(cursor, compiled.sql, parameters, dialect)
            return partial(self._look, cursor, changed, len(rows))
        cursor.executemany(compiled.sql, parameters)
        return cursor.close

    def _look(self, cursor: Any, changed: Callable[[], int], rows: int) -> None:
        met = changed() >= rows
        cursor.close()
        if not met:
            raise Unmet(self)


def run_all(connection: Connection, rows: Mapping[Statement, Sequence[Row]]) -> None:
    """Run statements in order; psycopg sends all of them before it waits for the first answer."""
    dialect = connection.dialect
    driver: Any = connection.connection.driver_connection
    try:
        with driver.pipeline() if dialect.driver == "psycopg" else nullcontext():
            begun = [statement.begin(connection, those) for statement, those in rows.items()]
    except dialect.loaded_dbapi.Error as error:
        raise DBAPIError("", None, error) from error
    for look in begun:
        if look is not None:
            look()


class Query:
    """A select with parameters, some of them lists."""

    def __init__(self, build: Callable[[Among], Select[Any]]) -> None:
        """`build` is given what says that a column is among the values of a list, by its name."""
        self._build = build
        self._compiled: dict[tuple[str | int, ...], _Compiled] = {}

    def rows(self, connection: Connection, where: Row, **lists: Sequence[Any]) -> list[Row]:
        """The rows found; among the values of an empty list is nothing."""
        if not all(map(len, lists.values())):
            return []
        if not connection.in_transaction():
            connection.begin()
        filled = {name: _filled(values) for name, values in lists.items()}
        given = dict(where)
        for name, values in filled.items():
            given.update(zip(_labels(name, len(values)), values, strict=True))
        compiled = self._for(connection, {name: len(values) for name, values in filled.items()})
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.sql, compiled.parameters(given))
            found = cursor.fetchall()
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(compiled.sql, None, error) from error
        finally:
            cursor.close()
        return [dict(zip(compiled.columns, row, strict=True)) for row in found]

    def _for(self, connection: Connection, sizes: Mapping[str, int]) -> "_Compiled":
        dialect = connection.dialect
        prefix = connection.get_execution_options()["kapelle_prefix"]
        key = (dialect.name, prefix, *sizes.values())
        if key not in self._compiled:
            query = self._build(partial(_among, sizes))
            compiled = _compile(query, dialect, prefix, None)
            self._compiled[key] = replaced(compiled, columns=tuple(query.selected_columns.keys()))
        return self._compiled[key]


@lru_cache(256)
def _labels(name: str, size: int) -> tuple[str, ...]:
    """What the parameters of a list are called."""
    return tuple(f"{name}_{i}" for i in range(size))


def _among(sizes: Mapping[str, int], column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    return column.in_([bindparam(label, type_=column.type) for label in _labels(name, sizes[name])])


def _filled(values: Sequence[Any]) -> Sequence[Any]:
    """The same values, the last repeated up to a power of two: few sizes are compiled."""
    return [*values, *[values[-1]] * ((1 << (len(values) - 1).bit_length()) - len(values))]


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
    columns: tuple[str, ...] = ()
    """What the rows found have, for a query."""


def _compile(statement: Any, dialect: Dialect, prefix: str, row: Row | None) -> _Compiled:
    compiled = statement.compile(dialect=dialect, column_keys=None if row is None else list(row))
    sql = str(compiled).replace(PREFIX, prefix)
    given = row if row is not None else {n for n, v in compiled.params.items() if v is None}
    fixed = {key: value for key, value in compiled.params.items() if key not in given}
    pick = _picking(tuple(compiled.positiontup)) if dialect.positional else dict
    if fixed:
        return _Compiled(sql, lambda row: pick({**fixed, **row}))
    return _Compiled(sql, pick)


def _picking(names: tuple[str, ...]) -> Callable[[Row], Any]:
    """What takes the values of these names out of a row, as fast as can be."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)


def _changing(
    cursor: Any, sql: str, parameters: Sequence[Any], dialect: Dialect
) -> Callable[[], int]:
    """What says how many rows were written, once they are.

    MariaDB counts a replaced row twice, so there each is asked.
    """
    if dialect.name in CONFLICTS:
        cursor.executemany(sql, parameters)
        return lambda: int(cursor.rowcount)
    changed = sum(min(1, cursor.execute(sql, each)) for each in parameters)
    return lambda: changed


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
