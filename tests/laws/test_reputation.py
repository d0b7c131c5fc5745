"""Reputation: what a record says, in any order it is told, and where there is none."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.reputation import (
    Count,
    Outcome,
    Record,
    expected,
    lineages,
    merge_outcomes,
    record_of,
)
from kapelle.state.skills import PLAIN, Ontology

outcomes = st.lists(
    st.builds(
        Outcome,
        id=st.sampled_from("abcdefgh"),
        agent=st.just("ann"),
        skills=st.sampled_from([(), ("math",), ("math.algebra", "math")]),
        score=st.sampled_from([0.0, 0.5, 1.0]),
        at=st.sampled_from([1.0, 2.0]),
    ),
    unique_by=lambda outcome: outcome.id,
)


def one(id: str, score: float, *skills: str) -> Outcome:
    """An outcome; skills with the wider ones."""
    return Outcome(id=id, agent="ann", skills=lineages(skills, PLAIN), score=score)


@given(outcomes, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(some: list[Outcome], lot: Any) -> None:
    again = [*some, *some]
    lot.shuffle(again)
    assert record_of(again, 0.9) == record_of(some, 0.9)


folded = outcomes.map(lambda some: {outcome.id: outcome for outcome in some})


@given(folded, folded, folded)
def test_outcomes_fold_in_any_order_and_again(a: Any, b: Any, c: Any) -> None:
    assert merge_outcomes(a, b) == merge_outcomes(b, a)
    assert merge_outcomes(merge_outcomes(a, b), c) == merge_outcomes(a, merge_outcomes(b, c))
    assert merge_outcomes(merge_outcomes(a, b), b) == merge_outcomes(a, b)


@given(outcomes, st.floats(0, 1))
def test_a_chance_is_a_chance(some: list[Outcome], said: float) -> None:
    chance = expected(record_of(some, 0.9), said, ["math.algebra"], PLAIN, trust=2)
    assert 0 <= chance <= 1


def test_without_a_record_the_word_is_all_there_is() -> None:
    assert expected(Record(), 0.8, ["math"], PLAIN, 2) == 0.8
    assert expected(Record(), None, [], PLAIN, 2) == 0.5


def test_without_a_record_in_a_skill_the_wider_one_counts_then_all() -> None:
    math = record_of([one(str(n), 0, "math.sums") for n in range(9)], decay=1)
    algebra = expected(math, 0.9, ["math.algebra"], PLAIN, 2)
    assert algebra == expected(math, 0.9, ["math"], PLAIN, 2)
    writing = expected(math, 0.9, ["writing"], PLAIN, 2)
    assert algebra < writing == expected(math, 0.9, [], PLAIN, 2) < 0.9
    good = record_of([one("x", 1, "math.algebra")], decay=1, begin=math)
    assert expected(good, 0.9, ["math.algebra"], PLAIN, 2) > algebra


def test_a_declared_tree_backs_off_as_well() -> None:
    ontology = Ontology(parents={"algebra": "math", "sums": "math"})
    record = record_of(
        [Outcome(id="a", agent="ann", skills=lineages(["sums"], ontology), score=0)], decay=1
    )
    assert expected(record, 0.9, ["algebra"], ontology, 2) < expected(
        record, 0.9, ["poems"], ontology, 2
    )


def test_a_task_is_as_likely_as_its_weakest_skill() -> None:
    record = record_of([one("a", 1, "math"), one("b", 0, "writing")], decay=1)
    both = expected(record, 0.5, ["math", "writing"], PLAIN, 2)
    assert both == expected(record, 0.5, ["writing"], PLAIN, 2)


def test_older_outcomes_fade() -> None:
    count = Count()
    for _ in range(500):
        count = count.after(1, decay=0.95)
    assert abs(count.seen - 20) < 1e-6
    for _ in range(20):
        count = count.after(0, decay=0.95)
    assert count.good / count.seen < 0.4
