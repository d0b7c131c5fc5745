"""The database: opens it, brings it up to date, and hands out all that hangs on it."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from langgraph.store.base import IndexConfig, TTLConfig
from sqlalchemy import Connection

from kapelle.checkpoints import retention
from kapelle.checkpoints.access import Access, Source
from kapelle.checkpoints.closing import Closing
from kapelle.checkpoints.doctor import Finding, examine
from kapelle.checkpoints.door import door
from kapelle.checkpoints.effects import SqlEffects
from kapelle.checkpoints.engine import PREFIX, Address, Place
from kapelle.checkpoints.ids import exact
from kapelle.checkpoints.inbox import Inbox
from kapelle.checkpoints.journal import SqlJournal
from kapelle.checkpoints.ledger import SqlLedger
from kapelle.checkpoints.retention import Keep
from kapelle.checkpoints.runbook import RunBook
from kapelle.checkpoints.saver import SqlSaver
from kapelle.checkpoints.schema import HEAD, version
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.secret import Cipher, Secret
from kapelle.checkpoints.serde import serializer
from kapelle.checkpoints.stats import Stats, measure
from kapelle.checkpoints.store import SqlStore
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.memory import StoreMemory
from kapelle.nodes.services import Services
from kapelle.state.errors import Unreadable


class Database(Closing):
    """One database, as one tenant sees it.

    It is opened, and its schema brought up to date, on first use. Close it, or use it as a context
    manager, sync or async; what is still to be written is written then, and at the latest when the
    process ends.

    `url`: a SQLAlchemy URL or the path of an SQLite file; `sqlite://` alone is a file that is gone
    when it is closed. A driver that needs an event loop gives way to one that does not. An `Engine`
    of a server is used as it is; as an `AsyncEngine` connects, so do we; of one of SQLite's the
    file is used. `tenant`: who owns what is stored; no tenant sees another's. `allow`: types
    that may be stored as objects, beside the nouns of `state/`. `create=False`: a file that is not
    there is `DatabaseMissing`. `max_bytes`: the largest single value; more is `PayloadTooLarge`.
    `key`: a secret of at most 64 bytes that seals each row of the saver's, so that whoever can
    write to the database but does not have it can't change what is read of it.
    `cipher`: encrypts whatever agents, models and people said, wherever it is kept; LangGraph's
    `EncryptedSerializer`, or a cipher as that takes.
    `index`, `ttl`: what of the store's items is searched by meaning, and how long they live.
    `schema`: the PostgreSQL schema of the tables. `table_prefix`: what their names begin with.
    """

    def __init__(  # noqa: PLR0913  # each is an option, none needs another
        self,
        url: Place = "sqlite:///kapelle.db",
        *,
        tenant: str = "default",
        allow: Iterable[type] = (),
        create: bool = True,
        max_bytes: int = 8_000_000,
        key: bytes = b"",
        cipher: Cipher | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        schema: str | None = None,
        table_prefix: str = PREFIX,
    ) -> None:
        address = Address.of(url, schema=schema, prefix=table_prefix, create=create)
        secret = Secret.by(cipher)
        source = Source(address, max_bytes=max_bytes, secret=secret)
        self._access = Access(source, tenant=tenant)
        self.url = source.url
        self.tenant = tenant
        serde = serializer(allow, secret.cipher)
        self.saver = SqlSaver(self._access, serde=serde, max_bytes=max_bytes, seal=Seal(key))
        self.store = SqlStore(self._access, serde=serde, max_bytes=max_bytes, index=index, ttl=ttl)
        self.journal = SqlJournal(self._access)
        self.effects = SqlEffects(self._access)
        self.ledger = SqlLedger(self._access)
        self.inbox = Inbox(self._access)
        self.runs = RunBook(self._access)

    async def prune(
        self,
        *,
        threads: Iterable[str] | None = None,
        newest: int = 1,
        seconds: float | None = None,
    ) -> int:
        """Forget checkpoints but the newest of each namespace and the young; how many were dropped.

        What the kept ones build on stays; where that is damaged, `Unreadable` is raised after the
        other threads are done. Each thread, all or those named, is a transaction.
        """
        keep = Keep(newest=max(1, newest), seconds=seconds)
        look = partial(retention.threads, tenant=self.tenant)
        named = await self._access.aread(look) if threads is None else list(threads)
        dropped = 0
        damaged: Unreadable | None = None
        for thread in named:
            work = partial(
                retention.prune, self.saver.view, thread=exact("thread", thread), keep=keep
            )
            try:
                dropped += await self._access.awrite(work)
            except Unreadable as error:
                damaged = damaged or error
        if damaged is not None:
            raise damaged
        return dropped

    async def forget(
        self, *, threads: Iterable[str] | None = None, seconds: float | None = None
    ) -> list[str]:
        """Forget whole threads with their runs and journals: those named, and those idle so long.

        A thread whose run is not finished is not idle, however old it is.
        """
        named = [exact("thread", thread) for thread in threads or ()]
        if seconds is not None:
            look = partial(retention.idle, tenant=self.tenant, seconds=seconds)
            named += await self._access.aread(look)
        gone = list(dict.fromkeys(named))
        for thread in gone:
            work = partial(retention.forget_all, tenant=self.tenant, thread=thread)
            await self._access.awrite(work)
            await StoreMemory(self.store).forget(thread)
        return gone

    async def stats(self, largest: int = 10) -> Stats:
        """Rows and bytes of each table, bytes of the largest threads."""
        return await self._access.aread(partial(measure, tenant=self.tenant, largest=largest))

    async def upgrade(self) -> str:
        """Set the database up, or bring its schema up to date, as first use does; its version."""
        return await self._access.aread(version) or HEAD

    async def doctor(self) -> list[Finding]:
        """What of this database was looked at, what is unsafe, and how to mend it.

        It looks at any database, also at one that is refused for what is found here.
        """
        look = partial(examine, max_bytes=self.saver.max_bytes, serde=self.saver.serde)
        return await asyncio.to_thread(self._access.source.as_it_is, look)

    def connect(self) -> Connection:
        """A connection of SQLAlchemy's, to look at the tables with. Close it soon."""
        with door(self.url):
            return self._access.source.connect()

    def services(self) -> Services:
        """What nodes may call, with journal, ledger, effects and memory in this database."""
        return replace(
            in_memory(),
            journal=self.journal,
            ledger=self.ledger,
            effects=self.effects,
            memory=StoreMemory(self.store),
        )
