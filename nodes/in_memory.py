"""The ports, in memory: what serves without a database, in notebooks and in tests."""

import asyncio
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from weakref import WeakKeyDictionary

from langgraph.store.memory import InMemoryStore
from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.memory import StoreMemory
from kapelle.nodes.services import Services
from kapelle.nodes.turns import Turns
from kapelle.state.budget import Balance, Budget, Envelope, Room, Spend, Usage, room
from kapelle.state.effect import Effect, EffectStatus, began, settled_by
from kapelle.state.errors import Misbuilt
from kapelle.state.event import Event
from kapelle.state.skills import PLAIN, Ontology, fits
from kapelle.state.task import Brief, Task

_FREE = nullcontext()


class MemoryJournal:
    """Events in a list per thread, the oldest dropped beyond `most` a thread."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._events: dict[str, dict[str, Event]] = {}
        self._nameless = itertools.count()

    def record(self, events: Sequence[Event]) -> None:
        """Keep events; one with a known key is the same event."""
        for event in events:
            kept = self._events.setdefault(event.thread, {})
            kept.setdefault(event.key or f"#{next(self._nameless)}", event)
            if len(kept) > self._most:
                del kept[next(iter(kept))]

    async def read(self, thread: str) -> list[Event]:
        """The events of a thread, in order."""
        return list(self._events.get(thread, {}).values())


class MemoryLedger:
    """Accounts in a dict: exact within one process, gone with it."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}

    async def open(self, book: str, run: str = "") -> None:
        """Begin a book anew, if it is not that of `run` already."""
        there = self._books.get(book)
        if there is None or not run or there.run != run:
            self._books[book] = _Book(run)

    async def reserve(
        self,
        book: str,
        key: str,
        wanted: Usage,
        envelopes: Sequence[Envelope],
        worked: Mapping[str, int] | None = None,
    ) -> Room:
        """Set `wanted` aside in every envelope, if all have room."""
        kept = self._book(book)
        if key in kept.held:
            return Room("fits")
        kept.work(worked)
        balances = [kept.account(envelope.account) for envelope in envelopes]
        said = room(envelopes, balances, wanted)
        if said.fit == "fits":
            for balance in balances:
                balance.hold(wanted)
            kept.held[key] = wanted, balances, [envelope.account for envelope in envelopes]
        return said

    async def settle(
        self, book: str, key: str, actual: Usage, worked: Mapping[str, int] | None = None
    ) -> None:
        """Book what was used in place of what was reserved."""
        kept = self._book(book)
        kept.work(worked)
        wanted, balances, _ = kept.held.pop(key, (None, (), ()))
        if wanted is not None:
            for balance in balances:
                balance.settle(wanted, actual)
        elif key in kept.charged:
            wanted, balances, _ = kept.charged.pop(key)
            for balance in balances:
                balance.correct(wanted, actual)

    async def charge(self, book: str) -> None:
        """Book in full what is reserved."""
        kept = self._book(book)
        for wanted, balances, _ in kept.held.values():
            for balance in balances:
                balance.settle(wanted, wanted)
        kept.charged |= kept.held
        kept.held = {}

    async def grant(self, book: str, more: Budget, account: str = "", key: str = "") -> None:
        """Raise the limit of an account, once for a key."""
        kept = self._book(book)
        if not key or (key, account) not in kept.granted:
            kept.granted.add((key, account))
            kept.account(account).grant(more)

    async def balance(self, book: str, account: str = "") -> Balance:
        """What stands in an account."""
        return replace(self._book(book).account(account))

    async def held(self, book: str) -> list[Spend]:
        """The reservations whose outcome is not known."""
        return [
            Spend(key=key, accounts=tuple(accounts), reserved=wanted)
            for key, (wanted, _, accounts) in sorted(self._book(book).held.items())
        ]

    async def spent(self, book: str) -> Usage:
        """What counts against the run's budget."""
        return self._book(book).account("").counted

    def _book(self, book: str) -> "_Book":
        if book not in self._books:
            self._books[book] = _Book("")
        return self._books[book]


_Entry = tuple[Usage, Sequence[Balance], Sequence[str]]


class _Book:
    """The accounts of one run, and what is reserved in them."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.held: dict[str, _Entry] = {}
        self.charged: dict[str, _Entry] = {}
        self.granted: set[tuple[str, str]] = set()
        self._accounts: dict[str, Balance] = {}

    def account(self, name: str) -> Balance:
        if name not in self._accounts:
            self._accounts[name] = Balance()
        return self._accounts[name]

    def work(self, worked: Mapping[str, int] | None) -> None:
        for name, ms in (worked or {}).items():
            self.account(name).worked_ms += ms


class MemoryEffects:
    """Effects in a dict: as durable as the process."""

    def __init__(self) -> None:
        self._books: dict[tuple[str, str], Effect] = {}

    async def begin(self, book: str, wanted: Effect) -> Effect:
        """Write down that an effect begins."""
        known = began(self._books.get((book, wanted.key)), wanted)
        self._books[book, wanted.key] = known
        return known

    async def settle(
        self, book: str, key: str, holder: str, status: EffectStatus, output: JsonValue = None
    ) -> None:
        """Write down how an effect ended."""
        self._books[book, key] = settled_by(self._books[book, key], holder, status, output)


class MemoryRegistry:
    """Agents in a dict by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def admit(self, agent: Agent) -> None:
        """Make an agent known."""
        name = agent.card.name
        if self._agents.setdefault(name, agent) is not agent:
            raise Misbuilt(f"there is an agent {name!r} already; give this one another name")

    def find(self, task: Task, ontology: Ontology = PLAIN) -> Sequence[Agent]:
        """Those whose card fits, by name."""
        return [a for _, a in sorted(self._agents.items()) if fits(a.card, task, ontology)]


class SystemClock:
    """The machine's clock and the event loop's timers."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class LocalEngine:
    """This process: threads for sync functions, one worker process a core for `cpu=True`."""

    def __init__(self, *, threads: int = 32, processes: int | None = None) -> None:
        self._sizes = {"thread": threads, "process": processes or os.cpu_count() or 1}
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Turns]] = (
            WeakKeyDictionary()
        )

    def slot(self, agent: Agent, priority: int = 0) -> AbstractAsyncContextManager[object]:
        """A thread or a process, for the most urgent first; the event loop and graphs need none."""
        size = self._sizes.get(agent.where)
        if size is None:
            return _FREE
        limits = self._limits.setdefault(asyncio.get_running_loop(), {})
        return limits.setdefault(agent.where, Turns(size)).at(priority)

    async def perform(self, agent: Agent, task: Task, brief: Brief) -> object:
        """Have the agent act here."""
        return await agent.act(task, brief)


SYSTEM_CLOCK = SystemClock()
"""One for all: what is shared by the process is shared by its clock."""


def in_memory() -> Services:
    """Services that keep everything in this process."""
    return Services(
        journal=MemoryJournal(),
        ledger=MemoryLedger(),
        effects=MemoryEffects(),
        memory=StoreMemory(InMemoryStore()),
        registry=MemoryRegistry(),
        clock=SYSTEM_CLOCK,
        engine=LocalEngine(),
    )
