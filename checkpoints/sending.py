"""How statements reach a database: straight to the driver.

With SQLAlchemy's way there, that is where the time of a small transaction went. Parameters are
texts, bytes, numbers and None, which every driver takes as they are. Its errors come as
SQLAlchemy's, or as `Unmet`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from kapelle.checkpoints.compiled import Compiled, Manner, Row
from kapelle.checkpoints.engine import PREFIX, PREPARED

if TYPE_CHECKING:
    from kapelle.checkpoints.libpq import Pipe

NOT_NULL = "23502"
"""The SQLSTATE of a row that lacks what it needs."""


BEGIN = Compiled("BEGIN IMMEDIATE", lambda _: ())
"""How SQLite begins a transaction that writes."""


class Unmet(Exception):
    """A row was not written, because the statement's condition did not hold."""

    def __init__(self, table: str) -> None:
        super().__init__("the condition of a statement does not hold")
        self.table = table
        """The name of the table the row was meant for."""


class Sender:
    """A connection on which nobody waits for the answer to a statement before sending the next.

    That is so with psycopg; with other drivers each statement is done when it is sent.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.manner = Manner.of(connection)
        self._dbapi = connection.dialect.loaded_dbapi
        self._driver: Any = connection.connection
        self._line = _pipe(connection) or Cursor(connection)

    def send(self, statements: Iterable[tuple[Compiled, Sequence[Row]]]) -> None:
        """Have statements run in this order, each once a row."""
        for compiled, rows in statements:
            try:
                self._line.send(compiled.sql, [compiled.parameters(row) for row in rows])
            except self._dbapi.IntegrityError as error:
                raise self._told(error, compiled.conditional) from error
            except self._dbapi.Error as error:
                raise self._told(error) from error

    def ask(self, compiled: Compiled, row: Row) -> Sequence[tuple[Any, ...]]:
        """The rows that a query finds, after all that was sent."""
        begun = self.connection.in_transaction()
        try:
            return self._line.ask(compiled.sql, compiled.parameters(row), in_transaction=begun)
        except self._dbapi.Error as error:
            raise self._told(error) from error

    def settle(self, *, committed: bool = False) -> None:
        """Wait until all that was sent is done, and committed if that is wanted."""
        try:
            if committed:
                self._line.commit()
            self._line.settle()
        except self._dbapi.Error as error:
            raise self._told(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One that nothing is part of but what is sent here; SQLAlchemy does not hear of it."""
        if self.connection.dialect.name == "sqlite":  # others begin by themselves
            self.ask(BEGIN, {})
        try:
            yield
            self.settle(committed=True)
        except BaseException:
            with suppress(self._dbapi.Error):
                self._driver.rollback()
            raise

    def _told(self, error: Exception, conditional: str = "") -> Exception:
        if table := conditional or self._lacks_tenant(error):
            return Unmet(table)
        return DBAPIError("", None, error)

    def _lacks_tenant(self, error: Any) -> str | None:
        """The table of a row that PostgreSQL refused for want of a tenant."""
        diag = getattr(error, "diag", None)
        if diag is None or diag.sqlstate != NOT_NULL or diag.column_name != "tenant":
            return None
        return PREFIX + str(diag.table_name).removeprefix(self.manner.prefix)


class Cursor:
    """What a `Pipe` is, with a driver that does each statement when it is sent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor: Any = connection.connection.cursor()

    def send(self, sql: str, rows: Sequence[Any]) -> None:
        """Run a statement once a row."""
        self._cursor.executemany(sql, rows)

    def ask(self, sql: str, row: Any, *, in_transaction: bool) -> Sequence[tuple[Any, ...]]:
        """The rows that a query finds."""
        del in_transaction  # the driver sees to it
        self._cursor.execute(sql, row)
        found: Sequence[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def commit(self) -> None:
        """Commit what was done, unless SQLAlchemy is about to."""
        if not self._connection.in_transaction():
            self._connection.connection.commit()

    def settle(self) -> None:
        """Nothing is waited for."""


def _pipe(connection: Connection) -> "Pipe | None":
    if connection.dialect.driver != "psycopg":
        return None
    from kapelle.checkpoints.libpq import Pipe  # noqa: PLC0415  # psycopg may not be there

    driver: Any = connection.connection.driver_connection
    return Pipe(driver, connection.info.get(PREPARED))
