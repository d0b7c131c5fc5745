"""Rankings and duels: three rules against their definitions, and a judge that must not flip."""

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.ballot import Borda, Copeland, Kemeny
from kapelle.state.errors import TooManyOptions
from kapelle.state.ranking import (
    Ranking,
    agreed,
    at_odds,
    borda,
    copeland,
    duel_points,
    kemeny,
    points,
    preferred,
    ranking_flaws,
    support,
)
from kapelle.state.verdict import Preference

RULES = (borda, copeland, kemeny)

OPTIONS = "abcd"

rankings = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.permutations(OPTIONS[:n]).map(tuple), min_size=1, max_size=6)
)


def above(one: str, other: str, profile: Sequence[Ranking]) -> int:
    """How many rank one above the other."""
    return sum(r.index(one) < r.index(other) for r in profile)


@given(rankings)
def test_each_rule_is_its_definition(profile: list[Ranking]) -> None:
    options = sorted(profile[0])
    places = {o: sum(len(r) - 1 - r.index(o) for r in profile) for o in options}
    assert borda(profile) == {o for o in options if places[o] == max(places.values())}
    wins = {o: sum(_won(o, other, profile) for other in options if other != o) for o in options}
    assert copeland(profile) == {o for o in options if wins[o] == max(wins.values())}
    fit = {
        order: sum(above(a, b, profile) for a, b in combinations(order, 2))
        for order in permutations(options)
    }
    assert kemeny(profile) == {order[0] for order in fit if fit[order] == max(fit.values())}


def _won(one: str, other: str, profile: Sequence[Ranking]) -> float:
    gain = above(one, other, profile) - above(other, one, profile)
    return (gain > 0) + 0.5 * (gain == 0)


@pytest.mark.parametrize("rule", RULES)
@given(profile=rankings, names=st.permutations(OPTIONS), lot=st.randoms())
def test_neither_names_nor_order_decide(
    rule: Any, profile: list[Ranking], names: Sequence[str], lot: Any
) -> None:
    new = dict(zip(OPTIONS, names, strict=True))
    other = [tuple(new[option] for option in ranking) for ranking in profile]
    lot.shuffle(other)
    assert rule(other) == {new[winner] for winner in rule(profile)}


@given(rankings)
def test_who_beats_every_other_wins_by_copeland_and_by_kemeny(profile: list[Ranking]) -> None:
    options = set(profile[0])
    count = preferred(profile)
    for option in options:
        if all(count[option, o] > count[o, option] for o in options - {option}):
            assert copeland(profile) == kemeny(profile) == {option}


def test_a_circle_is_a_tie() -> None:
    circle: list[Ranking] = [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    for rule in RULES:
        assert rule(circle) == {"a", "b", "c"}


def test_kemeny_is_exact_up_to_eight_options_and_refused_above() -> None:
    eight = tuple("abcdefgh")
    assert kemeny([eight, eight, eight[::-1]]) == {"a"}
    with pytest.raises(TooManyOptions, match="exact up to 8 options, and there are 9") as refused:
        kemeny([tuple("abcdefghi")])
    assert (refused.value.options, refused.value.most) == (9, 8)


def test_points_by_rule() -> None:
    profile: list[Ranking] = [("a", "b", "c"), ("a", "c", "b"), ("b", "a", "c")]
    assert points(Borda(), profile) == {"a": 5, "b": 3, "c": 1}
    assert points(Copeland(), profile) == {"a": 2, "b": 1, "c": 0}
    assert points(Kemeny(), profile) == {"a": 7, "b": 6, "c": 3}
    assert support("a", profile) == pytest.approx(5 / 6)
    assert support("a", [("a",)]) == 1


@pytest.mark.parametrize(
    ("given", "flaw"),
    [
        (["a", "b"], ""),
        (["b", "a"], ""),
        (["a"], "'b' is not ranked"),
        (["a", "b", "c"], "'c' is no option"),
        (["a", "b", "a"], "twice"),
        ("ab", "a list of the options"),
        ([1, 2], "a list of the options"),
        (None, "a list of the options"),
    ],
)
def test_what_is_no_ranking(given: object, flaw: str) -> None:
    flaws = ranking_flaws(given, ["a", "b"])
    assert (flaw in " ".join(flaws)) if flaw else flaws == []


@pytest.mark.parametrize("rule", [*RULES])
@given(profile=rankings)
def test_pref_voting_agrees(rule: Any, profile: list[Ranking]) -> None:
    methods = pytest.importorskip(
        "pref_voting.voting_methods", reason="an oracle: pip install pref_voting"
    )
    profiles = pytest.importorskip("pref_voting.profiles")
    theirs = {borda: methods.borda, copeland: methods.copeland, kemeny: methods.kemeny_young}[rule]
    made = profiles.Profile([[OPTIONS.index(option) for option in r] for r in profile])
    assert {OPTIONS[n] for n in theirs(made)} == rule(profile)


# ── duels ──

FIRST, SECOND, NEITHER = (Preference(better=b) for b in ("first", "second", "neither"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "back", "sign", "odd"),
    [
        (FIRST, SECOND, 1, False),
        (SECOND, FIRST, -1, False),
        (NEITHER, NEITHER, 0, False),
        (FIRST, FIRST, 0, True),
        (SECOND, SECOND, 0, True),
        (FIRST, NEITHER, 0, True),
        (NEITHER, FIRST, 0, True),
        (FIRST, None, 0, False),
        (None, None, 0, False),
    ],
)
def test_only_what_a_judge_says_in_both_orders_counts(
    there: Preference | None, back: Preference | None, sign: int, odd: object
) -> None:
    assert agreed(there, back) == sign
    assert at_odds(there, back) == odd


def test_a_judge_that_likes_the_first_decides_nothing() -> None:
    pairs = list(combinations("abc", 2))
    won = {pair: agreed(FIRST, FIRST) for pair in pairs}
    assert set(duel_points("abc", won).values()) == {1.0}


def test_duels_are_counted() -> None:
    assert duel_points("abc", {("a", "b"): 1, ("a", "c"): 0, ("b", "c"): -1}) == {
        "a": 1.5,
        "b": 0.0,
        "c": 1.5,
    }
