"""The one door for sync callers: a thread with an event loop; works inside a running loop too."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from kapelle.nodes import elsewhere
from kapelle.state.errors import Misbuilt

T = TypeVar("T")


LETTING_GO = 10.0
"""Seconds that work which is interrupted from the keyboard gets to come to its end."""

LOOKING_UP = 0.5
"""Seconds after which a thread that waits looks whether it was interrupted.

An interrupt that comes at the moment in which Python's main thread falls asleep does not wake it.
"""


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from sync code.

    Interrupted from the keyboard, the coroutine is cancelled and has come to its end, a lease given
    back for example, when the interrupt goes on; a second interrupt does not wait for that.
    """
    if elsewhere.importing():
        work.close()
        raise Misbuilt('put what starts a run under `if __name__ == "__main__":`')
    if inside():
        work.close()
        raise RuntimeError(
            "a sync call from within Kapelle's own loop would wait for itself; await it"
        )
    doing = _Doing(work)
    try:
        _loop().call_soon_threadsafe(doing.begin)
        done = doing.end()
    except BaseException:
        _loop().call_soon_threadsafe(doing.stop)
        with suppress(Empty):
            doing.over.get(timeout=LETTING_GO)
        raise
    if done.cancelled():
        raise CancelledError
    return done.result()


def begin(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Have a coroutine run on the door's loop, whichever loop one is on."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


def inside() -> bool:
    """Whether this is the door's own loop."""
    return threading.current_thread().name == _NAME


def each(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over an async iterator from sync code."""
    try:
        while (item := wait(_next(items))) is not _END:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            wait(close())


_NAME = "kapelle-door"


_END: Any = object()


class _Doing(Generic[T]):
    """A coroutine on the door's loop, which may be stopped at any moment: even before it has begun.

    Its end is told by a queue: what has locks in Python may stay locked when it is interrupted.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.over: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        """Gets the task when it is done."""
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def end(self) -> asyncio.Task[T]:
        """Wait for the task to be done."""
        while True:
            with suppress(Empty):
                return self.over.get(timeout=LOOKING_UP)

    def begin(self) -> asyncio.Task[T]:
        """Called on the loop."""
        self._task = asyncio.ensure_future(self._work)
        self._task.add_done_callback(self._tell)
        return self._task

    def stop(self) -> None:
        """Called on the loop, so that it has begun or never will."""
        task = self._task or self.begin()
        if not task.cancel():
            self._tell(task)

    def _tell(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it counts as seen, should nobody be there any more
        self.over.put(task)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items, _END)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    forever = _forever()  # one root task for all calls: anyio ends worker processes with the root
    run = loop.run_until_complete
    threading.Thread(target=run, args=(forever,), name=_NAME, daemon=True).start()
    return loop


async def _forever() -> None:
    await asyncio.Event().wait()


if hasattr(os, "register_at_fork"):  # a forked process has the loop, but not its thread
    os.register_at_fork(after_in_child=_loop.cache_clear)
