"""What work may use and what it did use: integers only, so that sums are exact."""

from typing import Self

from pydantic import Field

from kapelle.state.noun import Noun


class Usage(Noun):
    """Tokens, calls and money."""

    input_tokens: int = Field(default=0, ge=0)
    """Tokens sent to models."""
    output_tokens: int = Field(default=0, ge=0)
    """Tokens models answered."""
    calls: int = Field(default=0, ge=0)
    """Calls of agents."""
    micro_usd: int | None = Field(default=0, ge=0)
    """Money in millionths of a US dollar; None if a price is not known."""

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        unpriced = self.micro_usd is None or other.micro_usd is None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            calls=self.calls + other.calls,
            micro_usd=None if unpriced else (self.micro_usd or 0) + (other.micro_usd or 0),
        )

    def less(self, other: "Usage") -> "Usage":
        """What is left when `other`, which was added before, is taken out again."""
        unpriced = self.micro_usd is None or other.micro_usd is None
        return Usage(
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
            calls=self.calls - other.calls,
            micro_usd=None if unpriced else (self.micro_usd or 0) - (other.micro_usd or 0),
        )


class Budget(Noun):
    """The most that a run may use. None is no limit."""

    tokens: int | None = Field(default=None, ge=0)
    """Tokens in and out, of all agents together."""
    calls: int | None = Field(default=None, ge=0)
    """Calls of agents."""

    @classmethod
    def unlimited(cls) -> Self:
        """No limit at all."""
        return cls()


class Spend(Noun):
    """One entry of the ledger: reserved before a call, settled after it."""

    key: str
    """Names the call: the same call reserves and settles once, however often it is told to."""
    reserved: Usage
    actual: Usage | None = None
    """None while the call's outcome is not known; it then counts as `reserved`."""

    @property
    def counted(self) -> Usage:
        """What counts against the budget."""
        return self.reserved if self.actual is None else self.actual


def fits(budget: Budget, booked: Usage, wanted: Usage) -> bool:
    """Whether `wanted` can still be reserved when `booked` is spent or reserved already."""
    return _below(booked.tokens + wanted.tokens, budget.tokens) and _below(
        booked.calls + wanted.calls, budget.calls
    )


def _below(amount: int, limit: int | None) -> bool:
    return limit is None or amount <= limit
