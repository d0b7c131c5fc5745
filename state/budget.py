"""What work may use and what it did use: integers only, so that sums are exact.

    run ── a graph within it ── task ── agent        envelopes, each out of the one before

A call reserves the most it may use in every envelope around it, and settles what it used. Each
envelope has an account with a `Balance`. The invariant, per limit of each account:

    spent + held <= limit + granted + overrun

An overrun is what calls used beyond their reservation: a provider that ignores its limit. It is
booked in full and stops the next reservation. After the escrow method: P. O'Neil, The Escrow
Transactional Method, ACM TODS 11, 1986.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from pydantic import Field

from kapelle.state.noun import Noun

Fit = Literal["fits", "later", "never", "unpriced"]
"""Whether a call can be reserved: now; perhaps when running calls have settled; not any more; not
at all, because money is limited and nobody knows its price."""


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

    def beyond(self, reserved: "Usage") -> tuple[int, int, int]:
        """Tokens, calls and money used above what had been reserved; an unknown price is none."""
        money = (self.micro_usd or 0) - (reserved.micro_usd or 0)
        return (
            max(0, self.tokens - reserved.tokens),
            max(0, self.calls - reserved.calls),
            max(0, money),
        )


class Budget(Noun):
    """The most that may be used. None is no limit."""

    tokens: int | None = Field(default=None, ge=0)
    """Tokens in and out, of all agents together."""
    usd: float | None = Field(default=None, ge=0)
    """US dollars; agents whose price is not known are then refused."""
    calls: int | None = Field(default=None, ge=0)
    """Calls of agents."""
    seconds: float | None = Field(default=None, ge=0)
    """Seconds in which an agent is at work; while a run waits for a person none pass."""

    @classmethod
    def unlimited(cls) -> Self:
        """No limit at all."""
        return cls()

    @property
    def bounded(self) -> bool:
        """Whether there is any limit."""
        return not (
            self.calls is None and self.tokens is None and self.usd is None and self.seconds is None
        )

    @property
    def micro_usd(self) -> int | None:
        """The limit of money in millionths of a US dollar."""
        return None if self.usd is None else round(self.usd * 1_000_000)


class Envelope(NamedTuple):
    """An account and its limit: the run's, a nested graph's, a task's, an agent's."""

    account: str
    """Empty: the run's."""
    budget: Budget


class Spend(Noun):
    """One entry of the ledger: reserved before a call, settled after it."""

    key: str
    """Names the call: it is reserved once and settled once, however often the ledger is told."""
    accounts: tuple[str, ...] = ("",)
    """In whose accounts it stands, outermost first."""
    reserved: Usage
    actual: Usage | None = None
    """None while the call's outcome is not known; it then counts as `reserved`."""

    @property
    def counted(self) -> Usage:
        """What counts against the budget."""
        return self.reserved if self.actual is None else self.actual


