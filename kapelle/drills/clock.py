"""A virtual clock: hours pass in no time, and in order.

    clock = VirtualClock()
    clock.run(main())            # asyncio.sleep(3600) in it takes no real time

`run` uses an event loop that jumps to its next timer whenever nothing is ready and nothing outside
of it is at work. While a thread (asyncio's or anyio's default pool), an open socket or a child
process is, time passes as it really does.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualClock:
    """Time for a drill; satisfies the `Clock` port. `start` is Unix time in seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self._start = start
        self.passed = 0.0
        """Seconds since the start."""

    def now(self) -> float:
        """Unix time in seconds."""
        return self._start + self.passed

    async def sleep(self, seconds: float) -> None:
        """Wait; takes no real time within `run`."""
        await asyncio.sleep(seconds)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end on a loop whose time is this clock's; another run goes on in time."""
        loop = VirtualLoop(self)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(loop.watching_threads(main))


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a `VirtualClock`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        self._at_work = 0
        self._threads: CapacityLimiter | None = None
        super().__init__(_Selector(clock, self._works_outside))

    def time(self) -> float:
        """The clock's time, which timers are set by."""
        return self._virtual.passed

    async def watching_threads(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main`, with an eye on anyio's threads."""
        self._threads = current_default_thread_limiter()
        return await main

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As asyncio does; time does not jump until it is done."""
        self._at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As asyncio does; time does not jump until it is done."""
        self._at_work += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._at_work -= 1

    def _done(self, _: object) -> None:
        self._at_work -= 1

    def _works_outside(self) -> bool:
        return self._at_work > 0 or (
            self._threads is not None and self._threads.borrowed_tokens > 0
        )


class _Selector(selectors.DefaultSelector):
    """Jumps to the next timer where asyncio would wait for it."""

    def __init__(self, clock: VirtualClock, works_outside: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._works_outside = works_outside

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self._works_outside() or self._has_sockets():
            return self._wait(timeout)
        self._clock.passed += timeout
        return ready

    def _wait(self, timeout: float | None) -> Any:
        began = time.monotonic()
        ready = super().select(timeout)
        self._clock.passed += time.monotonic() - began
        return ready

    def _has_sockets(self) -> bool:
        return len(self.get_map()) > 1  # one is the loop's own, which wakes it
