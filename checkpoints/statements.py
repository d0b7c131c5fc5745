"""What is asked of the database most often, each built and compiled once a database kind.

Running it goes straight to the driver: with SQLAlchemy's way there, that is where the time of a
small transaction went. Parameters are texts, bytes, numbers and None, which every driver takes as
they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import lru_cache, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    RowMapping,
    Select,
    Table,
    bindparam,
    case,
    cast,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import DBAPIError

from kapelle.checkpoints.engine import PREFIX, PREPARED

if TYPE_CHECKING:
    from kapelle.checkpoints.libpq import Pipe

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


NUMBERED = psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""PostgreSQL's own way to name parameters: `$1`, `$2`, …"""

NOT_NULL = "23502"
"""The SQLSTATE of a row that lacks what it needs."""


ALONE = frozenset(("pysqlite", "psycopg"))
"""Drivers that let a statement stand alone; others begin a transaction by themselves."""


class Unmet(Exception):
    """A row was not written, because the statement's condition did not hold."""

    def __init__(self, table: str) -> None:
        super().__init__("the condition of a statement does not hold")
        self.table = table
        """The name of the table the row was meant for."""


class Statement:
    """An insert, update or delete with parameters, in each database's own words."""

    def __init__(self, build: Callable[[str], Any], *, conditional: Table | None = None) -> None:
        """`build` is given the name of a dialect; None from it: nothing is to be done there.

        `conditional`: the table of rows that lack their tenant where a condition does not hold.
        """
        self._build = build
        self._conditional = conditional
        self._compiled: dict[tuple[str, str], _Compiled | None] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row. All rows have the same keys."""
        run_all(connection, {self: rows})

    def send(self, connection: Connection, rows: Sequence[Row], pipe: "Pipe | None") -> None:
        """Have the driver run it once a row; in a pipe, what comes of it is heard later."""
        compiled = self._for(connection, rows[0])
        if compiled is None:
            return
        parameters = [compiled.parameters(row) for row in rows]
        if pipe is not None:
            pipe.send(compiled.sql, parameters)
            return
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(compiled.sql, parameters)
        except connection.dialect.loaded_dbapi.IntegrityError as error:
            if self._conditional is None:
                raise
            raise Unmet(self._conditional.name) from error
        finally:
            cursor.close()

    def _for(self, connection: Connection, row: Row) -> "_Compiled | None":
        dialect = connection.dialect
        prefix = connection.get_execution_options()["kapelle_prefix"]
        if (dialect.name, prefix) not in self._compiled:
            built = self._build(dialect.name)
            compiled = None if built is None else _compile(built, _as_sent(dialect), prefix, row)
            self._compiled[dialect.name, prefix] = compiled
        return self._compiled[dialect.name, prefix]


class Sender:
    """A connection on which nobody waits for the answer to a statement before sending the next.

    That is so with psycopg; with other drivers each statement is done when it is sent. The driver's
    errors come as SQLAlchemy's, or as `Unmet`.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._pipe = _pipe(connection)

    def send(self, rows: Mapping[Statement, Sequence[Row]]) -> None:
        """Have statements run in this order, each once a row."""
        with self._heard():
            for statement, those in rows.items():
                statement.send(self.connection, those, self._pipe)

    def settle(self, *, committed: bool = False) -> None:
        """Wait until all that was sent is done, and committed if that is wanted."""
        if self._pipe is None or not self._pipe.is_open:
            return
        with self._heard():
            if committed:
                self._pipe.commit()
            self._pipe.settle()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except self.connection.dialect.loaded_dbapi.Error as error:
            if table := _lacks_tenant(self.connection, error):
                raise Unmet(table) from error
            raise DBAPIError("", None, error) from error


def run_all(connection: Connection, rows: Mapping[Statement, Sequence[Row]]) -> None:
    """Run statements in this order, each once a row."""
    sender = Sender(connection)
    sender.send(rows)
    sender.settle()


def _pipe(connection: Connection) -> "Pipe | None":
    if connection.dialect.driver != "psycopg":
        return None
    from kapelle.checkpoints.libpq import Pipe  # noqa: PLC0415  # psycopg may not be there

    driver: Any = connection.connection.driver_connection
    return Pipe(driver, connection.info.get(PREPARED))


def _lacks_tenant(connection: Connection, error: Any) -> str | None:
    """The table of a row that PostgreSQL refused for want of a tenant."""
    diag = getattr(error, "diag", None)
    if diag is None or diag.sqlstate != NOT_NULL or diag.column_name != "tenant":
        return None
    prefix = connection.get_execution_options()["kapelle_prefix"]
    return PREFIX + str(diag.table_name).removeprefix(prefix)


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
        return self._rows(connection, where, lists)

    def at_once(self, connection: Connection, where: Row) -> list[Row]:
        """The rows found; no transaction is begun for it, where the driver can do without.

        One statement sees one moment in any case. What is asked after it may see another.
        """
        if connection.dialect.driver in ALONE:
            return self._rows(connection, where, {})
        return self.rows(connection, where)

    def _rows(
        self, connection: Connection, where: Row, lists: Mapping[str, Sequence[Any]]
    ) -> list[Row]:
        filled = {name: _filled(values) for name, values in lists.items()}
        given = dict(where)
        for name, values in filled.items():
            given.update(zip(_labels(name, len(values)), values, strict=True))
        compiled = self._for(connection, {name: len(values) for name, values in filled.items()})
        try:
            found = _found(connection, compiled.sql, compiled.parameters(given))
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(compiled.sql, None, error) from error
        return [dict(zip(compiled.columns, row, strict=True)) for row in found]

    def _for(self, connection: Connection, sizes: Mapping[str, int]) -> "_Compiled":
        dialect = connection.dialect
        prefix = connection.get_execution_options()["kapelle_prefix"]
        key = (dialect.name, prefix, *sizes.values())
        if key not in self._compiled:
            dialect = _as_sent(dialect)
            query = self._build(partial(_among, sizes))
            compiled = _compile(query, dialect, prefix, None)
            self._compiled[key] = replaced(compiled, columns=tuple(query.selected_columns.keys()))
        return self._compiled[key]


@lru_cache(256)
def _labels(name: str, size: int) -> tuple[str, ...]:
    """What the parameters of a list are called."""
    return tuple(f"{name}_{i}" for i in range(size))


def _found(connection: Connection, sql: str, parameters: Any) -> Sequence[tuple[Any, ...]]:
    if (pipe := _pipe(connection)) is not None:
        return pipe.ask(sql, parameters, in_transaction=connection.in_transaction())
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, parameters)
        found: Sequence[tuple[Any, ...]] = cursor.fetchall()
    finally:
        cursor.close()
    return found


def _as_sent(dialect: Dialect) -> Dialect:
    """The dialect in whose words a driver is told."""
    return NUMBERED if dialect.driver == "psycopg" else dialect


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

    Where it does not hold the row has no tenant, which the database refuses: so nobody has to wait
    for an answer before the transaction is committed.

    `key`: what the row is known by; the primary key, if none is named. `computed`: columns that the
    database fills.
    """

    def build(dialect: str) -> Any:
        filled = [c for c in table.c if c.autoincrement is not True]
        shown = {c.name: computed.get(c.name, _given(c, dialect)) for c in filled}
        shown["tenant"] = case((condition, shown["tenant"]))
        insert = CONFLICTS.get(dialect, mysql.insert)(table)
        insert = insert.from_select(list(shown), select(*shown.values()))
        return _replacing(insert, key)

    return Statement(build, conditional=table)


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
