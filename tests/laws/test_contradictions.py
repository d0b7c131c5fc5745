"""Claims that can't both hold are found and decided, whoever came first and however often."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.context import Claim, contradictions
from tests.laws.drawn import claims


def said(value: object, by: str = "x", **more: object) -> Claim:
    """A claim about one key."""
    return Claim.model_validate({"key": "database", "value": value, "by": by, **more})


@given(st.lists(claims, max_size=6), st.data())
def test_order_of_arrival_does_not_matter(found: list[Claim], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(found))
    assert [c.model_dump_json() for c in contradictions(found)] == [
        c.model_dump_json() for c in contradictions(shuffled)
    ]


@given(st.lists(claims, max_size=5), st.data())
def test_repetition_does_not_matter(found: list[Claim], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(found), max_size=5)) if found else []
    assert [c.model_dump_json() for c in contradictions(found)] == [
        c.model_dump_json() for c in contradictions([*found, *again])
    ]


@given(st.lists(claims, max_size=6))
def test_both_sides_are_kept_and_the_decision_is_one_of_them(found: list[Claim]) -> None:
    for conflict in contradictions(found):
        about = {c.model_dump_json() for c in found if c.key == conflict.key}
        assert {c.model_dump_json() for c in conflict.claims} == about
        sides = {c.model_dump_json(include={"value"}) for c in conflict.claims}
        assert len(sides) > 1
        assert conflict.decision.model_dump_json(include={"value"}) in sides


@given(st.lists(claims, max_size=6))
def test_keys_come_in_order_and_once(found: list[Claim]) -> None:
    keys = [c.key for c in contradictions(found)]
    assert keys == sorted(set(keys))


def test_one_voice_is_no_contradiction() -> None:
    assert contradictions([said("SQLite", "x"), said("SQLite", "y")]) == ()
    assert contradictions([]) == ()


def test_the_same_object_written_in_another_order_is_no_contradiction() -> None:
    assert contradictions([said({"a": 1, "b": [{"c": 1, "d": 2}]}),
                           said({"b": [{"d": 2, "c": 1}], "a": 1}, "y")]) == ()  # fmt: skip


def test_the_most_confident_claim_decides() -> None:
    (found,) = contradictions(
        [said("SQLite", "x"), said("MariaDB", "y", confidence=0.9), said("MariaDB", "z")]
        + [said("PostgreSQL", n, confidence=0.99) for n in "abc"]
    )
    assert (found.decision.value, found.decision.rule) == ("MariaDB", "agreement")
    (found,) = contradictions(
        [said("b", "x"), said("a", "y", confidence=0.9), said("a", "z", confidence=0.9)]
    )
    assert (found.decision.value, found.decision.rule) == ("b", "confidence")
    assert found.decision.by == ("x",)


def test_then_the_value_more_agents_claim_decides() -> None:
    (found,) = contradictions([said("b", "x"), said("b", "y"), said("a", "z")])
    assert (found.decision.value, found.decision.rule) == ("b", "agreement")
    assert found.decision.by == ("x", "y")


def test_one_agent_that_says_it_often_is_one_agent() -> None:
    often = [said("b", "x", task=str(n), evidence=f"page {n}") for n in range(9)]
    (found,) = contradictions([*often, said("a", "y")])
    assert (found.decision.value, found.decision.rule) == ("a", "order")


def test_then_the_first_in_json_order_decides() -> None:
    (found,) = contradictions([said("b", "x"), said("a", "y")])
    assert (found.decision.value, found.decision.rule) == ("a", "order")


def test_true_and_one_contradict() -> None:
    assert len(contradictions([said(value=True), said(1, "y")])) == 1