@dataclass(slots=True)
class Balance:
    """What stands in one account. Money is in millionths of a US dollar."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    micro_usd: int = 0
    unpriced: int = 0
    """Calls that were settled and whose price nobody knows."""
    held_tokens: int = 0
    """Reserved by calls whose outcome is not known; so are the next two."""
    held_calls: int = 0
    held_usd: int = 0
    over_tokens: int = 0
    """Used above what was reserved; so are the next two."""
    over_calls: int = 0
    over_usd: int = 0
    granted_tokens: int = 0
    """Added to the limit by people; so are the next three."""
    granted_calls: int = 0
    granted_usd: int = 0
    granted_ms: int = 0
    worked_ms: int = 0
    """Milliseconds in which an agent was at work."""

    @property
    def spent(self) -> Usage:
        """What was settled."""
        money = None if self.unpriced else self.micro_usd
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            calls=self.calls,
            micro_usd=money,
        )

    @property
    def counted(self) -> Usage:
        """What counts against the budget: settled, and reserved but not settled."""
        return self.spent + Usage(
            input_tokens=self.held_tokens, calls=self.held_calls, micro_usd=self.held_usd
        )

    def hold(self, wanted: Usage) -> None:
        """Reserve; only what `fit` says fits."""
        self.held_tokens += wanted.tokens
        self.held_calls += wanted.calls
        self.held_usd += wanted.micro_usd or 0

    def settle(self, reserved: Usage, actual: Usage) -> None:
        """Put what was used in the place of what was reserved; what lies above it is an overrun."""
        self.held_tokens -= reserved.tokens
        self.held_calls -= reserved.calls
        self.held_usd -= reserved.micro_usd or 0
        if actual.micro_usd is None and reserved.micro_usd:  # never nothing: as much as was held
            actual = actual.model_copy(update={"micro_usd": reserved.micro_usd})
        self._book(actual, 1)
        tokens, calls, money = actual.beyond(reserved)
        self.over_tokens += tokens
        self.over_calls += calls
        self.over_usd += money

    def correct(self, assumed: Usage, actual: Usage) -> None:
        """Book what a call used that had been charged in full, because nobody knew."""
        self._book(assumed, -1)
        self.hold(assumed)
        self.settle(assumed, actual)

    def grant(self, more: Budget) -> None:
        """Raise the limit."""
        self.granted_tokens += more.tokens or 0
        self.granted_calls += more.calls or 0
        self.granted_usd += more.micro_usd or 0
        self.granted_ms += round((more.seconds or 0) * 1000)

    def seconds_left(self, budget: Budget) -> float | None:
        """Seconds of work that are left; None if they are not limited."""
        if budget.seconds is None:
            return None
        return max(0.0, budget.seconds + (self.granted_ms - self.worked_ms) / 1000)

    def _book(self, used: Usage, sign: int) -> None:
        self.input_tokens += sign * used.input_tokens
        self.output_tokens += sign * used.output_tokens
        self.calls += sign * used.calls
        self.micro_usd += sign * (used.micro_usd or 0)
        self.unpriced += sign * (used.micro_usd is None)


class Room(NamedTuple):
    """What a ledger says to a reservation."""

    fit: Fit
    why: str = ""
    """What stands against it, in words."""
    seconds: float | None = None
    """Seconds of work that are left; None if they are not limited."""
    accounts: tuple[str, ...] = ()
    """Those in which it does not fit."""


def fit(budget: Budget, balance: Balance, wanted: Usage) -> Fit:
    """Whether `wanted` can be reserved in an account.

    `later` if it would fit, were all running calls to settle for nothing.
    """
    if budget.usd is not None and wanted.micro_usd is None:
        return "unpriced"
    if not lacking(budget, balance, wanted, held=True):
        return "fits"
    return "never" if lacking(budget, balance, wanted, held=False) else "later"


def lacking(budget: Budget, balance: Balance, wanted: Usage, *, held: bool) -> str:
    """What the limit leaves no room for, in words; with what is `held` counted or without."""
    if budget.calls is not None:
        used, limit = balance.calls + balance.held_calls * held, budget.calls
        if why := _beyond("calls", used, limit + balance.granted_calls, wanted.calls):
            return why
    if budget.tokens is not None:
        spent = balance.input_tokens + balance.output_tokens
        used, limit = spent + balance.held_tokens * held, budget.tokens
        if why := _beyond("tokens", used, limit + balance.granted_tokens, wanted.tokens):
            return why
    if budget.usd is not None:
        used, limit = balance.micro_usd + balance.held_usd * held, budget.micro_usd or 0
        if why := _beyond("µ$", used, limit + balance.granted_usd, wanted.micro_usd or 0):
            return why
    if budget.seconds is not None and not balance.seconds_left(budget):
        return f"{balance.worked_ms / 1000:g} of {budget.seconds:g} seconds are gone"
    return ""


def room(envelopes: Sequence[Envelope], balances: Sequence[Balance], wanted: Usage) -> Room:
    """Whether `wanted` can be reserved in all these accounts, outermost first."""
    found: Room | None = None
    full: list[str] = []
    left: float | None = None
    for (account, budget), balance in zip(envelopes, balances, strict=True):
        if not budget.bounded:
            continue
        how = fit(budget, balance, wanted)
        if how == "unpriced":
            return Room(how, "money is limited and the price is not known")
        if how != "fits":
            full.append(account)
        if how != "fits" and (found is None or how == "never"):
            what = lacking(budget, balance, wanted, held=how == "later")
            found = Room(how, f"{account or 'run'}: {what}")
        seconds = balance.seconds_left(budget)
        if seconds is not None and (left is None or seconds < left):
            left = seconds
    return found._replace(accounts=tuple(full)) if found else Room("fits", seconds=left)


def _beyond(unit: str, used: int, limit: int, more: int) -> str:
    return f"{used} of {limit} {unit} are gone, {more} are wanted" if used + more > limit else ""
