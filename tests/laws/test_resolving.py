"""Who is right is a rule's to say, in a fixed order; a judge's next, and last a person's."""

from typing import Any, cast

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
    Side,
    named,
    with_decisions,
)
from kapelle.state.contradictions import contradictions
from kapelle.state.resolving import choose, decisions, resolve, undisputed
from kapelle.state.review import SHOWN, ask_about
from kapelle.state.sayings import sayings
from kapelle.state.terms import Terms
from tests.laws.drawn import claims

NOT_VUE = Constraint(text="not Vue", by="ann", must=Condition(key="ui", op="is not", value="Vue"))
RATHER = NOT_VUE.model_copy(update={"hard": False})


def said(value: JsonValue, by: str = "x", **more: object) -> Claim:
    """A claim about one key."""
    return Claim.model_validate({"key": "ui", "value": value, "by": by, "task": by, **more})


def held(*decided: Decision, constraints: tuple[Constraint, ...] = ()) -> MasterContext:
    """A context."""
    return MasterContext(version=5, decisions=decided, constraints=constraints)


def settle(
    found: list[Claim],
    context: MasterContext | None = None,
    reputation: dict[str, float] | None = None,
) -> Contradiction:
    """The contradiction of these claims that is about values, settled."""
    context = context or MasterContext()
    among = contradictions(found, context)
    (one,) = [c for c in among if c.kind in ("value", "stale", "exclusion", "order")]
    return resolve(one, Terms.of(context), reputation)


SURE_VUE = [
    said("Vue", "v", evidence="page 1"),
    said("Vue", "w"),
    said("React", "r", confidence=0.1),
]


def test_each_rule_gives_way_to_those_before_it() -> None:
    decided = Decision(key="ui", value="React", rule="vote", version=5)
    context = held(decided, constraints=(NOT_VUE,))
    assert settle(SURE_VUE, context).rule == "constraint"
    assert settle(SURE_VUE, held(decided)).rule == "decided"
    assert settle(SURE_VUE, held(constraints=(RATHER,))).rule == "constraint"
    assert settle(SURE_VUE).rule == "evidence"
    assert settle([said("Vue", "v"), said("Vue", "w"), said("React", "r")]).rule == "vote"
    assert settle([said("Vue", "v"), said("React", "r")]).rule is None


def test_what_is_decided_beats_a_soft_constraint() -> None:
    decided = Decision(key="ui", value="Vue", rule="person", who="ann", version=5)
    found = settle(SURE_VUE, held(decided, constraints=(RATHER,)))
    assert found.decision is not None
    assert (found.rule, found.decision.value) == ("decided", "Vue")


def test_evidence_is_confidence_times_reputation_and_wants_a_margin() -> None:
    even = [said("Vue", "v", confidence=0.8), said("React", "r", confidence=0.78)]
    assert settle(even).rule is None
    better = settle(even, reputation={"r": 0.9, "v": 0.3})
    assert better.decision is not None
    assert (better.rule, better.decision.value, better.decision.by) == ("evidence", "React", ("r",))
    shown = settle([said("Vue", "v"), said("React", "r", evidence="package.json, line 3")])
    assert shown.decision is not None
    assert (shown.rule, shown.decision.value) == ("evidence", "React")


def test_one_agent_that_says_it_often_is_one_agent() -> None:
    often = [said("Vue", "v", task=str(n)) for n in range(9)]
    assert settle([*often, said("React", "r")]).rule is None


def test_the_record_keeps_both_sides_the_rule_and_who() -> None:
    found = settle([said("Vue", "v"), said("React", "r")])
    by_ann = choose(found, "react ", Terms(), rule="person", who="ann")
    assert by_ann.decision is not None
    assert (by_ann.rule, by_ann.decision.who, by_ann.decision.by) == ("person", "ann", ("r",))
    assert [(s.value, s.stands) for s in by_ann.sides] == [("React", True), ("Vue", False)]
    assert [c.by for c in by_ann.losing] == ["v"]
    neither = choose(found, "Svelte", Terms(), rule="person", who="ann")
    assert {c.by for c in neither.losing} == {"v", "r"}


def test_a_claim_against_a_hard_constraint_falls_even_alone() -> None:
    must = Constraint(text="React", by="ann", must=Condition(key="ui", value="React"))
    (found,) = contradictions([said("Vue")], held(constraints=(must,)))
    fell = resolve(found, Terms.of(held(constraints=(must,))))
    assert fell.decision is not None
    assert (fell.rule, fell.decision.value, fell.decision.who) == ("constraint", "React", "ann")
    assert [c.value for c in fell.losing] == ["Vue"]


def test_a_claim_against_a_soft_constraint_stands_and_is_noted() -> None:
    context = held(constraints=(RATHER,))
    (found,) = contradictions([said("Vue")], context)
    noted = resolve(found, Terms.of(context))
    assert (noted.rule, noted.losing) == ("undisputed", ())


