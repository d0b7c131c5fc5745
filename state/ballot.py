"""Votes: when answers are the same, how they are counted, when a count is settled, how right it is.

Whoever wins is a *set* of answers: with more than one in it the vote is a tie, and it is for the
caller to say what follows. Order of arrival decides nothing.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from kapelle.state.errors import Misbuilt, VotingHurts
from kapelle.state.noun import Noun

Same = Callable[[JsonValue], str]
"""An equality of answers: those it gives the same key are the same answer. What it raises says that
an answer is malformed."""

EVEN = 1e-9
"""Scores that differ by less are even, as those of two voters and one twice as heavy may be."""


# ── when answers are the same ─────────────────────────────────────────────────────────────────


def exact(answer: JsonValue) -> str:
    """Answers are the same if they are the same JSON; the order of an object's keys is nothing."""
    return _short(json.dumps(answer, sort_keys=True, ensure_ascii=False))


def normalised(answer: JsonValue) -> str:
    """As `exact`, but for case, spacing, Unicode form, punctuation at the ends and 1 or 1.0.

    >>> normalised("  The  Answer. ") == normalised("the answer")
    True
    """
    return exact(_plain(answer))


def by_key(*keys: str) -> Same:
    """Answers are the same if these fields are, normalised; one that lacks them is malformed."""

    def same(answer: JsonValue) -> str:
        if not isinstance(answer, dict):
            raise ValueError(f"the answer has no fields; {', '.join(keys)} wanted")  # noqa: TRY004
        if lost := [key for key in keys if key not in answer]:
            raise ValueError(f"the answer lacks {', '.join(lost)}")
        return normalised([answer[key] for key in keys])

    return same


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        text = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
        return text.strip(" .,;:!?\"'`") or text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _short(text: str) -> str:
    if len(text) <= 200:
        return text
    return f"{text[:100]}… {sha256(text.encode(errors='replace')).hexdigest()}"


# ── rules ─────────────────────────────────────────────────────────────────────────────────────


class Plurality(Noun):
    """The answer most peers gave. Each is asked once; none whose vote can't change the winner."""


class LogOdds(Noun):
    """As plurality, but a peer's vote weighs ln(p/(1-p)): who is more often right counts more.

    The best rule for independent voters of known accuracy (S. Nitzan and J. Paroush, Optimal
    Decision Rules in Uncertain Dichotomous Choice Situations, Int. Economic Review 23, 1982).
    """

    accuracy: dict[str, float]
    """By peer, how often it is right: above .5, below 1."""

    @model_validator(mode="after")
    def _helps(self) -> Self:
        for peer, p in self.accuracy.items():
            _half_log_odds(p)
            if p == 1:
                raise Misbuilt(f"{peer} can't be right always; give an accuracy below 1")
        return self


class AheadBy(Noun):
    """The first answer that is ahead of every other by `k` votes; peers are asked again and again.

    After E. Meyerson et al., Solving a Million-Step LLM Task with Zero Errors, 2025.
    """

    k: int = Field(ge=1)
    """Votes; `k_min` says how many a chain of steps needs."""
    votes: int | None = Field(default=None, ge=1)
    """Votes asked for at most; None: the policy's `max_votes`."""


class Borda(Noun):
    """Peers rank the options; an option gets a point for each that it is ranked above."""


class Copeland(Noun):
    """Peers rank the options; a point for each that most prefer an option to, half if even."""


class Kemeny(Noun):
    """Peers rank the options; first is who leads the order that agrees with most preferences.

    Exact, and so refused for more than 8 options.
    """


class Judged(Noun):
    """A judge compares each pair of answers in both orders; the answer that wins most pairs."""

    disagreement: Literal["tie", "ask"] = "tie"
    """Where the judge's choice changes with the order: the pair is even, or a person is asked."""


Voting = Plurality | LogOdds | AheadBy
Ranked = Borda | Copeland | Kemeny
Rule = Voting | Ranked | Judged


# ── counting ──────────────────────────────────────────────────────────────────────────────────


