"""Votes are as right, and take as many calls, as theory says; what breaks a law does not."""

import math
from collections.abc import Sequence
from statistics import fmean

import pytest

from kapelle.state.ballot import (
    AheadBy,
    LogOdds,
    Plurality,
    expected_votes,
    lead_accuracy,
    vote_accuracy,
)
from kapelle.state.course import proceed
from tests.theory.voters import (
    Held,
    Independent,
    Law,
    an_election,
    correlated,
    debate_first,
    first_of_the_tied,
    hold,
    one_less,
)

N = 1_000
"""Elections in a simulation; 4 standard errors of a share are then at most .063."""


def near(seen: Sequence[bool], expected: float) -> bool:
    """Whether a share is what was expected, within 4 standard errors."""
    return abs(fmean(seen) - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(seen))


def by_plurality(p: float, n: int, law: Law = proceed, rho: float = 0.0) -> list[Held]:
    """Elections of n voters."""
    voters = [correlated(p, rho, f"{run}") if rho else Independent(p, f"{run}") for run in range(N)]
    return [hold(an_election(Plurality(), n), voter, law) for voter in voters]


def right(held: Sequence[Held]) -> list[bool]:
    """Which of them were."""
    return [one.answer == "right" for one in held]


# ── plurality ──


@pytest.mark.parametrize(("p", "n"), [(0.7, 5), (0.6, 9)])
def test_a_majority_is_right_as_often_as_condorcet_says(p: float, n: int) -> None:
    assert near(right(by_plurality(p, n)), vote_accuracy(p, n))


@pytest.mark.parametrize("rho", [0.1, 0.4])
def test_a_majority_of_voters_who_err_together_is_right_less_often(rho: float) -> None:
    held = right(by_plurality(0.7, 5, rho=rho))
    assert near(held, vote_accuracy(0.7, 5, rho))
    assert not near(held, vote_accuracy(0.7, 5)), "they are not independent"


def tied_as_expected(law: Law) -> bool:
    """Four voters: right as often as three or four are, and tied as often as two are."""
    held = by_plurality(0.7, 4, law)
    tied = [one.answer is None for one in held]
    return near(right(held), vote_accuracy(0.7, 4)) and near(tied, 6 * (0.7 * 0.3) ** 2)


def test_a_tie_is_no_win() -> None:
    assert tied_as_expected(proceed)
    assert not tied_as_expected(first_of_the_tied)


def test_a_vote_stops_as_early_as_it_can() -> None:
    """Of 5 voters 3 are asked when they agree, 4 when one differs, else all."""
    same, other = 0.7**3 + 0.3**3, 3 * (0.7**3 * 0.3 + 0.3**3 * 0.7)
    votes = [one.votes for one in by_plurality(0.7, 5)]
    assert fmean(votes) == pytest.approx(5 - other - 2 * same, abs=0.09)
    assert near([v == 3 for v in votes], same)


# ── ahead by k ──


def leads_as_expected(k: int, law: Law) -> bool:
    """As right, and on average within 4 % as long, as the gambler's ruin says."""
    rule = AheadBy(k=k)
    held = [hold(an_election(rule, 3), Independent(0.7, f"{run}"), law) for run in range(N)]
    votes = fmean(one.votes for one in held)
    return near(right(held), lead_accuracy(0.7, k)) and (
        abs(votes / expected_votes(0.7, k) - 1) < 0.04
    )


@pytest.mark.parametrize("k", [2, 3])
def test_first_to_be_ahead_by_k_is_the_gambler_s_ruin(k: int) -> None:
    assert leads_as_expected(k, proceed)
    assert not leads_as_expected(k, one_less)


def led(p: float, k: int) -> tuple[float, float]:
    """How often a lead by k is right and how many votes it takes, for any p."""
    right = 1 / (1 + ((1 - p) / p) ** k)
    return right, k * (2 * right - 1) / (2 * p - 1)


