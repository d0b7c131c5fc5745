"""Reading and writing, for everything that keeps something in the database."""

import asyncio
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from kapelle.checkpoints.desk import Desk, Order
from kapelle.checkpoints.doctor import refuse_unsafe
from kapelle.checkpoints.door import door
from kapelle.checkpoints.engine import Address, connect, shown, writing
from kapelle.checkpoints.ids import exact
from kapelle.checkpoints.patience import passing, pauses
from kapelle.checkpoints.schema import upgrade
from kapelle.checkpoints.secret import OPTION, Secret
from kapelle.state.errors import DatabaseFailed

T = TypeVar("T")

READERS = 4
"""Threads that look things up at most, and connections that are kept open for it."""


class Source:
    """Where connections come from. The first one brings the schema up to date."""

    def __init__(
        self,
        address: Address,
        *,
        max_bytes: int,
        secret: Secret = Secret(),  # noqa: B008  # frozen
    ) -> None:
        self._passing: tempfile.TemporaryDirectory[str] | None = None
        url = address.url
        if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
            self._passing = tempfile.TemporaryDirectory(prefix="kapelle-")
            url = url.set(database=str(Path(self._passing.name) / "kapelle.db"))
        self.url = shown(url)
        self._address = replace(address, url=url)
        self._max_bytes = max_bytes
        self.secret = secret
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._most_idle = READERS if address.engine is None else 0

    @cached_property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, of a database that is safe and up to date."""
        engine = connect(self._address).execution_options(**{OPTION: self.secret})
        try:
            with writing(engine) as connection:
                self._prepare(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    @property
    def known(self) -> bool:
        """Whether it was open at least once: what never was is hardly gone for a moment."""
        return "engine" in self.__dict__

    def connect(self) -> Connection:
        """A connection to look at what there is."""
        return self._open().connect()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for one look; it stays open for the next, if the engine is ours."""
        connection = self._idle_one() or self.connect()
        fine = False
        try:
            yield connection
            connection.rollback()
            fine = True
        except DBAPIError:
            connection.invalidate()
            self._let_go()  # the others may be as dead
            raise
        finally:
            if not (fine and self._kept(connection)):
                connection.close()

    def _idle_one(self) -> Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _kept(self, connection: Connection) -> bool:
        with self._lock:
            keeps = len(self._idle) < self._most_idle
            if keeps:
                self._idle.append(connection)
            return keeps

    def _let_go(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def writing(self) -> Connection:
        """A connection that writes."""
        return writing(self._open())

    def as_it_is(self, look: Callable[[Connection], T]) -> T:
        """Look at a database that may be unsafe, empty or newer: nothing is refused or made."""
        with door(self.url):
            engine = connect(self._address)
            try:
                with engine.connect() as connection:
                    return look(connection)
            finally:
                if self._address.engine is None:
                    engine.dispose()

    def close(self) -> None:
        """Close all connections."""
        self._most_idle = 0
        self._let_go()
        with self._lock:
            if self.known and self._address.engine is None:
                self.engine.dispose()
        if self._passing is not None:
            self._passing.cleanup()

    def _prepare(self, connection: Connection) -> None:
        with connection.begin():
            refuse_unsafe(connection, max_bytes=self._max_bytes)
            if self._address.schema is not None:
                connection.execute(CreateSchema(self._address.schema, if_not_exists=True))
        upgrade(connection, self.url)

    def _open(self) -> Engine:
        with self._lock:
            return self.engine


class Access:
    """One tenant's way into the database: one desk that writes, a few threads that read."""

    def __init__(self, source: Source, *, tenant: str) -> None:
        self.tenant = exact("tenant", tenant, 64)
        self.source = source
        self.desk = Desk(source.writing, url=source.url)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="kapelle-read")
        self.close = weakref.finalize(self, _close, self.desk, self._readers, source)
        """Write what was ordered, then let go; done at the latest when nobody uses it."""

    def read(self, look: Callable[[Connection], T]) -> T:
        """Look something up: one snapshot, with all that this process has ordered before."""
        if not self.desk.idle:
            self.desk.do(Order())
        return self._look(look)

    async def aread(self, look: Callable[[Connection], T]) -> T:
        """Look something up: one snapshot, with all that this process has ordered before."""
        if not self.desk.idle:
            await self.desk.ado(Order())
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, partial(self._look, look))

    async def awrite(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction of the desk."""
        return await self.desk.ado(Order(work=work, again=False))

    def _look(self, look: Callable[[Connection], T]) -> T:
        for pause in pauses():
            try:
                return self._once(look)
            except DatabaseFailed as error:
                if not (self.source.known and passing(error)):
                    raise
            time.sleep(pause)
        return self._once(look)

    def _once(self, look: Callable[[Connection], T]) -> T:
        with door(self.source.url), self.source.reading() as connection:
            return look(connection)


def _close(desk: Desk, readers: ThreadPoolExecutor, source: Source) -> None:
    desk.close()
    readers.shutdown(wait=False)
    source.close()
