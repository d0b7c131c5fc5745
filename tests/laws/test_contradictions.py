"""What can't all hold is found: exactly, whoever came first and however often it is said."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from kapelle.state.context import (
    Claim,
    Condition,
    Constraint,
    Contradiction,
    Decision,
    Key,
    MasterContext,
)
from kapelle.state.contradictions import conflicting_pairs, contradictions
from kapelle.state.normal import meets, normal
from tests.laws.drawn import claims

CONTEXT = MasterContext(
    keys=(Key(name="framework", tolerance=0.5, type="number"),),
    constraints=(
        Constraint(text="no one", must=Condition(key="framework", op="is not", value=1)),
        Constraint(
            text="a database needs a framework",
            when=Condition(key="database", op="claimed"),
            must=Condition(key="framework", op="claimed"),
        ),
    ),
    decisions=(Decision(key="database", value="1", rule="vote", version=2),),
)


def said(value: Any, by: str = "x", key: str = "database", **more: object) -> Claim:
    """A claim about one key."""
    return Claim.model_validate({"key": key, "value": value, "by": by, **more})


def kinds(found: tuple[Contradiction, ...]) -> list[tuple[str, str]]:
    """What was found, by key and kind."""
    return [(c.key, c.kind) for c in found]


def texts(found: tuple[Contradiction, ...]) -> list[str]:
    """What was found, to be compared; NaN is itself there."""
    return [c.model_dump_json() for c in found]


# ── whoever came first ────────────────────────────────────────────────────────────────────────


@given(st.lists(claims, max_size=6), st.sampled_from([MasterContext(), CONTEXT]), st.data())
def test_order_of_arrival_does_not_matter(
    found: list[Claim], context: MasterContext, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))
    assert texts(contradictions(found, context)) == texts(contradictions(shuffled, context))


@given(st.lists(claims, max_size=5), st.sampled_from([MasterContext(), CONTEXT]), st.data())
def test_repetition_does_not_matter(
    found: list[Claim], context: MasterContext, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(found), max_size=5)) if found else []
    assert texts(contradictions(found, context)) == texts(contradictions([*found, *again], context))


@given(st.lists(claims, max_size=6))
def test_all_sides_are_kept(found: list[Claim]) -> None:
    for conflict in contradictions(found):
        about = {c.model_dump_json() for c in found if c.key == conflict.key}
        assert {c.model_dump_json() for c in conflict.claims} == about
        assert len(conflict.sides) > 1


# ── values ────────────────────────────────────────────────────────────────────────────────────


def test_one_voice_is_no_contradiction() -> None:
    assert contradictions([said("SQLite", "x"), said("SQLite", "y")]) == ()
    assert contradictions([]) == ()


@pytest.mark.parametrize(
    "values",
    [
        ("React", " react ", "REACT", "\uff32eact"),
        ("8 GB", "8000 MB", "8e9 bytes", "8gb"),
        ("1500 ms", "1.5 s", "1,5 seconds"),
        ("$10", "10 USD", "10.00 usd"),
        ("5%", 0.05),
        ("2026-03-01", "1 March 2026", "March 1st, 2026", "1.3.2026", "2026-03-01T10:00:00Z"),
        (1, 1.0, "1"),
        (0.1 + 0.2, 0.3),
        ({"a": 1, "b": ["X"]}, {"b": ["x "], "a": 1.0}),
        ("3..5", "at least 4", {"min": 5, "max": 9}),
        ("-40 °C", "-40 °F"),
    ],
)
def test_what_is_only_written_otherwise_is_no_contradiction(values: tuple[JsonValue, ...]) -> None:
    assert contradictions([said(v, str(n)) for n, v in enumerate(values)]) == ()


@pytest.mark.parametrize(
    "values",
    [
        ("React", "Vue"),
        (True, 1),
        ("8 GB", "8 GiB"),
        ("2 mW", "2 MW"),
        ("10 USD", "10 EUR"),
        ("1.1", "1.10"),  # versions, for all we know
        ("3/4/2026", "4/3/2026"),
        ("10-12", "11-13"),
        ("3..5", "6..9"),
        ("< 10 ms", ">= 10 ms"),
        ("2026-03-01", "2026-03-02"),
        ("5 m", "5 s"),
        (None, "none"),
    ],
)
def test_what_differs_is_a_contradiction(values: tuple[JsonValue, ...]) -> None:
    assert len(contradictions([said(v, str(n)) for n, v in enumerate(values)])) == 1


def test_tolerance_is_not_passed_on_from_one_to_the_next() -> None:
    context = MasterContext(keys=(Key(name="database", type="number", tolerance=0.05),))
    near = [said(1.0, "a"), said(1.05, "b")]
    assert contradictions(near, context) == ()
    (found,) = contradictions([*near, said(1.1, "c")], context)
    assert [[c.value for c in side.claims] for side in found.sides] == [[1.0, 1.05], [1.1]]
    assert conflicting_pairs(found) == 2


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 10))
def test_numbers_contradict_exactly_if_two_are_too_far_apart(values: list[int], apart: int) -> None:
    key = Key(name="database", type="number", tolerance=apart / 10, unit="s")
    context = MasterContext(keys=(key,))
    found = contradictions([said(v / 10, str(n)) for n, v in enumerate(values)], context)
    assert bool(found) == (max(values) - min(values) > apart)
    for side in found[0].sides if found else ():
        for a, b in combinations(side.claims, 2):
            assert meets(normal(a.value, key), normal(b.value, key))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6))
def test_ranges_contradict_exactly_if_they_have_nothing_in_common(
    ends: list[tuple[int, int]],
) -> None:
    values = [{"min": min(e), "max": max(e)} for e in ends]
    found = contradictions([said(v, str(n)) for n, v in enumerate(values)])
    empty = max(min(e) for e in ends) > min(max(e) for e in ends)
    assert bool(found) == empty


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_conflicting_pairs_are_all_pairs_but_those_that_agree(values: list[int]) -> None:
    names = ["React", "Vue", "Svelte", "Angular"]
    found = contradictions([said(names[v], str(n)) for n, v in enumerate(values)])
    pairs = sum(a != b for a, b in combinations(values, 2))
    assert sum(map(conflicting_pairs, found)) == pairs


def test_several_values_of_a_key_that_may_have_several_hold_at_once() -> None:
    context = MasterContext(keys=(Key(name="Database", many=True),))
    assert contradictions([said("SQLite"), said("PostgreSQL", "y")], context) == ()


def test_a_value_that_is_not_of_the_declared_type_is_found_alone() -> None:
    context = MasterContext(keys=(Key(name="database", type="number", unit="GB"),))
    assert kinds(contradictions([said("lots")], context)) == [("database", "type")]
    assert contradictions([said(8), said("8000 MB", "y")], context) == ()


# ── orders ────────────────────────────────────────────────────────────────────────────────────


def test_a_circle_in_what_comes_first_is_found() -> None:
    context = MasterContext(keys=(Key(name="steps", type="order"),))
    line = [said("build < test", "x", "steps"), said(["test", "ship"], "y", "steps")]
    assert contradictions(line, context) == ()
    (found,) = contradictions([*line, said("Ship -> Build", "z", "steps")], context)
    assert (found.kind, {c.by for c in found.claims}) == ("order", {"x", "y", "z"})


@given(st.lists(st.permutations("abcd"), min_size=1, max_size=4))
def test_orders_contradict_exactly_if_no_order_suits_all(orders: list[list[str]]) -> None:
    cut = [order[:2] for order in orders]
    context = MasterContext(keys=(Key(name="steps", type="order"),))
    found = contradictions([said(o, str(n), "steps") for n, o in enumerate(cut)], context)
    after = {a: {b for x, b in cut if x == a} for a in "abcd"}

    def reaches(a: str, b: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(n == b or (n not in seen and reaches(n, b, seen | {n})) for n in after[a])

    assert bool(found) == any(reaches(a, a) for a in "abcd")


# ── what must hold ────────────────────────────────────────────────────────────────────────────

NO_VUE = Constraint(text="not Vue", must=Condition(key="ui", op="is not", value="Vue"))
CHEAP = Constraint(text="cheap", must=Condition(key="cost", op="at most", value="10 EUR"))
APART = Constraint(
    text="Vue has no Redux",
    when=Condition(key="ui", value="vue"),
    must=Condition(key="store", op="is not", value="Redux"),
)
NEEDS = Constraint(
    text="a login needs a session",
    when=Condition(key="login", op="claimed"),
    must=Condition(key="session", op="claimed"),
)


@pytest.mark.parametrize(
    ("constraint", "good", "bad", "kind"),
    [
        (NO_VUE, {"ui": "React"}, {"ui": " VUE"}, "constraint"),
        (CHEAP, {"cost": "9.99 eur"}, {"cost": "€ 11"}, "constraint"),
        (APART, {"ui": "React", "store": "Redux"}, {"ui": "Vue", "store": "redux"}, "exclusion"),
        (NEEDS, {"login": "yes", "session": "cookie"}, {"login": "yes"}, "dependency"),
    ],
)
def test_what_breaks_a_constraint_is_found(
    constraint: Constraint, good: dict[str, str], bad: dict[str, str], kind: str
) -> None:
    context = MasterContext(constraints=(constraint,))
    assert contradictions([said(v, "x", k) for k, v in good.items()], context) == ()
    found = contradictions([said(v, "x", k) for k, v in bad.items()], context)
    assert [c.kind for c in found] == [kind]
    assert found[0].why == constraint.text


def test_what_is_decided_counts_for_constraints_too() -> None:
    decided = Decision(key="ui", value="Vue", rule="vote", version=1)
    context = MasterContext(constraints=(APART,), decisions=(decided,))
    (found,) = contradictions([said("Redux", "x", "store", version=1)], context)
    assert (found.kind, found.sides[0].held) == ("exclusion", "decided")


def test_a_claim_made_before_its_key_was_decided_otherwise_is_stale() -> None:
    context = MasterContext(
        version=3, decisions=(Decision(key="ui", value="Vue", rule="vote", version=3),)
    )
    assert contradictions([said("vue", "x", "ui", version=2)], context) == ()
    assert kinds(contradictions([said("React", "x", "ui", version=2)], context)) == [
        ("ui", "stale")
    ]
    assert kinds(contradictions([said("React", "x", "ui", version=3)], context)) == [
        ("ui", "value")
    ]


def test_a_promise_nobody_kept_is_found() -> None:
    promises = {"API.version": ("b", "a"), "database": ("c",)}
    (found,) = contradictions([said("SQLite")], MasterContext(), promises)
    assert (found.kind, found.key, found.promised) == ("omission", "api.version", ("a", "b"))
