"""What is asked of the database most often, each built and compiled once a database kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    bindparam,
    case,
    cast,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from kapelle.checkpoints.compiled import Compiled, Manner, Row, compiled
from kapelle.checkpoints.sending import Sender

Among = Callable[[ColumnElement[Any], str], ColumnElement[bool]]
"""Says that a column is among the values of a list, by the list's name."""

CONFLICTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Databases whose insert says ON CONFLICT; the others say ON DUPLICATE KEY."""

ALONE = frozenset(("pysqlite", "psycopg"))
"""Drivers that let a statement stand alone; others begin a transaction by themselves."""


class Statement:
    """An insert, update or delete with parameters, in each database's own words."""

    def __init__(self, build: Callable[[str], Any], *, conditional: Table | None = None) -> None:
        """`build` is given the name of a dialect; None from it: nothing is to be done there.

        `conditional`: the table of rows that lack their tenant where a condition does not hold.
        """
        self._build = build
        self._conditional = "" if conditional is None else conditional.name
        self._compiled: dict[tuple[str, str], Compiled | None] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it once a row. All rows have the same keys."""
        run_all(connection, {self: rows})

    def said(self, manner: Manner, row: Row) -> Compiled | None:
        """The statement in a connection's words, with the parameters that rows like this have."""
        if manner.key not in self._compiled:
            built = self._build(manner.dialect.name)
            self._compiled[manner.key] = (
                None
                if built is None
                else compiled(built, manner, row, conditional=self._conditional)
            )
        return self._compiled[manner.key]


def send(sender: Sender, rows: Mapping[Statement, Sequence[Row]]) -> None:
    """Have statements run in this order, each once a row."""
    sender.send(_said(sender.manner, rows))


def run_all(connection: Connection, rows: Mapping[Statement, Sequence[Row]]) -> None:
    """Run statements in this order, each once a row."""
    sender = Sender(connection)
    send(sender, rows)
    sender.settle()


def _said(
    manner: Manner, rows: Mapping[Statement, Sequence[Row]]
) -> Iterator[tuple[Compiled, Sequence[Row]]]:
    for statement, those in rows.items():
        said = statement.said(manner, those[0])
        if said is not None:
            yield said, those


class Query:
    """A select with parameters, some of them lists."""

    def __init__(self, build: Callable[[Among], Select[Any]]) -> None:
        """`build` is given what says that a column is among the values of a list, by its name."""
        self._build = build
        self._compiled: dict[tuple[str | int, ...], Compiled] = {}

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
        sender = Sender(connection)
        said = self._said(sender.manner, {name: len(values) for name, values in filled.items()})
        found = sender.ask(said, given)
        return [dict(zip(said.columns, row, strict=True)) for row in found]

    def _said(self, manner: Manner, sizes: Mapping[str, int]) -> Compiled:
        key: tuple[str | int, ...] = (*manner.key, *sizes.values())
        if key not in self._compiled:
            query = self._build(partial(_among, sizes))
            columns = tuple(query.selected_columns.keys())
            self._compiled[key] = compiled(query, manner, None, columns=columns)
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