class Vote(Noun):
    """One peer's choice."""

    peer: str
    """Who votes."""
    choice: str
    """The key of its answer."""
    weight: float = Field(default=1.0, gt=0)
    """What it counts: 1 vote, or by log-odds the nats of evidence it is."""


class Tally(Noun):
    """The count of one round."""

    round: int = 0
    """0 for the blind first vote."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Votes, weights or points by answer."""
    winners: tuple[str, ...] = ()
    """The answers none is ahead of, in order of their keys; more than one are tied."""
    settled: bool = False
    """Whether the rule has decided that these are the winners."""
    votes: int = 0
    """Votes counted."""
    red_flagged: int = 0
    """Malformed answers, discarded before the count."""
    failed: int = 0
    """Peers that gave none."""
    confidence: float = 0.0
    """Agreement on the winners, from 0 to 1."""

    @property
    def stands(self) -> Literal["open", "won", "tied", "empty"]:
        """How the vote stands."""
        if not self.settled:
            return "open"
        return "empty" if not self.winners else "won" if len(self.winners) == 1 else "tied"

    @property
    def winner(self) -> str | None:
        """The answer that has won, if one has."""
        return self.winners[0] if self.stands == "won" else None


def weight_of(rule: Rule, peer: str) -> float:
    """What a peer's vote weighs."""
    return 2 * _half_log_odds(rule.accuracy[peer]) if isinstance(rule, LogOdds) else 1.0


def tally(votes: Iterable[Vote]) -> dict[str, float]:
    """The sum of weights by answer; the same for any order of the votes."""
    weights: dict[str, list[float]] = {}
    for vote in votes:
        weights.setdefault(vote.choice, []).append(vote.weight)
    return {choice: math.fsum(of) for choice, of in sorted(weights.items())}


def lead(scores: Mapping[str, float]) -> float:
    """By how much the first is ahead of the second, which is 0 if there is none."""
    first, second = (*sorted(scores.values(), reverse=True), 0.0, 0.0)[:2]
    return first - second


def leaders(scores: Mapping[str, float], ahead: float = 0.0) -> frozenset[str]:
    """The answers that the first is not ahead of by `ahead`; for 0, those that are first."""
    top = max(scores.values(), default=0.0)
    return frozenset(c for c, s in scores.items() if s > top - ahead or s >= top - EVEN)


def plurality(votes: Iterable[Vote]) -> frozenset[str]:
    """Who has most votes (by weight, if they are weighted)."""
    return leaders(tally(votes))


def ahead_by(k: int, votes: Iterable[Vote]) -> frozenset[str]:
    """The answers none is ahead of by `k`: once a vote has `k` more than any other, it alone."""
    return leaders(tally(votes), k)


def needed(scores: Mapping[str, float], weights: Sequence[float]) -> int:
    """How many of the voters to come must vote before anything can be settled; 0 if it is settled.

    Args:
        scores: The count so far.
        weights: What the votes to come weigh, in the order in which they are asked for.

    Returns:
        The least n such that the first n of them may leave the rest too light to change or share
        the first place. They can be asked at once: asked one by one, none of them would be saved.
    """
    gap, rest = lead(scores), math.fsum(weights)
    for n, weight in enumerate(weights):
        if gap > rest + EVEN:
            return n
        gap, rest = gap + weight, rest - weight
    return len(weights)


def short_of(rule: AheadBy, scores: Mapping[str, float]) -> int:
    """Votes until an answer can be ahead by k at the earliest; 0 if one is.

    So many can be asked at once: asked one by one, none of them would be saved.
    """
    return max(0, rule.k - round(lead(scores)))


def agreement(rule: Rule, scores: Mapping[str, float]) -> float:
    """How much the votes agree on the first: its share, or by log-odds its probability.

    The probability is that among the answers given; where there is one, against one not given.
    """
    if not scores:
        return 0.0
    top = max(scores.values())
    if isinstance(rule, LogOdds):
        given = (*scores.values(), 0.0)[: max(2, len(scores))]
        return 1 / math.fsum(math.exp(score - top) for score in given)
    return top / math.fsum(scores.values())


# ── how right a vote is ───────────────────────────────────────────────────────────────────────


