"""Graphs of a run that lack room in the same budget ask as one, and one answer is for all."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.approval import Approval, Ask
from kapelle.state.budget import Usage
from kapelle.state.shortage import alike, ask_for_more, cut_short, shared, together
from kapelle.state.task import Failure, Result


def ask(name: str, calls: int, account: str = "", thread: str = "t") -> Ask:
    """An ask for so many calls more, as the inbox shows it."""
    lacking = Failure(kind="budget", message="full", wanted=Usage(calls=calls), accounts=(account,))
    short = cut_short([Result(task=name, status="failed", failure=lacking)])
    assert short is not None
    asked = ask_for_more(name, f"do {name}", short, [name]).model_dump(
        include={"question", "reason", "evidence", "about", "task", "offers"}
    )
    return Ask.model_validate({"id": name, "thread": thread, **asked})


def own(decision: Any = "edit", **value: Any) -> Approval:
    """A person's own figure, as `kapelle edit` gives it; `kapelle approve --add-…` approves it."""
    return Approval(decision=decision, by="ann", value=value)


def test_those_that_lack_room_in_one_budget_are_shown_as_one_with_what_all_of_them_want() -> None:
    (one,) = together([ask("a", 2), ask("b", 3)])
    assert (one.id, one.about) == ("a", "budget")
    assert one.evidence == {"add": {"tokens": 0, "calls": 5}, "to": [""], "missing": ["a", "b"]}
    assert "2 graphs of the run" in one.question


@pytest.mark.parametrize("other", [ask("b", 1, account="its own"), ask("b", 1, thread="u")])
def test_those_of_another_budget_or_run_are_asks_of_their_own(other: Ask) -> None:
    assert not alike(ask("a", 1), other)
    assert together([ask("a", 1), other]) == [ask("a", 1), other]


def test_whatever_else_is_asked_stays_as_it_is_and_where_it_is() -> None:
    plain = Ask(id="p", thread="t", question="Send it?", evidence={"to": [""], "add": {}})
    assert [each.id for each in together([plain, ask("a", 1), plain, ask("b", 1)])] == [
        "p", "a", "p",
    ]  # fmt: skip


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_yes_and_no_are_said_to_all(decision: Any) -> None:
    answer = Approval(decision=decision, by="ann")
    assert shared(answer, [ask("a", 1), ask("b", 2)]) == [answer, answer]


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6),
    st.integers(0, 100),
    st.sampled_from(["edit", "approve"]),
)
def test_a_person_s_own_figure_is_given_out_once_and_to_each_what_it_asks_for(
    wanted: list[int], figure: int, decision: str
) -> None:
    asks = [ask(f"a{n}", calls) for n, calls in enumerate(wanted)]
    parts: list[Any] = [each.value for each in shared(own(decision, add={"calls": figure}), asks)]
    got = [part["add"].get("calls", 0) for part in parts]
    assert sum(got) == figure
    assert all(some <= calls for some, calls in zip(got[1:], wanted[1:], strict=True))
    assert figure < sum(wanted) or all(s >= c for s, c in zip(got, wanted, strict=True))


def test_what_nobody_asked_for_is_the_first_one_s() -> None:
    first, second = shared(own(add={"calls": 1, "seconds": 9}), [ask("a", 1), ask("b", 1)])
    assert first.value == {"add": {"tokens": 0, "calls": 1, "seconds": 9}}
    assert second.value == {"add": {"tokens": 0, "calls": 0}}
