"""Rankings and duels: who wins where options are ordered, or compared two by two.

A ranking names every option once, the best first. Each law gives points by option; `leaders` of
them is the set of winners.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from kapelle.state.ballot import Borda, Copeland, Ranked, leaders
from kapelle.state.errors import TooManyOptions
from kapelle.state.verdict import Preference

Ranking = tuple[str, ...]
"""Every option once, the best first."""

Pair = tuple[str, str]

KEMENY_MOST = 8
"""Options up to which the best order is found exactly."""


def ranking_flaws(given: object, options: Iterable[str]) -> list[str]:
    """Why something is no ranking of the options: each flaw a sentence."""
    wanted = set(options)
    if not isinstance(given, list) or not all(isinstance(option, str) for option in given):
        return [f"a ranking is a list of the options, best first: {sorted(wanted)}"]
    flaws = [f"{option!r} is no option" for option in sorted(set(given) - wanted)]
    flaws += [f"option {option!r} is not ranked" for option in sorted(wanted - set(given))]
    return flaws or (["an option is ranked twice"] if len(given) > len(wanted) else [])


def preferred(rankings: Iterable[Ranking]) -> dict[Pair, int]:
    """How many rank the first of each pair above the second."""
    count: dict[Pair, int] = {}
    for ranking in rankings:
        for better, worse in combinations(ranking, 2):
            count[better, worse] = count.get((better, worse), 0) + 1
            count.setdefault((worse, better), 0)
    return count


def points(rule: Ranked, rankings: Sequence[Ranking]) -> dict[str, float]:
    """Points by option, under one of the three rules."""
    if isinstance(rule, Borda):
        return borda_points(rankings)
    return copeland_points(rankings) if isinstance(rule, Copeland) else kemeny_points(rankings)


def borda(rankings: Sequence[Ranking]) -> frozenset[str]:
    """The options with most Borda points."""
    return leaders(borda_points(rankings))


def copeland(rankings: Sequence[Ranking]) -> frozenset[str]:
    """The options that win most pairwise majorities; a Condorcet winner alone, if there is one."""
    return leaders(copeland_points(rankings))


def kemeny(rankings: Sequence[Ranking]) -> frozenset[str]:
    """The options that are first in an order of least disagreement with the rankings."""
    return leaders(kemeny_points(rankings))


def borda_points(rankings: Iterable[Ranking]) -> dict[str, float]:
    """For each ranking, a point for each option ranked below (J.-C. de Borda, 1781)."""
    got: dict[str, float] = {}
    for ranking in rankings:
        for below, option in enumerate(reversed(ranking)):
            got[option] = got.get(option, 0.0) + below
    return dict(sorted(got.items()))


def copeland_points(rankings: Sequence[Ranking]) -> dict[str, float]:
    """A point for each option that most rank below, half a point where they are even."""
    count, got = preferred(rankings), dict.fromkeys(_options(rankings), 0.0)
    for (option, other), above in count.items():
        below = count[other, option]
        got[option] += 1.0 if above > below else 0.5 if above == below else 0.0
    return got


def kemeny_points(rankings: Sequence[Ranking]) -> dict[str, float]:
    """For each option, how many pairwise preferences the best order with it at the top agrees with.

    J. Kemeny, Mathematics without Numbers, 1959; by dynamic programming over sets of options.

    Raises:
        TooManyOptions: above 8.
    """
    options = _options(rankings)
    if len(options) > KEMENY_MOST:
        raise TooManyOptions(options=len(options), most=KEMENY_MOST)
    count = preferred(rankings)
    best: dict[frozenset[str], int] = {frozenset(): 0}

    def with_first(option: str, rest: frozenset[str]) -> int:
        return best[rest] + sum(count[option, other] for other in rest)

    for size in range(1, len(options)):
        for some in map(frozenset, combinations(options, size)):
            best[some] = max(with_first(option, some - {option}) for option in some)
    every = frozenset(options)
    return {option: float(with_first(option, every - {option})) for option in options}


def support(winner: str, rankings: Sequence[Ranking]) -> float:
    """How far the rankings agree on an option: the share of its pairwise comparisons it wins."""
    below = [len(r) - 1 - r.index(winner) for r in rankings]
    others = sum(len(r) - 1 for r in rankings)
    return sum(below) / others if others else 1.0


# ── duels ─────────────────────────────────────────────────────────────────────────────────────


def agreed(there: Preference | None, back: Preference | None) -> int:
    """Which of a pair is better: 1 the first, -1 the second, 0 none.

    `there` was shown the pair as it is, `back` the other way round. Only what both say counts: a
    choice that changes with the order is no choice.
    """
    if there is None or back is None:
        return 0
    one, other = _sign(there), -_sign(back)
    return one if one == other else 0


def at_odds(there: Preference | None, back: Preference | None) -> bool:
    """Whether the judge said two things of one pair."""
    return there is not None and back is not None and _sign(there) != -_sign(back)


def duel_points(options: Iterable[str], won: Mapping[Pair, int]) -> dict[str, float]:
    """A point for each duel won, half a point for each that is even."""
    got = dict.fromkeys(sorted(options), 0.0)
    for (first, second), sign in won.items():
        got[first] += (1 + sign) / 2
        got[second] += (1 - sign) / 2
    return got


def _sign(said: Preference) -> int:
    return {"first": 1, "second": -1}.get(said.better, 0)


def _options(rankings: Sequence[Ranking]) -> list[str]:
    return sorted({option for ranking in rankings for option in ranking})
