"""Who gets what: the rules by which tasks are awarded to bids.

A bid is worth what the market expects of it: chance of success × `worth` - seconds ×
`cost_of_second` - price, in whole millionths of a US dollar. All rules give the same for every
order of the bids; equal bids are told apart by a lot drawn from the seed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, get_args

from kapelle.state.errors import Misbuilt
from kapelle.state.market import Rule
from kapelle.state.noun import Noun
from kapelle.state.offer import Bid, Offer
from kapelle.state.policy import Policy
from kapelle.state.reputation import Record, expected
from kapelle.state.skills import Ontology
from kapelle.state.task import Task


class Weighed(Noun):
    """A bid as the market sees it."""

    task: str
    agent: str
    offer: Offer
    """What was bid."""
    chance: float
    """Of success, by what the agent says and what was measured."""
    quality: int
    """What it is worth before it is paid, in millionths of a US dollar."""
    lot: str
    """Tells equal bids apart, without favour."""

    @property
    def value(self) -> int:
        """What it is worth when its price is paid."""
        return self.quality - self.offer.price


class Won(Noun):
    """An award as a rule makes it."""

    bid: Weighed
    """The bid that won."""
    price: int
    """What is paid, in millionths of a US dollar."""
    over: str | None = None
    """Who came second."""


Auction = Callable[[Mapping[str, Sequence[Weighed]], Sequence[Task], Policy], dict[str, Won]]
"""A rule: the bids by task, the tasks, the policy; the awards by task."""


def weigh(
    bid: Bid, task: Task, record: Record | None, policy: Policy, ontology: Ontology
) -> Weighed:
    """What a bid is worth, by its offer and the bidder's record."""
    assert bid.offer is not None
    said = bid.offer.confidence
    chance = expected(record or Record(), said, task.skills, ontology, policy.trust)
    worth = chance * policy.worth - bid.offer.seconds * policy.cost_of_second
    return Weighed(
        task=bid.task,
        agent=bid.agent,
        offer=bid.offer,
        chance=chance,
        quality=round(worth),
        lot=sha256(f"{policy.seed}/{bid.task}/{bid.agent}".encode()).hexdigest(),
    )


def award_by(
    rule: Rule, bids: Iterable[Weighed], tasks: Iterable[Task], policy: Policy
) -> dict[str, Won]:
    """The awards, by task; a task without bids has none."""
    by_task: dict[str, list[Weighed]] = {}
    for bid in sorted(bids, key=lambda bid: (bid.task, bid.agent)):
        by_task.setdefault(bid.task, []).append(bid)
    wanted = sorted((t for t in tasks if t.id in by_task), key=lambda t: (-t.priority, t.id))
    return RULES[rule](by_task, wanted, policy)


def best_value(
    bids: Mapping[str, Sequence[Weighed]], tasks: Sequence[Task], policy: Policy
) -> dict[str, Won]:
    """Each task to the bid that is worth most, at the price it asks."""
    return {task.id: _first(_ranked(bids[task.id])) for task in tasks}


def vickrey(
    bids: Mapping[str, Sequence[Weighed]], tasks: Sequence[Task], policy: Policy
) -> dict[str, Won]:
    """Each task to the bid that is worth most, at the price that makes it worth the second best.

    So no bidder gains by asking another price than its own cost (W. Vickrey, Counterspeculation,
    Auctions, and Competitive Sealed Tenders, 1961; for bids that differ in more than price Y.-K.
    Che, Design Competition through Multidimensional Auctions, 1993). Alone, a bidder is paid
    `max_price`, or what it asks if there is none.
    """
    return {task.id: _second_price(_ranked(bids[task.id]), policy) for task in tasks}


