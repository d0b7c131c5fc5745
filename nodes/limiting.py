"""Limits of models, which all agents of the process share: requests, tokens, who works at once.

A provider that says 429 slows everyone down once: no request of that model starts before the pause
is over. Whoever waits does so in turn, the more urgent before.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from kapelle.nodes.agent import Agent
from kapelle.nodes.services import Clock
from kapelle.nodes.turnstile import Turnstile
from kapelle.state.policy import Policy
from kapelle.state.rate import Limits, Window

ELSEWHERE = 0.05
"""Seconds after which who waits for a place looks again: another event loop may have left it."""


class Meter:
    """One model, as this process uses it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = Window(None)
        self._tokens = Window(None)
        self._at_work = 0
        self._closed_until = 0.0
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = WeakKeyDictionary()

    @asynccontextmanager
    async def turn(self, limits: Limits, tokens: int, priority: int) -> AsyncIterator["Turn"]:
        """Wait for a place within the limits, and hold it."""
        line = self._line()

        async def attempt() -> tuple[Turn | None, float | None]:
            return self._enter(limits, tokens)

        mine = await line.pass_(attempt, priority=priority)
        assert mine is not None, "it has no deadline"
        try:
            yield mine
        finally:
            with self._lock:
                self._at_work -= 1
            line.tell()

    def slow_down(self, began: float, seconds: float, *, asked: bool) -> None:
        """Let nobody start for some seconds.

        Who began before the last pause adds none of its own, unless the provider `asked` for it.
        """
        with self._lock:
            if asked or began >= self._closed_until:
                until = self._clock.now() + seconds
                self._closed_until = max(self._closed_until, until)

    def _enter(self, limits: Limits, tokens: int) -> tuple["Turn | None", float | None]:
        with self._lock:
            self._requests.limit, self._tokens.limit = limits.requests, limits.tokens
            now = self._clock.now()
            free = max(
                self._closed_until,
                self._requests.free_at(now, 1),
                self._tokens.free_at(now, tokens),
            )
            if free > now:
                return None, free - now
            if limits.parallel is not None and self._at_work >= limits.parallel:
                return None, ELSEWHERE
            self._at_work += 1
            self._requests.book(now, 1)
            return Turn(self, now, self._tokens.book(now, tokens)), None

    def _line(self) -> Turnstile:
        with self._lock:
            return self._lines.setdefault(asyncio.get_running_loop(), Turnstile())

    def another(self) -> None:
        """Count a further request of the same try; who comes later waits for it."""
        with self._lock:
            self._requests.book(self._clock.now(), 1)

    def correct(self, entry: list[float] | None, tokens: int) -> None:
        """Count the tokens that were used in place of those that were expected."""
        with self._lock:
            self._tokens.correct(entry, tokens)
        self._line().tell()


class Turn:
    """One try of one agent, admitted."""

    def __init__(self, meter: Meter | None, began: float, entry: list[float] | None) -> None:
        self._meter = meter
        self._began = began
        self._entry = entry

    def used(self, tokens: int) -> None:
        """Say how many tokens it was in the end."""
        if self._meter is not None and self._entry is not None:
            self._meter.correct(self._entry, tokens)

    def slow_down(self, seconds: float, *, asked: bool) -> bool:
        """The provider said that it was too much. Whether everyone now pauses for it."""
        if self._meter is not None:
            self._meter.slow_down(self._began, seconds, asked=asked)
        return self._meter is not None


NO_TURN = Turn(None, 0.0, None)

_meters: WeakKeyDictionary[Clock, dict[str, Meter]] = WeakKeyDictionary()
_present: ContextVar[Meter | None] = ContextVar("_present", default=None)


@asynccontextmanager
async def turn(
    agent: Agent, policy: Policy, clock: Clock, *, tokens: int, priority: int
) -> AsyncIterator[Turn]:
    """Wait until the limits of the agent's model let it work, if it has a model."""
    model = getattr(agent, "meter", None)
    if not isinstance(model, str):
        yield NO_TURN
        return
    meter = _meters.setdefault(clock, {}).setdefault(model, Meter(clock))
    limits = policy.models.get(model) or policy.models.get("*") or Limits()
    token = _present.set(meter)
    try:
        async with meter.turn(limits, tokens, priority) as mine:
            yield mine
    finally:
        _present.reset(token)


def another_request() -> None:
    """What an agent says that asks its model once more within one try."""
    meter = _present.get()
    if meter is not None:
        meter.another()
