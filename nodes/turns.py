"""Turns: so many at once, and whoever waits goes by urgency, then by arrival."""

import asyncio
import heapq
import itertools
from types import TracebackType


class Turns:
    """A semaphore whose queue is by priority: `most` hold it at once."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._arrivals = itertools.count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    def at(self, priority: int) -> "Turn":
        """A turn at this priority, the higher the earlier; enter it each time one is wanted."""
        return Turn(self, priority)

    async def take(self, priority: int) -> None:
        """Wait for a turn."""
        if self._free > 0:
            self._free -= 1
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (-priority, next(self._arrivals), called))
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # called and cancelled at once
                self.give()
            raise

    def give(self) -> None:
        """Give a turn back, to the most urgent of those who wait."""
        while self._queue:
            _, _, called = heapq.heappop(self._queue)
            if not called.done():
                called.set_result(None)
                return
        self._free += 1


class Turn:
    """`async with` it: waits for a turn and gives it back; as often as it is entered."""

    def __init__(self, turns: Turns, priority: int) -> None:
        self._turns = turns
        self._priority = priority

    async def __aenter__(self) -> None:
        await self._turns.take(self._priority)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._turns.give()
