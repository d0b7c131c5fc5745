"""The one door for sync callers: a thread with an event loop; works inside a running loop too."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

from kapelle.nodes import elsewhere
from kapelle.state.errors import Misbuilt

T = TypeVar("T")


LETTING_GO = 10.0
"""Seconds that work which is interrupted from the keyboard gets to come to its end."""


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
    over = threading.Event()
    doing = begin(_telling(work, over))
    try:
        return doing.result()
    except BaseException:
        if doing.cancel():
            over.wait(LETTING_GO)
        raise


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


async def _telling(work: Coroutine[Any, Any, T], over: threading.Event) -> T:
    try:
        return await work
    finally:
        over.set()


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
