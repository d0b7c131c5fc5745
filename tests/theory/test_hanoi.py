"""A chain of 1,023 votes, each first to ahead by five, gets the towers of Hanoi across."""

import math
import random
from statistics import fmean, stdev

from kapelle.state.ballot import AheadBy, expected_votes, lead_accuracy, short_of

MOVES, P, K = 1_023, 0.9, 5

RUNS = 250


def chain(seed: int, k: int) -> tuple[bool, int]:
    """Whether every move of one run is right, and the votes it takes; whoever errs, errs alike."""
    lot, rule = random.Random(seed), AheadBy(k=k)
    votes, solved = 0, True
    for _ in range(MOVES):
        count = {"right": 0.0, "wrong": 0.0}
        while due := short_of(rule, count):
            good = sum(lot.random() < P for _ in range(due))
            count["right"] += good
            count["wrong"] += due - good
            votes += due
        solved &= count["right"] > count["wrong"]
    return solved, votes


def as_the_paper_says(k: int) -> bool:
    """98 % solved within 4 standard errors, 6,393 votes within 4 of its own, over 250 runs."""
    runs = [chain(seed, k) for seed in range(RUNS)]
    solved, votes = [s for s, _ in runs], [v for _, v in runs]
    chance = lead_accuracy(P, K) ** MOVES
    few = abs(fmean(solved) - chance) <= 4 * math.sqrt(chance * (1 - chance) / RUNS)
    long = abs(fmean(votes) - 6_393.5) <= 4 * stdev(votes) / math.sqrt(RUNS)
    return few and long


def test_98_percent_of_runs_are_solved_with_6393_votes_each() -> None:
    assert round(lead_accuracy(P, K) ** MOVES, 2) == 0.98
    assert int(MOVES * expected_votes(P, K)) == 6_393
    assert as_the_paper_says(K)


def test_ahead_by_one_less_is_too_little() -> None:
    assert not as_the_paper_says(K - 1)