def lead_accuracy(p: float, k: int) -> float:
    """How often first-to-ahead-by-k is right: 1/(1+r^k), r = (1-p)/p (the gambler's ruin).

    Args:
        p: How often one vote is right, above .5; the rest all give the same wrong answer.
        k: Votes to be ahead by.

    Raises:
        VotingHurts: for p of .5 or less.
    """
    return 1 / (1 + math.exp(-2 * _half_log_odds(p) * k))


def k_min(p: float, steps: float, target: float = 0.95) -> int:
    """The least k by which a chain of `steps` votes is right throughout as often as `target`.

    k = ceil(ln(target^(-1/steps) - 1) / ln r), r = (1-p)/p (Meyerson et al. 2025), computed such
    that it holds for a million steps as for 1e15.

    Args:
        p: How often one vote is right, above .5.
        steps: Votes in the chain.
        target: How often all of them are to be right, above 0 and below 1.

    Raises:
        VotingHurts: for p of .5 or less.
        Misbuilt: for a target or number of steps that makes no sense.
    """
    half = _half_log_odds(p)
    if not (0 < target < 1 and steps >= 1):
        raise Misbuilt(f"a chain of {steps:g} steps can't be right {target:g} of the time")
    allowed = -math.log(target) / steps  # the odds of a wrong step may be expm1 of this
    if allowed >= math.log(2) or math.isinf(half):
        return 1
    k = max(1, math.ceil(math.log(math.expm1(allowed)) / (-2 * half)))
    if k > 1 and math.log1p(math.exp(-2 * half * (k - 1))) <= allowed:
        return k - 1  # rounding had passed a whole number from below
    return k if math.log1p(math.exp(-2 * half * k)) <= allowed else k + 1


def expected_votes(p: float, k: int) -> float:
    """Votes that first-to-ahead-by-k takes on average: k/(2p-1) * (1-r^k)/(1+r^k).

    Raises:
        VotingHurts: for p of .5 or less.
    """
    half = _half_log_odds(p)
    return k / (2 * p - 1) * math.tanh(k * half)


def vote_accuracy(p: float, n: int, correlation: float = 0.0) -> float:
    """How often more than half of n voters are right (Condorcet's jury theorem).

    Args:
        p: How often one voter is right, above .5. A tie is not right.
        n: Voters; up to a million to nine digits.
        correlation: Of any two voters' being right, from 0 to below 1; beta-binomial.

    Raises:
        VotingHurts: for p of .5 or less.
        Misbuilt: for fewer than one voter, or a correlation that makes no sense.
    """
    if math.isinf(_half_log_odds(p)):
        return 1.0
    if n < 1 or not 0 <= correlation < 1:
        raise Misbuilt(f"{n} voters with a correlation of {correlation:g} can't vote")
    scale = (1 - correlation) / correlation if correlation else math.inf
    term = math.exp(_log_chance(n // 2, n, p, scale))
    wrong = [term]
    for x in range(n // 2, 0, -1):  # the chance of one right voter fewer, from that of x
        right, other = (p, 1 - p) if math.isinf(scale) else (
            p * scale + x - 1, (1 - p) * scale + n - x)  # fmt: skip
        term *= x / (n - x + 1) * other / right
        wrong.append(term)
        if term < 1e-18 * wrong[0]:
            break
    return 1 - math.fsum(wrong)


def _log_chance(x: int, n: int, p: float, scale: float) -> float:
    """The log of the chance that x of n are right; beta-binomial for a finite scale."""
    ways = math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1)
    if math.isinf(scale):
        return ways + x * math.log(p) + (n - x) * math.log1p(-p)
    a, b = p * scale, (1 - p) * scale
    return ways + _log_beta(x + a, n - x + b) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _half_log_odds(p: float) -> float:
    """Half of ln(p/(1-p)), exact near .5 as near 1; for p = 1 infinite."""
    if not 0 <= p <= 1:
        raise Misbuilt(f"{p:g} is no probability")
    if p <= 0.5:
        raise VotingHurts(p=p)
    return math.inf if p == 1 else math.atanh(2 * p - 1)
