"""One try of one agent: how long it may take, and what is worth another one."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

GRACE = 1.0
"""Seconds a cancelled agent has to let go before it is left behind."""

MESSAGE = 4_000
"""Characters of a failure's message that are kept."""

PAUSE = 60.0
"""Seconds a provider may ask to wait at most."""

_BUGS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, SyntaxError)


class OutOfTime(Exception):
    """The time is up. Not a `TimeoutError`: those are the agent's own."""


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
    doing = asyncio.ensure_future(work)
    doing.add_done_callback(_seen)
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    doing.add_done_callback(partial(_ring, over))
    alarm = loop.call_later(seconds, _ring, over)
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
    raise OutOfTime


def _ring(over: "asyncio.Future[None]", _: object = None) -> None:
    if not over.done():
        over.set_result(None)


def _seen(doing: "asyncio.Future[object]") -> None:
    """Nobody need warn of an error nobody waited for."""
    if not doing.cancelled():
        doing.exception()


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


def retry_after(error: Exception, now: float) -> float:
    """Seconds a provider asks to wait (HTTP's Retry-After), at most a minute; 0 if it does not.

    `now`: Unix time in seconds, for those that name a moment (RFC 9110, section 10.2.3).
    """
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    said = str(headers.get("retry-after", "")).strip()
    try:
        seconds = float(said)
    except ValueError:
        seconds = _until(said, now)
    return min(PAUSE, max(0.0, seconds)) if seconds == seconds else 0.0  # noqa: PLR0124  NaN


def _until(said: str, now: float) -> float:
    try:
        moment = parsedate_to_datetime(said)
    except (TypeError, ValueError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


def at_limit(error: Exception) -> bool:
    """Whether a provider says that there are too many requests."""
    return getattr(error, "status_code", None) == 429


def worth_retrying(error: Exception) -> bool:
    """Whether trying again can help: not for a bug, nor for a request the provider rejects."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 409, 429) or status >= 500
    return not isinstance(error, _BUGS)


def said(error: Exception) -> str:
    """An error's message."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its __str__ may raise anything
        return "(its message can't be read)"


def legible(why: str) -> str:
    """What can be stored and read: no lone surrogates, no more than a page."""
    text = why if len(why) <= MESSAGE else f"{why[:MESSAGE]} … ({len(why)} characters)"
    return text.encode(errors="replace").decode()