def test_voters_who_err_together_lead_as_often_and_as_late_as_their_mixture_says() -> None:
    """1,000 runs, how good all voters are drawn anew for each: Beta of mean .7, correlation .2."""
    rho, k, cells = 0.2, 3, 20_001  # an odd number: no cell is at .5
    scale = (1 - rho) / rho
    grid = [(n + 0.25) / cells for n in range(cells)]
    weights = [p ** (0.7 * scale - 1) * (1 - p) ** (0.3 * scale - 1) for p in grid]
    total = math.fsum(weights)
    known = [led(p, k) for p in grid]
    right_, long = (
        math.fsum(w * of[i] for w, of in zip(weights, known, strict=True)) / total for i in (0, 1)
    )
    held = [hold(an_election(AheadBy(k=k), 3), correlated(0.7, rho, f"{n}")) for n in range(N)]
    assert near(right(held), right_)
    assert fmean(one.votes for one in held) == pytest.approx(long, rel=0.05)
    assert not near(right(held), lead_accuracy(0.7, k)), "they are not independent"


# ── log-odds ──


def test_weighing_by_log_odds_is_as_good_as_the_best_rule_there_is() -> None:
    """Voters from .6 to .8, against the sum over all 32 ways they can be right."""
    accuracy = {"p0": 0.6, "p1": 0.8, "p2": 0.7, "p3": 0.6, "p4": 0.7}
    best = _bayes(list(accuracy.values()))
    held = []
    for run in range(N):
        voters = {name: Independent(p, f"{run}") for name, p in accuracy.items()}
        election = an_election(LogOdds(accuracy=accuracy))
        held.append(hold(election, lambda task: voters[task.id.split("/")[0]](task)))  # noqa: B023
    assert near(right(held), best)
    assert best > vote_accuracy(fmean(accuracy.values()), 5), "it is better than one vote each"
    assert fmean(one.votes for one in held) < 5
    sure = fmean(one.tally.confidence for one in held)
    assert sure == pytest.approx(best, abs=0.03), "it knows how sure it can be"


def _bayes(ps: list[float]) -> float:
    total = 0.0
    for ways in range(2 ** len(ps)):
        yes = math.prod(p if ways >> n & 1 else 1 - p for n, p in enumerate(ps))
        no = math.prod(1 - p if ways >> n & 1 else p for n, p in enumerate(ps))
        total += yes if yes > no else 0.0
    return total


# ── debate ──

DEBATED = {0: 0.837, 1: 0.762, 3: 0.714}
"""How often five copying voters of .7 are right after so many rounds, before they vote."""


def copied(p: float, n: int, rounds: int) -> float:
    """The same in closed form: in each round each takes over what one of the n has said."""
    chance = [_binomial(x, n, p) for x in range(n + 1)]
    for _ in range(rounds):
        chance = [
            sum(c * _binomial(y, n, x / n) for x, c in enumerate(chance)) for y in range(n + 1)
        ]
    return sum(chance[n // 2 + 1 :])


def _binomial(x: int, n: int, p: float) -> float:
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)


@pytest.mark.parametrize(("rounds", "expected"), DEBATED.items())
def test_copying_before_the_vote_destroys_it(rounds: int, expected: float) -> None:
    assert round(copied(0.7, 5, rounds), 3) == expected


def as_if_undebated(rounds: int, law: Law) -> list[bool]:
    """Five voters who copy when they may."""
    election = an_election(Plurality(), 5, rounds)
    voters = [Independent(0.7, f"{run}", copies=True) for run in range(N)]
    return right([hold(election, voter, law) for voter in voters])


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_debate_comes_after_the_vote_and_so_costs_it_nothing(rounds: int) -> None:
    assert near(as_if_undebated(rounds, proceed), DEBATED[0])
    mutant = as_if_undebated(rounds, debate_first)
    assert not near(mutant, DEBATED[0])
    assert near(mutant, DEBATED[rounds])
