"""Reserve before a call, settle after it: wait in turn for room that running calls may leave."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from kapelle.nodes.here import Here
from kapelle.nodes.services import Ledger
from kapelle.nodes.turnstile import Turnstile
from kapelle.state.budget import Envelope, Room, Usage
from kapelle.state.policy import Policy

SOON = 0.05
"""Seconds after which the first in line asks the ledger again: another process may have settled."""


async def reserve(
    here: Here,
    key: str,
    wanted: Usage,
    envelopes: Sequence[Envelope],
    *,
    policy: Policy,
    priority: int = 0,
) -> Room:
    """Set `wanted` aside; what does not fit now but may when running calls have settled waits."""
    ledger, book, clock = here.services.ledger, here.thread, here.services.clock
    desk, said = _desk(ledger, book), None
    if desk.line.empty:
        worked = desk.worked(envelopes, clock.now())
        said = await ledger.reserve(book, key, wanted, envelopes, worked)
    if said is None or said.fit == "later":
        wish = _Wish(here, key, wanted, envelopes, desk)
        said = await desk.line.pass_(wish.attempt, priority=priority, most=policy.budget_wait)
    if said.fit == "fits":
        desk.begin(envelopes, clock.now())
    return said


@dataclass
class _Wish:
    """What waits in line for room."""

    here: Here
    key: str
    wanted: Usage
    envelopes: Sequence[Envelope]
    desk: "_Desk"
    pause: float = SOON

    async def attempt(self) -> tuple[Room, float | None]:
        """What the ledger says now; after how many seconds to ask again."""
        services = self.here.services
        worked = self.desk.worked(self.envelopes, services.clock.now())
        book = self.here.thread
        said = await services.ledger.reserve(book, self.key, self.wanted, self.envelopes, worked)
        if said.fit != "later":
            return said, None
        self.pause *= 2
        return said, self.pause


async def settle(here: Here, key: str, actual: Usage, envelopes: Sequence[Envelope]) -> None:
    """Book what was used, and let the next one in line look whether it fits now."""
    ledger, book = here.services.ledger, here.thread
    desk = _desk(ledger, book)
    worked = desk.end(envelopes, here.services.clock.now())
    await ledger.settle(book, key, actual, worked)
    desk.line.tell()
    if desk.idle:
        _desks.get(asyncio.get_running_loop(), {}).pop((id(ledger), book), None)


class _Desk:
    """Who waits for room in one book, and how long agents have been at work on it."""

    def __init__(self) -> None:
        self.line = Turnstile()
        self._running = 0
        self._at_work: Counter[str] = Counter()
        self._since: dict[str, float] = {}

    @property
    def idle(self) -> bool:
        return not self._running and self.line.empty

    def begin(self, envelopes: Sequence[Envelope], now: float) -> None:
        self._running += 1
        for account, budget in envelopes:
            if budget.seconds is not None:
                self._since.setdefault(account, now)
                self._at_work[account] += 1

    def end(self, envelopes: Sequence[Envelope], now: float) -> dict[str, int]:
        self._running -= 1
        worked = self.worked(envelopes, now)
        for account, budget in envelopes:
            if budget.seconds is not None:
                self._at_work[account] -= 1
                if not self._at_work[account]:
                    del self._at_work[account], self._since[account]
        return worked

    def worked(self, envelopes: Sequence[Envelope], now: float) -> dict[str, int]:
        """Milliseconds of work that were not told yet, by account."""
        told: dict[str, int] = {}
        for account, budget in envelopes:
            if budget.seconds is not None and account in self._since:
                ms = int((now - self._since[account]) * 1000)
                self._since[account] += ms / 1000
                told[account] = ms
        return told


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str], _Desk]] = (
    WeakKeyDictionary()
)


def _desk(ledger: Ledger, book: str) -> _Desk:
    loop, key = asyncio.get_running_loop(), (id(ledger), book)
    desks = _desks.get(loop)
    if desks is None:
        desks = _desks[loop] = {}
    if key not in desks:
        desks[key] = _Desk()
    return desks[key]
