"""Offers: what agents bid when they are called for proposals, and which bids count."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from kapelle.state.budget import Usage
from kapelle.state.fold import fold
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard

BidStatus = Literal["proposed", "declined", "silent", "late", "void"]
"""What became of a call for proposals: only what was proposed in time, and may be, can win."""


class Offer(Noun):
    """What a bidder offers to do one task for. What a model that bids answers with."""

    price: int = Field(default=0, ge=0)
    """In millionths of a US dollar."""
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How long it expects to take."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """How sure it is to succeed, from 0 to 1; None if it does not say."""
    decline: str = ""
    """Why it does not bid; empty if it does."""


class Bid(Noun):
    """What one agent answered to one call for proposals."""

    call: int
    """The how-manieth call for proposals it answers, from 1."""
    task: str
    agent: str
    """Stamped by the market, never read from the offer."""
    status: BidStatus
    offer: Offer | None = None
    """What it offers; None if it was silent."""
    after: float = 0.0
    """Seconds after the call that it came."""
    why: str = ""
    """Why it can't win, if it can't."""
    usage: Usage = Usage()
    """What making it used."""

    @property
    def key(self) -> str:
        """Names it: an agent answers each call once for each task."""
        return f"{self.call}/{self.agent}/{self.task}"


def merge_bids(old: Mapping[str, Bid] | None, new: Mapping[str, Bid] | None) -> dict[str, Bid]:
    """Fold bids: an agent answers a call once. Order and repetition do not matter."""
    return fold(old, new, lambda bid: (bid.after, bid.model_dump_json()))


def card_offer(card: AgentCard) -> Offer:
    """The bid an agent makes by its card; what the card does not say costs nothing."""
    return Offer(price=card.price or 0, seconds=card.seconds or 0.0, confidence=card.confidence)


def standing_of(
    offer: Offer | None, after: float, deadline: float, policy: Policy, *, late: bool = False
) -> tuple[BidStatus, str]:
    """What becomes of an answer to a call, and why. The deadline is in seconds after the call.

    `late`: it was awarded without it.
    """
    if offer is None:
        return "silent", f"no bid within {deadline:g} s"
    if offer.decline:
        return "declined", offer.decline
    if late or after > deadline:
        return "late", f"it came after {after:g} s; the deadline was {deadline:g} s"
    if policy.max_price is not None and offer.price > policy.max_price:
        return "void", f"it asks {offer.price}; the most is {policy.max_price}"
    return "proposed", ""


def called(
    able: Mapping[str, Sequence[str]], sick: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Who is called for which tasks: all that are able, but of the `sick` only who is needed.

    Those are called for what nobody else is able to do, and each for so many others: none, or one
    to see whether it is well again.

    >>> called({"ann": ["a", "b"], "bob": ["a"], "cyd": ["a"]}, {"ann": 0, "bob": 0})
    {'ann': ('b',), 'cyd': ('a',)}
    """
    well = {task for name, tasks in able.items() if name not in sick for task in tasks}
    chosen = {
        name: tuple(t for n, t in enumerate(tasks) if n < sick.get(name, n + 1) or t not in well)
        for name, tasks in able.items()
    }
    return {name: tasks for name, tasks in chosen.items() if tasks}
