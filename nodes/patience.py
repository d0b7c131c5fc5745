"""How long somebody waits for an agent, and what becomes of an answer that comes too late."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

GRACE = 1.0
"""Seconds a cancelled agent has to let go before it is left behind."""


class OutOfTime(Exception):
    """The time is up. Not a `TimeoutError`: those are the agent's own."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.seconds = seconds


@dataclass(slots=True)
class Patience:
    """Whether somebody still waits for a try; what comes after that is ignored, and counted."""

    late: Callable[[], None]
    """Told, from whatever thread, when an answer came that nobody waits for."""
    over: bool = False
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def answered(self) -> None:
        """An answer is there. In time or not?"""
        if self.over and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self.late)
            except RuntimeError:
                return  # closed meanwhile: the process ends, nobody counts any more


patience: ContextVar[Patience | None] = ContextVar("patience", default=None)
"""Of the present try; threads inherit it."""


async def within(
    seconds: float, work: Coroutine[Any, Any, object], waits: Patience | None = None
) -> object:
    """Await `work`, at most `seconds`; then cancel it, and leave it behind if it will not stop.

    Raises:
        OutOfTime: when the time is up, even if `work` swallows its cancellation.
    """
    loop, context = asyncio.get_running_loop(), copy_context()
    doing = loop.create_task(work, context=context)
    over: asyncio.Future[None] = loop.create_future()
    ring = partial(_ring, over)
    doing.add_done_callback(ring, context=context)
    alarm = loop.call_later(seconds, ring, context=context)
    try:
        await over
    except asyncio.CancelledError:
        _give_up(waits)
        doing.cancel()
        raise
    finally:
        alarm.cancel()
    if doing.done():
        return doing.result()
    _give_up(waits)
    doing.cancel()
    await asyncio.wait({doing}, timeout=GRACE)
    if waits is not None:
        doing.add_done_callback(partial(_tell_if_late, waits))
    raise OutOfTime(seconds)


def _ring(over: "asyncio.Future[None]", doing: "asyncio.Future[object] | None" = None) -> None:
    if not over.done():
        over.set_result(None)
    if doing is not None and not doing.cancelled():
        doing.exception()  # nobody need warn of an error nobody waited for


def _tell_if_late(waits: Patience, doing: "asyncio.Future[object]") -> None:
    if not doing.cancelled() and doing.exception() is None:
        waits.answered()


def _give_up(waits: Patience | None) -> None:
    if waits is not None:
        waits.over = True


async def contained(work: Coroutine[Any, Any, object]) -> object:
    """Await what an agent does; what would end more than the agent becomes an ordinary error."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"it called exit({error.code!r})") from error
    except asyncio.CancelledError as error:
        doing = asyncio.current_task()
        if doing is not None and doing.cancelling():
            raise
        raise RuntimeError("it was cancelled from within") from error
