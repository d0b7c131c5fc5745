"""Sync code in threads of its own: one that never returns holds up neither the loop nor the exit.

anyio's own threads are waited for when the interpreter ends; these are not.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import current_default_thread_limiter

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Call `work` in a thread; cancelled, the thread is left behind."""
    async with current_default_thread_limiter():  # a virtual clock looks at it
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        told = partial(_tell, loop, outcome)
        given = (_run, work, told)
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=given, name="kapelle-agent", daemon=True).start()
        return await outcome


def _run(work: Callable[[], Any], told: Callable[[Any, BaseException | None], None]) -> None:
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001  whatever it is, whoever waits is told
        told(None, error)
    else:
        told(value, None)


def _tell(
    loop: asyncio.AbstractEventLoop,
    outcome: asyncio.Future[Any],
    value: object,
    error: BaseException | None,
) -> None:
    try:
        loop.call_soon_threadsafe(_settle, outcome, value, error)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _settle(outcome: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if outcome.done():
        return
    if isinstance(error, StopIteration):  # a future can't carry it
        error = RuntimeError("StopIteration")
    if error is None:
        outcome.set_result(value)
    else:
        outcome.set_exception(error)