def test_of_orders_in_a_circle_the_weakest_falls() -> None:
    context = MasterContext(keys=(Key(name="ui", type="order"),))
    orders = [
        said("a < b", "x", confidence=0.9),
        said("b < c", "y", confidence=0.8),
        said("c < a", "z", confidence=0.3),
    ]
    found = settle(orders, context)
    assert (found.rule, [c.by for c in found.losing]) == ("evidence", ["z"])


def test_of_keys_that_exclude_each_other_the_stronger_stands() -> None:
    apart = Constraint(
        text="Vue has no Redux",
        when=Condition(key="ui", value="Vue"),
        must=Condition(key="store", op="is not", value="Redux"),
    )
    redux = Claim(key="store", value="Redux", by="s", task="s", confidence=0.3)
    found = settle([said("Vue", "v"), redux], held(constraints=(apart,)))
    assert found.decision is not None
    assert (found.rule, found.decision.key, found.decision.value) == ("evidence", "ui", "Vue")
    assert [c.key for c in found.losing] == ["store"]


@given(st.lists(claims, max_size=6), st.data())
def test_order_of_arrival_does_not_change_who_is_right(
    found: list[Claim], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))
    first = [resolve(c, Terms()).model_dump_json() for c in contradictions(found)]
    assert first == [resolve(c, Terms()).model_dump_json() for c in contradictions(shuffled)]


@given(st.lists(claims, max_size=6))
def test_what_is_settled_stays_settled(found: list[Claim]) -> None:
    for conflict in contradictions(found):
        once = resolve(conflict, Terms())
        assert resolve(once, Terms()) is once or once.rule is None


@given(st.lists(claims, max_size=6))
def test_every_key_is_decided_undisputed_or_open(found: list[Claim]) -> None:
    conflicts = tuple(resolve(c, Terms()) for c in contradictions(found))
    decided = {d.key for d in decisions(conflicts)}
    agreed = {d.key for d in undisputed(sayings(found), conflicts)}
    open_ = {c.key for c in conflicts if c.rule is None}
    assert decided | agreed | open_ == {named(c.key) for c in found}
    assert not agreed & (decided | open_)


# ── the context ───────────────────────────────────────────────────────────────────────────────

made = st.builds(
    Decision,
    key=st.sampled_from(["a", "b", " A"]),
    value=st.sampled_from(["x", "y"]),
    rule=st.just("vote"),
)


@given(st.lists(made, max_size=4), st.lists(made, max_size=4))
def test_whoever_is_second_finds_what_the_first_decided(
    one: list[Decision], two: list[Decision]
) -> None:
    first = with_decisions(MasterContext(), one, seen=0)
    both = with_decisions(first, two, seen=0)
    kept = {d.key: d.value for d in both.decisions}
    assert {d.key: d.value for d in first.decisions}.items() <= kept.items()
    assert both.version == (len({named(d.key) for d in one}) > 0) + (
        len({named(d.key) for d in two} - {named(d.key) for d in one}) > 0
    )
    assert with_decisions(both, two, seen=0) is both


@pytest.mark.parametrize("seen", [0, 1])
def test_who_has_read_a_decision_may_change_it(seen: int) -> None:
    first = with_decisions(MasterContext(), [Decision(key="a", value=1, rule="vote")], seen=0)
    second = with_decisions(first, [Decision(key="a", value=2, rule="person")], seen=seen)
    assert (second.decisions[0].value, second.version) == ((2, 2) if seen else (1, 1))


def test_an_ask_shows_so_many_contradictions_and_proposes_a_value_for_all() -> None:
    keys = [f"k{n}" for n in range(SHOWN + 2)]
    found = contradictions(
        [Claim(key=key, value=value, by=value) for key in keys for value in ("Vue", "React")]
    )
    ask = ask_about(found, "all")
    assert isinstance(ask.evidence, dict)
    assert len(cast("dict[str, Any]", ask.evidence["sides"])) == SHOWN
    assert ask.evidence["decide"] == dict.fromkeys(keys, "React")
    assert ask.question.endswith(", 2 more. What holds?")


def test_a_key_that_is_in_doubt_for_two_reasons_is_shown_with_the_sides_of_both() -> None:
    sides = [Side(value=value, claims=(said(value),)) for value in ("React", "Vue", "Svelte")]
    differ = Contradiction(key="ui", kind="value", sides=tuple(sides[:2]), why="they differ")
    exclude = Contradiction(key="ui", kind="exclusion", sides=tuple(sides[1:]), why="not both")
    ask = ask_about((differ, exclude), "all")
    assert isinstance(ask.evidence, dict)
    shown = cast("dict[str, Any]", ask.evidence["sides"])["ui"]
    assert [side["value"] for side in shown] == ["React", "Vue", "Svelte"]


def test_the_surest_claim_comes_first_in_its_side_and_the_surest_side_first() -> None:
    doubtful, sure = said("React", "a", confidence=0.2), said("React", "b", confidence=0.4)
    found = contradictions([doubtful, said("Vue", "c", confidence=0.3), sure])
    assert [[c.by for c in side.claims] for side in found[0].sides] == [["b", "a"], ["c"]]
