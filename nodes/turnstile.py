"""A turnstile: who comes first goes first, the more urgent before; nobody slips past who waits.

Whoever finds no room waits in line, and all who come later wait behind it: small wishes do not
starve large ones.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_Waiter = tuple[int, int, asyncio.Event]

POLL = 1.0
"""Seconds after which the first in line looks by itself, whatever it was told."""


class Turnstile:
    """One line of waiters, of one event loop."""

    def __init__(self) -> None:
        self._line: list[_Waiter] = []
        self._number = itertools.count()

    async def pass_(
        self,
        attempt: Callable[[], Awaitable[tuple[T, float | None]]],
        *,
        priority: int = 0,
        most: float | None = None,
    ) -> T:
        """Attempt until it works out, in turn.

        Args:
            attempt: What was found, and after how many seconds to attempt again at the latest; None
                is at once through.
            priority: The higher, the earlier.
            most: Seconds to wait; after them what was found last.
        """
        if not self._line:
            found, again = await attempt()
            if again is None:
                return found
        loop = asyncio.get_running_loop()
        end = None if most is None else loop.time() + most
        me = (-priority, next(self._number), asyncio.Event())
        heapq.heappush(self._line, me)
        try:
            while True:
                await self._my_turn(me, end)
                found, again = await attempt()
                left = None if end is None else end - loop.time()
                if again is None or (left is not None and left <= 0):
                    return found
                pause = min(again, POLL) if left is None else min(again, POLL, left)
                me[2].clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(me[2].wait(), pause)
        finally:
            self._line.remove(me)
            heapq.heapify(self._line)
            self.tell()

    @property
    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._line

    def tell(self) -> None:
        """There may be room now."""
        if self._line:
            self._line[0][2].set()

    async def _my_turn(self, me: _Waiter, end: float | None) -> None:
        loop = asyncio.get_running_loop()
        while self._line[0] is not me:
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return
            me[2].clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(me[2].wait(), left)
