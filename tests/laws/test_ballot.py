"""Votes: which answers are the same, who has won, who is still to be asked, how right it is."""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.ballot import (
    AheadBy,
    LogOdds,
    Plurality,
    Tally,
    Vote,
    agreement,
    ahead_by,
    by_key,
    exact,
    expected_votes,
    k_min,
    lead,
    lead_accuracy,
    leaders,
    needed,
    normalised,
    plurality,
    short_of,
    tally,
    vote_accuracy,
    weight_of,
)
from kapelle.state.errors import Misbuilt, VotingHurts
from kapelle.state.turns import mean_votes
from tests.laws.drawn import values

choices = st.sampled_from(["a", "b", "c"])

votes = st.lists(
    st.builds(Vote, peer=st.just("x"), choice=choices, weight=st.sampled_from([0.1, 0.2, 0.3, 1])),
    max_size=7,
)


def cast(text: str) -> list[Vote]:
    """A vote a letter."""
    return [Vote(peer=str(n), choice=choice) for n, choice in enumerate(text)]


# ── the same answer ──


@given(values, values)
def test_answers_are_exactly_the_same_if_their_json_is(one: object, other: object) -> None:
    alike = repr(one) == repr(other) or {repr(one), repr(other)} == {
        "{'k': 1, 'l': 2}",
        "{'l': 2, 'k': 1}",
    }
    assert (exact(one) == exact(other)) == alike  # type: ignore[arg-type]


def test_normalised_answers_differ_in_what_they_say_only() -> None:
    said = [" The  Answer.", "the answer", "THE ANSWER!", "\uff34he answer"]
    assert len({normalised(text) for text in said}) == 1
    assert normalised(1.0) == normalised(1) != normalised("1")
    assert normalised({"a": ["X "], "b": 2.0}) == normalised({"b": 2, "a": ["x"]})
    assert normalised("?!") != normalised("...")


def test_answers_may_be_compared_by_some_of_their_fields() -> None:
    same = by_key("city")
    assert same({"city": "Paris", "why": "old"}) == same({"city": "paris"})
    with pytest.raises(ValueError, match="lacks city"):
        same({"why": "old"})
    with pytest.raises(ValueError, match="no fields"):
        same("Paris")


def test_the_key_of_a_long_answer_is_short_and_still_its_own() -> None:
    one, other = exact("x" * 10_000), exact("x" * 9_999 + "y")
    assert one != other
    assert len(one) < 200


# ── who has won ──


@given(votes, st.randoms())
def test_the_count_is_the_same_for_any_order_of_votes(cast: list[Vote], lot: object) -> None:
    shuffled = list(cast)
    lot.shuffle(shuffled)  # type: ignore[attr-defined]
    assert list(tally(shuffled).items()) == list(tally(cast).items())
    assert plurality(shuffled) == plurality(cast)


@given(st.text("abc", max_size=7), st.permutations("abc"))
def test_answers_by_other_names_win_by_other_names(said: str, names: Sequence[str]) -> None:
    renamed = said.translate(str.maketrans("abc", "".join(names)))
    new = dict(zip("abc", names, strict=True))
    assert plurality(cast(renamed)) == {new[winner] for winner in plurality(cast(said))}
    assert ahead_by(2, cast(renamed)) == {new[winner] for winner in ahead_by(2, cast(said))}


def test_a_tie_is_all_who_are_first() -> None:
    assert plurality(cast("aabbc")) == {"a", "b"}
    assert plurality([]) == frozenset()


def test_ahead_by_k_leaves_whoever_is_less_than_k_behind() -> None:
    assert ahead_by(2, cast("aaabbc")) == {"a", "b"}
    assert ahead_by(2, cast("aaaab")) == {"a"}
    assert ahead_by(1, cast("aab")) == plurality(cast("aab"))
    assert short_of(AheadBy(k=3), tally(cast("aab"))) == 2
    assert short_of(AheadBy(k=3), tally(cast("aaaa"))) == 0


