"""Planted contradictions are found, all of them and no other: precision and recall are 1.

100 keys, 5 agents, 17 planted conflicts among variants of unit, case, blanks and date that are
none; N = 40 seeds, tolerance none.
"""

import random
from collections.abc import Callable, Iterable

import pytest

from kapelle.state.context import Claim
from kapelle.state.contradictions import conflicting_pairs, contradictions

KEYS, AGENTS, PLANTED, SEEDS = 100, 5, 17, 40

ALIKE = (
    ("React", "react", " REACT ", "React\u00a0", "\uff32eact"),
    ("8 GB", "8000 MB", "8e9 B", "8.0gb", "8,000 MB"),
    ("1.5 s", "1500 ms", "1,5 sec", "1500000 us", "0.025 min"),
    ("$10", "10 USD", "10.0 usd", "USD", "10 $"),
    ("2026-03-01", "1 March 2026", "March 1, 2026", "1.3.2026", "2026/03/01"),
    (0.3, 0.1 + 0.2, "0.3", "30%", 0.30000000000000004),
    ("-40 °C", "-40 °F", "233.15 K", "-40.0°C", "-40°F"),
)
OTHER = ("Vue", "8 GiB", "1.6 s", "10 EUR", "2026-03-02", 0.31, "-41 °C")


def corpus(seed: int) -> tuple[list[Claim], dict[str, int]]:
    """Claims in any order, and the conflicting pairs of each key that has some."""
    lot = random.Random(seed)
    planted = set(lot.sample(range(KEYS), PLANTED))
    claims: list[Claim] = []
    pairs: dict[str, int] = {}
    for n in range(KEYS):
        kind = lot.randrange(len(ALIKE))
        same = [v for v in ALIKE[kind] if v != "USD"]
        against = lot.randint(1, AGENTS - 1) if n in planted else 0
        values = [OTHER[kind]] * against + [lot.choice(same) for _ in range(AGENTS - against)]
        name = f"area.key{n}"
        claims += [
            Claim(key=lot.choice([name, name.upper(), f" {name}"]), value=v, by=f"agent{a}")
            for a, v in enumerate(values)
        ]
        if against:
            pairs[name] = against * (AGENTS - against)
    lot.shuffle(claims)
    return claims, pairs


def found_in(claims: Iterable[Claim]) -> dict[str, int]:
    """The conflicting pairs of each key, as they are found."""
    return {c.key: conflicting_pairs(c) for c in contradictions(claims)}


def by_text(claims: Iterable[Claim]) -> dict[str, int]:
    """The mutant: values are what is written."""
    said: dict[str, list[str]] = {}
    for claim in claims:
        said.setdefault(claim.key, []).append(str(claim.value))
    return {key: 1 for key, values in said.items() if len(set(values)) > 1}


def by_first_letter(claims: Iterable[Claim]) -> dict[str, int]:
    """The mutant: what begins alike is alike."""
    shortened = [c.model_copy(update={"value": str(c.value).strip()[:1]}) for c in claims]
    return found_in(shortened)


def check(find: Callable[[Iterable[Claim]], dict[str, int]]) -> None:
    """Each corpus: exactly what was planted, with exactly its pairs."""
    for seed in range(SEEDS):
        claims, pairs = corpus(seed)
        assert len(pairs) == PLANTED
        assert find(claims) == pairs


def test_precision_and_recall_are_one() -> None:
    check(found_in)


@pytest.mark.parametrize("mutant", [by_text, by_first_letter])
def test_other_ways_to_compare_fail_this(
    mutant: Callable[[Iterable[Claim]], dict[str, int]],
) -> None:
    with pytest.raises(AssertionError):
        check(mutant)
