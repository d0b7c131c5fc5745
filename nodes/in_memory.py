"""The ports, in memory: what serves without a database, in notebooks and in tests."""

import asyncio
import itertools
import os
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakKeyDictionary

from kapelle.nodes.agent import Agent
from kapelle.nodes.services import Services
from kapelle.state.budget import Budget, Spend, Usage
from kapelle.state.budget import fits as fits_in
from kapelle.state.context import MasterContext
from kapelle.state.errors import Misbuilt
from kapelle.state.event import Event
from kapelle.state.skills import fits
from kapelle.state.task import Brief, Task


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
    """Reservations and spends in a dict: exact within one event loop."""

    def __init__(self) -> None:
        self._books: dict[str, dict[str, Spend]] = {}
        self._sums: dict[str, Usage] = {}

    async def open(self, book: str) -> None:
        """Begin a book anew."""
        self._books[book], self._sums[book] = {}, Usage()

    async def reserve(self, book: str, key: str, wanted: Usage, budget: Budget) -> bool:
        """Set `wanted` aside, if the budget allows it."""
        entries = self._books.setdefault(book, {})
        if key in entries:
            return True
        booked = self._sums.get(book, Usage())
        if not fits_in(budget, booked, wanted):
            return False
        entries[key] = Spend(key=key, reserved=wanted)
        self._sums[book] = booked + wanted
        return True

    async def settle(self, book: str, key: str, actual: Usage) -> None:
        """Book what was used in place of what was reserved."""
        entries = self._books.setdefault(book, {})
        open_ = entries.get(key)
        if open_ is None or open_.actual is not None:
            return
        entries[key] = open_.model_copy(update={"actual": actual})
        self._sums[book] = self._sums[book].less(open_.reserved) + actual

    async def spent(self, book: str) -> Usage:
        """What counts against the budget."""
        return self._sums.get(book, Usage())


class MemoryMemory:
    """Master contexts in a dict."""

    def __init__(self) -> None:
        self._contexts: dict[str, MasterContext] = {}

    async def context(self, thread: str) -> MasterContext:
        """The document as it stands."""
        return self._contexts.get(thread, MasterContext())

    async def decide(self, thread: str, context: MasterContext) -> None:
        """Replace the document."""
        self._contexts[thread] = context


class MemoryRegistry:
    """Agents in a dict by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def admit(self, agent: Agent) -> None:
        """Make an agent known."""
        name = agent.card.name
        if self._agents.setdefault(name, agent) is not agent:
            raise Misbuilt(f"there is an agent {name!r} already; give this one another name")

    def find(self, task: Task) -> Sequence[Agent]:
        """Those whose card fits, by name."""
        return [a for _, a in sorted(self._agents.items()) if fits(a.card, task)]


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
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = (
            WeakKeyDictionary()
        )

    def slot(self, agent: Agent) -> AbstractAsyncContextManager[object]:
        """A thread or a process; the event loop and nested graphs need none."""
        size = self._sizes.get(agent.where)
        if size is None:
            return nullcontext()
        limits = self._limits.setdefault(asyncio.get_running_loop(), {})
        return limits.setdefault(agent.where, asyncio.Semaphore(size))

    async def perform(self, agent: Agent, task: Task, brief: Brief) -> object:
        """Have the agent act here."""
        return await agent.act(task, brief)


def in_memory() -> Services:
    """Services that keep everything in this process."""
    return Services(
        journal=MemoryJournal(),
        ledger=MemoryLedger(),
        memory=MemoryMemory(),
        registry=MemoryRegistry(),
        clock=SystemClock(),
        engine=LocalEngine(),
    )
