"""Reputation is learned from outcomes: liars lose their share, records come to what is true.

Each law is checked against a mutant that believes what it is told, or never forgets, which must
fail the same check.
"""

import random
from collections.abc import Callable
from itertools import count
from statistics import fmean, pvariance

import pytest

from kapelle.state.auction import award_by, weigh
from kapelle.state.offer import Bid, Offer
from kapelle.state.policy import Policy
from kapelle.state.reputation import Count, Outcome, Record
from kapelle.state.skills import PLAIN
from kapelle.state.task import Task

POLICY = Policy()

SAID = {"liar": 0.99, "ann": 0.7, "bob": 0.7, "cyd": 0.7}
TRUE = {"liar": 0.2, "ann": 0.7, "bob": 0.7, "cyd": 0.7}
RUNS = 100
AWARDS = 40

Learn = Callable[[Record, Outcome], Record]


def learn(record: Record, outcome: Outcome) -> Record:
    """As the market does."""
    return record.after(outcome, POLICY.decay)


def believe(record: Record, outcome: Outcome) -> Record:
    """The mutant: what was measured is nothing."""
    return record


def believe_more(record: Record, outcome: Outcome) -> Record:
    """Another: an award is a success."""
    return record.after(outcome.model_copy(update={"score": 1.0}), POLICY.decay)


def winners(seed: int, learning: Learn, rho: float = 0) -> list[str]:
    """Who is awarded one task after the other.

    With a correlation, outcomes of an agent go well or badly together: how often is drawn for each.
    """
    lot, scale = random.Random(seed), (1 - rho) / rho if rho else 0.0
    true = {name: lot.betavariate(p * scale, (1 - p) * scale) if rho else p
            for name, p in TRUE.items()}  # fmt: skip
    policy = POLICY.model_copy(update={"seed": seed})
    records = dict.fromkeys(SAID, Record())
    won = []
    for number in range(AWARDS):
        task = Task(id=f"t{number}", goal="solve", skills=("math.algebra",))
        bids = [
            weigh(
                Bid(call=1, task=task.id, agent=name, status="proposed",
                    offer=Offer(price=1_000, confidence=said)),
                task, records[name], policy, PLAIN,
            )
            for name, said in SAID.items()
        ]  # fmt: skip
        winner = award_by("best_value", bids, [task], policy)[task.id].bid.agent
        score = float(lot.random() < true[winner])
        outcome = Outcome(
            id=task.id, agent=winner, skills=("math.algebra", "math"), score=score, at=number
        )
        records[winner] = learning(records[winner], outcome)
        won.append(winner)
    return won


def share(learning: Learn, rho: float = 0) -> tuple[float, float]:
    """The liar's share of the first award, and of those from the 20th on; over all runs."""
    runs = [winners(seed, learning, rho) for seed in range(RUNS)]
    first = fmean(run[0] == "liar" for run in runs)
    return first, fmean(name == "liar" for run in runs for name in run[20:])


def test_a_liar_loses_its_share_within_20_awards() -> None:
    first, later = share(learn)
    assert first == 1, "at first it is believed"
    assert later < 0.02, "a fair share were 0.25"


def test_a_liar_loses_its_share_too_where_outcomes_go_together() -> None:
    """100 runs, beta-binomial with correlation .1."""
    assert share(learn, 0.1)[1] < 0.02
    assert share(believe, 0.1)[1] > 0.9


@pytest.mark.parametrize("mutant", [believe, believe_more])
def test_a_market_that_does_not_measure_keeps_its_liar(mutant: Learn) -> None:
    assert share(mutant)[1] > 0.9


# ── convergence ───────────────────────────────────────────────────────────────────────────────

Step = Callable[[Count, float], Count]


def fading(decay: float) -> Step:
    """Counts as the market does."""
    return lambda known, score: known.after(score, decay)


def settled(step: Step, chance: float, runs: int, length: int) -> list[float]:
    """The share that went well after so many outcomes, once for each run."""
    found = []
    for seed in range(runs):
        lot, known = random.Random(seed), Count()
        for _ in range(length):
            known = step(known, float(lot.random() < chance))
        found.append(known.good / known.seen)
    return found


def test_a_record_comes_to_what_is_true_with_the_spread_of_its_memory() -> None:
    """Mean p, variance p(1-p)(1-d)/(1+d): 1,000 runs of 120 outcomes, within 4 standard errors."""
    chance, decay, runs = 0.7, 0.9, 1_000
    found = settled(fading(decay), chance, runs, 120)
    spread = chance * (1 - chance) * (1 - decay) / (1 + decay)
    assert abs(fmean(found) - chance) < 4 * (spread / runs) ** 0.5
    assert abs(pvariance(found) / spread - 1) < 4 * (2 / runs) ** 0.5


def test_a_record_that_never_fades_has_another_spread() -> None:
    chance, decay, runs = 0.7, 0.9, 300
    found = settled(fading(1), chance, runs, 120)
    spread = chance * (1 - chance) * (1 - decay) / (1 + decay)
    assert abs(pvariance(found) / spread - 1) > 4 * (2 / runs) ** 0.5


def outcomes_until_noticed(step: Step) -> int:
    """How many failures it takes until one that always did well is expected to fail."""
    known = Count()
    for _ in range(200):
        known = step(known, 1)
    for number in count(1):
        known = step(known, 0)
        if known.good < known.bad:
            return number
    raise AssertionError


def test_who_gets_worse_is_noticed_in_time() -> None:
    """Half of a memory of d^n is over when d^n = 1/2: 14 outcomes at d = .95."""
    assert outcomes_until_noticed(fading(0.95)) == 14
    assert outcomes_until_noticed(fading(1)) == 201