def sequential(
    bids: Mapping[str, Sequence[Weighed]], tasks: Sequence[Task], policy: Policy
) -> dict[str, Won]:
    """One task after the other, the urgent first; who has won some is that much slower.

    Sequential single-item auctions: S. Koenig et al., The Power of Sequential Single-Item Auctions
    for Agent Coordination, AAAI 2006.
    """
    busy: dict[str, float] = {}
    won: dict[str, Won] = {}
    for task in tasks:
        delayed = [_delayed(bid, busy.get(bid.agent, 0.0), policy) for bid in bids[task.id]]
        won[task.id] = _first(_ranked(delayed))
        winner = won[task.id].bid
        busy[winner.agent] = busy.get(winner.agent, 0.0) + winner.offer.seconds
    return won


def assignment(
    bids: Mapping[str, Sequence[Weighed]], tasks: Sequence[Task], policy: Policy
) -> dict[str, Won]:
    """All tasks at once: none has more than it must for all to be done; then the most worth.

    Every agent may have as many tasks as the busiest needs to have; of all such assignments it is
    the one worth most (H. W. Kuhn, The Hungarian Method, 1955, by SciPy).
    """
    rows = [{bid.agent: bid for bid in bids[task.id]} for task in tasks]
    agents = sorted({agent for row in rows for agent in row})
    chosen: list[Weighed] = []
    most = math.ceil(len(rows) / max(1, len(agents)))
    while len(chosen) < len(rows):
        chosen = _optimal(rows, agents * most)
        most += 1
    return {bid.task: Won(bid=bid, price=bid.offer.price) for bid in chosen}


RULES: Mapping[Rule, Auction] = {
    "best_value": best_value,
    "vickrey": vickrey,
    "assignment": assignment,
    "sequential": sequential,
}


def must_be_rule(rule: str) -> None:
    """Refuse a rule that can't be used here.

    Raises:
        Misbuilt: when there is no such rule, or SciPy is missing and it needs it.
    """
    if rule not in RULES:
        raise Misbuilt(f"there is no rule {rule!r}; there are {', '.join(get_args(Rule))}")
    if rule == "assignment":
        solver()


def solver() -> Callable[..., Any]:
    """SciPy's solver of assignments.

    Raises:
        Misbuilt: when SciPy is missing.
    """
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped] # noqa: PLC0415 - an extra; heavy
    except ImportError:
        raise Misbuilt(
            'rule "assignment" needs SciPy: pip install "kapelle[market]"; '
            'rule "sequential" does without'
        ) from None
    found: Callable[..., Any] = linear_sum_assignment
    return found


def _optimal(rows: Sequence[Mapping[str, Weighed]], seats: Sequence[str]) -> list[Weighed]:
    """As many rows as can be matched with a seat each, worth most together."""
    values = [bid.value for row in rows for bid in row.values()]
    best, spread = max(values), max(values) - min(values)
    never = float((spread + 1) * (len(rows) + 1))  # dearer than all the rest together
    costs = [
        [float(best - row[seat].value) if seat in row else never for seat in seats] for row in rows
    ]
    pairs = zip(*solver()(costs), strict=True)
    return [rows[r][seats[s]] for r, s in pairs if seats[s] in rows[r]]


def _ranked(bids: Iterable[Weighed]) -> list[Weighed]:
    return sorted(bids, key=lambda bid: (-bid.value, bid.lot))


def _first(ranked: Sequence[Weighed]) -> Won:
    second = ranked[1].agent if len(ranked) > 1 else None
    return Won(bid=ranked[0], price=ranked[0].offer.price, over=second)


def _second_price(ranked: Sequence[Weighed], policy: Policy) -> Won:
    best = ranked[0]
    most = policy.max_price
    if len(ranked) == 1:
        return Won(bid=best, price=best.offer.price if most is None else most)
    price = best.quality - ranked[1].value
    return Won(bid=best, price=price if most is None else min(price, most), over=ranked[1].agent)


def _delayed(bid: Weighed, seconds: float, policy: Policy) -> Weighed:
    cost = round(seconds * policy.cost_of_second)
    return bid.model_copy(update={"quality": bid.quality - cost})