def test_two_voters_and_one_that_weighs_as_much_as_both_are_even() -> None:
    rule = LogOdds(accuracy={"x": 0.9, "y": 0.75, "z": 0.75})
    one = Vote(peer="x", choice="a", weight=weight_of(rule, "x"))
    two = [Vote(peer=p, choice="b", weight=weight_of(rule, p)) for p in "yz"]
    assert plurality([one, *two]) == {"a", "b"}


def test_what_a_tally_says_of_itself() -> None:
    assert Tally(winners=("a",)).stands == "open"
    assert Tally(winners=("a",), settled=True).winner == "a"
    assert Tally(winners=("a", "b"), settled=True).stands == "tied"
    assert Tally(winners=("a", "b"), settled=True).winner is None
    assert Tally(settled=True).stands == "empty"


def test_agreement_is_the_share_and_by_log_odds_the_probability() -> None:
    assert agreement(Plurality(), tally(cast("aaab"))) == 0.75
    rule = LogOdds(accuracy={"x": 0.9, "y": 0.8})
    apart = {"a": weight_of(rule, "x"), "b": weight_of(rule, "y")}
    assert agreement(rule, apart) == pytest.approx(0.9 * 0.2 / (0.9 * 0.2 + 0.1 * 0.8))
    assert agreement(rule, {"a": weight_of(rule, "x")}) == pytest.approx(0.9)
    assert agreement(Plurality(), {}) == 0


# ── who is still to be asked ──


def settled(scores: dict[str, float], rest: Sequence[float]) -> bool:
    """Whether, however the rest vote, the winners stay the same; by trying all they can say."""
    ends = {
        leaders(_with(scores, rest, said))
        for said in product([*scores, "n", "m"], repeat=len(rest))
    }
    return len(ends) == 1 and (not rest or bool(scores))


def _with(
    scores: dict[str, float], weights: Sequence[float], said: Sequence[str]
) -> dict[str, float]:
    after = dict(scores)
    for choice, weight in zip(said, weights, strict=False):
        after[choice] = after.get(choice, 0) + weight
    return after


counts = st.dictionaries(choices, st.integers(1, 3).map(float), max_size=3)


@given(counts, st.lists(st.sampled_from([1.0, 2.0]), max_size=4).map(lambda w: sorted(w)[::-1]))
def test_so_many_are_asked_at_once_as_are_needed_in_any_case(
    scores: dict[str, float], weights: list[float]
) -> None:
    n = needed(scores, weights)
    for fewer in range(n):
        said = product([*scores, "n"], repeat=fewer)
        assert not any(settled(_with(scores, weights, some), weights[fewer:]) for some in said), (
            "none of them could have been saved"
        )
    said = product([*scores, "n"], repeat=n)
    assert any(settled(_with(scores, weights, some), weights[n:]) for some in said)


@given(st.text("abc", min_size=1, max_size=9))
def test_a_vote_that_stops_early_ends_as_it_would_have_ended(said: str) -> None:
    asked = 0
    while n := needed(tally(cast(said[:asked])), [1.0] * (len(said) - asked)):
        asked += n
    assert plurality(cast(said[:asked])) == plurality(cast(said))
    for fewer in range(asked):
        rest = [1.0] * (len(said) - fewer)
        assert needed(tally(cast(said[:fewer])), rest) > 0, "one by one it would not have ended"


# ── how right a vote is ──


@pytest.mark.parametrize(
    ("p", "least"), [(0.6, [25, 31, 36, 42]), (0.9, [5, 6, 7, 8]), (0.99, [3, 3, 4, 4])]
)
def test_how_far_ahead_a_chain_must_be(p: float, least: list[int]) -> None:
    assert [k_min(p, 10**e, 0.95) for e in (3, 4, 5, 6)] == least


