"""Statements sent to PostgreSQL one after the other, before the first answer is waited for.

It is libpq's pipeline mode, through psycopg's own wrapper of libpq: psycopg's cursors take longer
for a small transaction than the server does. The server is at work while more is being sent.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait

BYTEA = 17
"""The number of PostgreSQL's type of bytes."""

Prepared = dict[str, bytes]
"""Statements that a connection knows, and their names there."""

_numbers = count()


class Pipe:
    """A connection's pipeline: what is sent is done in this order, in one transaction."""

    def __init__(self, driver: Connection[Any], prepared: Prepared | None) -> None:
        """`prepared`: what is known already, added to; None: nothing is to be prepared."""
        self._driver = driver
        self._pg = driver.pgconn
        self._prepared = prepared
        self._new: Prepared = {}

    @property
    def is_open(self) -> bool:
        """Whether there are answers to wait for."""
        return bool(self._pg.pipeline_status)

    def send(self, sql: str, rows: Sequence[Sequence[Any]], *, in_transaction: bool = True) -> None:
        """Have a statement with `$1`, `$2`, … run once a row, all rows of the same types."""
        self._open(in_transaction=in_transaction)
        name = None if self._prepared is None else self._named(sql, rows[0])
        for row in rows:
            values = [v if v is None or type(v) is bytes else str(v).encode() for v in row]
            formats = [type(v) is bytes for v in row]
            if name is None:
                how = (sql.encode(), values, _types(row), formats, Format.BINARY)
                self._pg.send_query_params(*how)
            else:
                self._pg.send_query_prepared(name, values, formats, Format.BINARY)
        self._pg.flush()

    def ask(
        self, sql: str, row: Sequence[Any], *, in_transaction: bool = True
    ) -> list[tuple[Any, ...]]:
        """The rows a query finds, after all that was sent. If in no transaction, none is begun."""
        self.send(sql, [row], in_transaction=in_transaction)
        found = self._settled()
        if found is None:
            return []
        its = Transformer(self._driver)
        its.set_pgresult(found)
        return its.load_rows(0, found.ntuples, tuple)

    def commit(self) -> None:
        """Commit after what was sent; once `settle` returned, it is durable."""
        self._open()
        self._pg.send_query_params(b"COMMIT", None)

    def settle(self) -> None:
        """Wait for all answers. If there is an error, the first is raised."""
        if self.is_open:
            self._settled()

    def _settled(self) -> PGresult | None:
        """The rows that were found last."""
        self._pg.pipeline_sync()
        try:
            failed, found = self._driver.wait(self._answers())
        finally:
            self._pg.exit_pipeline_mode()
        new, self._new = self._new, {}
        if failed is not None:
            raise error_from_result(failed)
        if self._prepared is not None:
            self._prepared |= new
        return found

    def _open(self, *, in_transaction: bool = True) -> None:
        if self.is_open:
            return
        begun = not in_transaction or self._pg.transaction_status != TransactionStatus.IDLE
        self._pg.enter_pipeline_mode()
        if not begun:
            level = self._driver.isolation_level
            how = "" if level is None else " ISOLATION LEVEL " + level.name.replace("_", " ")
            self._pg.send_query_params(f"BEGIN{how}".encode(), None)

    def _named(self, sql: str, row: Sequence[Any]) -> bytes:
        known = self._prepared or {}
        if sql not in known and sql not in self._new:
            self._new[sql] = b"kapelle_%d" % next(_numbers)
            self._pg.send_prepare(self._new[sql], sql.encode(), _types(row))
        return known.get(sql) or self._new[sql]

    def _answers(self) -> PQGen[tuple[PGresult | None, PGresult | None]]:
        """Hear all answers up to the sync: the first that is an error, the last with rows."""
        failed = found = None
        while True:
            unsent = self._pg.flush()
            ready = yield Wait.RW if unsent else Wait.R
            if ready & Ready.R:
                self._pg.consume_input()
            while not self._pg.is_busy():
                result = self._pg.get_result()
                if self._pg.status == ConnStatus.BAD:
                    raise OperationalError(self._pg.get_error_message())
                if result is None:
                    continue
                if result.status == ExecStatus.PIPELINE_SYNC:
                    return failed, found
                if result.status == ExecStatus.FATAL_ERROR:
                    failed = failed or result
                elif result.status == ExecStatus.TUPLES_OK:
                    found = result


def _types(row: Sequence[Any]) -> list[int]:
    return [BYTEA if type(value) is bytes else 0 for value in row]
