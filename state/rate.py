"""Limits of one model: so many requests and tokens a minute, so many requests at once."""

from collections import deque
from dataclasses import dataclass, field

from pydantic import Field

from kapelle.state.noun import Noun

MINUTE = 60.0


class Limits(Noun):
    """What a provider allows for one model. None is no limit."""

    parallel: int | None = Field(default=None, ge=1)
    """Requests at once."""
    requests: int | None = Field(default=None, ge=1)
    """Requests in any 60 seconds."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens in any 60 seconds, in and out; a single request may have more, alone."""


@dataclass(slots=True)
class Window:
    """What was booked in the last minute. Never more than `limit` in any minute; else one alone."""

    limit: int | None
    _booked: deque[list[float]] = field(default_factory=deque)
    """Pairs of time and amount, oldest first."""
    _sum: float = 0

    def free_at(self, now: float, amount: int) -> float:
        """The earliest time at which `amount` more may be booked."""
        if self.limit is None:
            return now
        self._forget(now)
        excess = self._sum + amount - self.limit
        for at, booked in self._booked:
            if excess <= 0:
                return now
            excess -= booked
            if excess <= 0:
                return at + MINUTE
        return now if not self._booked else self._booked[-1][0] + MINUTE

    def book(self, now: float, amount: int) -> list[float] | None:
        """Count `amount` from now on; the entry, for `correct`."""
        if self.limit is None:
            return None
        entry = [now, float(amount)]
        self._booked.append(entry)
        self._sum += amount
        return entry

    def correct(self, entry: list[float] | None, amount: int) -> None:
        """Count what it really was in place of what was booked."""
        if entry is not None and self._booked and self._booked[0][0] <= entry[0]:
            self._sum += amount - entry[1]
            entry[1] = amount

    def _forget(self, now: float) -> None:
        while self._booked and self._booked[0][0] + MINUTE <= now:
            self._sum -= self._booked.popleft()[1]