def in_the_end(p: float, k: int, steps: float) -> Decimal:
    """How often a chain is right throughout, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        odds = (1 - Decimal(p)) / Decimal(p)
        return (-(1 + odds**k).ln() * Decimal(steps)).exp()


@given(
    st.floats(0.500001, 0.999999),
    st.sampled_from([1, 10, 1023, 10**6, 10**9, 10**15]),
    st.sampled_from([0.01, 0.5, 0.95, 0.999999]),
)
def test_the_k_is_enough_and_one_less_is_not(p: float, steps: int, target: float) -> None:
    k = k_min(p, steps, target)
    assert in_the_end(p, k, steps) >= Decimal(target)
    assert k == 1 or in_the_end(p, k - 1, steps) < Decimal(target)


def walked(p: Fraction, k: int) -> tuple[Fraction, Fraction]:
    """How often a walk from 0 ends at k and not at -k, and how long it is; solved exactly."""
    reach, time = [(Fraction(0), Fraction(0))], [(Fraction(0), Fraction(0))]  # = a + b * unknown
    reach.append((Fraction(0), Fraction(1)))
    time.append((Fraction(0), Fraction(1)))
    for _ in range(2 * k - 1):  # x(i) = p x(i+1) + q x(i-1) (+ 1)
        q = 1 - p
        reach.append(_onward(reach[-2], reach[-1], p, q, 0))
        time.append(_onward(time[-2], time[-1], p, q, 1))
    unknown, later = (1 - reach[-1][0]) / reach[-1][1], -time[-1][0] / time[-1][1]
    return reach[k][0] + reach[k][1] * unknown, time[k][0] + time[k][1] * later


def _onward(
    before: tuple[Fraction, Fraction],
    at: tuple[Fraction, Fraction],
    p: Fraction,
    q: Fraction,
    c: int,
) -> tuple[Fraction, Fraction]:
    return (at[0] - c - q * before[0]) / p, (at[1] - q * before[1]) / p


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("p", [Fraction(51, 100), Fraction(3, 5), Fraction(9, 10)])
def test_a_lead_is_the_gambler_s_ruin(p: Fraction, k: int) -> None:
    right, votes = walked(p, k)
    assert lead_accuracy(float(p), k) == pytest.approx(float(right), rel=1e-12)
    assert expected_votes(float(p), k) == pytest.approx(float(votes), rel=1e-9)


def test_the_towers_of_hanoi() -> None:
    assert round(1023 * expected_votes(0.9, 5), 1) == 6393.5
    assert round(lead_accuracy(0.9, 5) ** 1023, 3) == 0.983


def test_figures_hold_where_naive_ones_fail() -> None:
    assert expected_votes(0.5 + 1e-13, 3) == pytest.approx(9)
    assert expected_votes(1, 3) == 3
    assert (k_min(1, 10**15), lead_accuracy(1, 1), vote_accuracy(1, 3)) == (1, 1, 1)
    assert k_min(0.9, 10**15) == 18
    assert k_min(math.nextafter(1, 0), 10**15) == 1 + 1
    assert k_min(0.7, 1, 1e-300) == 1


def test_how_often_a_majority_is_right() -> None:
    assert round(vote_accuracy(0.7, 5), 3) == 0.837


@given(st.integers(1, 60), st.integers(51, 99), st.sampled_from([0, 1, 20, 50, 90]))
def test_a_majority_is_counted_exactly(n: int, percent: int, correlated: int) -> None:
    p, rho = Fraction(percent, 100), Fraction(correlated, 100)
    most = sum(_chance(x, n, p, rho) for x in range(n // 2 + 1, n + 1))
    assert vote_accuracy(float(p), n, float(rho)) == pytest.approx(float(most), rel=1e-9)


def _chance(x: int, n: int, p: Fraction, rho: Fraction) -> Fraction:
    """Polya's urn: each right voter makes the next one likelier to be right."""
    chance = Fraction(math.comb(n, x))
    for i in range(n):
        right, j = (p, i) if i < x else (1 - p, i - x)
        chance *= (right * (1 - rho) + j * rho) / ((1 - rho) + i * rho)
    return chance


def test_a_million_voters_are_counted_too() -> None:
    assert vote_accuracy(0.5005, 10**6 + 1) == pytest.approx(
        0.5 * math.erfc(-0.001 * math.sqrt(10**6 / 2)), abs=1e-6
    )


@given(st.floats(0.55, 0.95), st.integers(1, 40), st.sampled_from([0.1, 0.5]))
def test_more_voters_help_and_correlation_takes_it_back(p: float, n: int, rho: float) -> None:
    odd = 2 * n + 1
    assert vote_accuracy(p, odd + 2) >= vote_accuracy(p, odd) - 1e-12
    assert vote_accuracy(p, odd, rho) <= vote_accuracy(p, odd) + 1e-12


@pytest.mark.parametrize("p", [0.5, 0.3, 0.0])
def test_voters_no_better_than_a_coin_are_refused_with_the_reason(p: float) -> None:
    for law in (lambda: k_min(p, 10), lambda: expected_votes(p, 3), lambda: vote_accuracy(p, 5),
                lambda: lead_accuracy(p, 3), lambda: LogOdds(accuracy={"x": p})):  # fmt: skip
        with pytest.raises(VotingHurts, match="worse together than alone") as refused:
            law()
        assert refused.value.p == p


@pytest.mark.parametrize("p", [1.1, -0.1, math.nan])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(Misbuilt, match="no probability"):
        vote_accuracy(p, 5)


def test_what_makes_no_sense_is_refused() -> None:
    for target in (0, 1, 1.5):
        with pytest.raises(Misbuilt):
            k_min(0.9, 10, target)
    for n, rho in ((0, 0.0), (3, 1.0), (3, -0.1)):
        with pytest.raises(Misbuilt):
            vote_accuracy(0.9, n, rho)
    with pytest.raises(Misbuilt, match="can't be right always"):
        LogOdds(accuracy={"x": 1.0})


def test_a_lead_is_over_the_second_and_over_nothing() -> None:
    assert [lead(tally(cast(said))) for said in ("", "a", "aab", "ab")] == [0, 1, 1, 0]
    assert {plurality(cast("".join(p))) for p in permutations("aab")} == {frozenset("a")}


def counted_out(weights: Sequence[float], chances: Sequence[float]) -> float:
    """Votes asked for on average: every way the vote can go, one by one."""
    mean = 0.0
    for right in product((True, False), repeat=len(weights)):
        likely = math.prod(c if r else 1 - c for r, c in zip(right, chances, strict=True))
        asked, scores = 0, {"right": 0.0, "wrong": 0.0}
        while more := needed(scores, weights[asked:]):
            for voter in range(asked, asked + more):
                scores["right" if right[voter] else "wrong"] += weights[voter]
            asked += more
        mean += likely * asked
    return mean


@given(st.lists(st.floats(0.51, 0.99), min_size=1, max_size=7))
def test_the_votes_expected_of_a_crowd_are_those_it_takes_on_average(
    accuracy: Sequence[float],
) -> None:
    peers = {f"p{n}": p for n, p in enumerate(sorted(accuracy, reverse=True))}
    rule = LogOdds(accuracy=peers)
    weights, chances = [weight_of(rule, peer) for peer in peers], list(peers.values())
    assert mean_votes(weights, chances) == pytest.approx(counted_out(weights, chances), abs=1e-6)
    even = [1.0] * len(peers)
    assert mean_votes(even, chances) == pytest.approx(counted_out(even, chances), abs=1e-6)


def test_of_many_different_leads_near_ones_count_as_one_and_the_mean_hardly_moves() -> None:
    chances = [0.95 - 0.03 * n for n in range(12)]
    weights = [math.log(p / (1 - p)) for p in chances]
    assert mean_votes(weights, chances) == pytest.approx(counted_out(weights, chances), rel=0.01)
