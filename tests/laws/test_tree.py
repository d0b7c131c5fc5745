"""How a tree of managers is laid out, and how a manager goes on."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.task import REPORTED, Failure, FailureKind, Result, Revision, Status, Task
from kapelle.state.tree import (
    MANAGE,
    MERGE,
    Costs,
    Tree,
    asking,
    best_branching,
    by_performative,
    children_of,
    due,
    given_up,
    goals_from,
    kept_of,
    leaves_of,
    left_tree,
    levels_of,
    managers_of,
    messages_of,
    once_more,  # fmt: skip
    seconds_of,
    shares,
    span,
    tree_flaw,
    work_of,
)

sizes = st.integers(1, 5_000)
widths = st.integers(2, 40)


def test_a_thousand_items_by_tens_make_111_managers_and_2220_messages() -> None:
    assert (levels_of(1_000, 10), managers_of(1_000, 10)) == (3, 111)
    assert messages_of(1_000, 111) == 2_220


@given(sizes, widths)
def test_levels_are_the_fewest_that_hold_all_items(items: int, width: int) -> None:
    levels = levels_of(items, width)
    assert width**levels >= items
    assert levels == 1 or width ** (levels - 1) < items


@given(sizes, widths)
def test_shares_are_even_and_no_manager_has_too_many(items: int, width: int) -> None:
    many = shares(items, width)
    assert sum(many) == items
    assert 1 <= len(many) <= width
    assert max(many) - min(many) <= 1


@given(sizes, widths)
def test_children_follow_each_other_from_the_first_item_to_the_last(items: int, width: int) -> None:
    spans = [span(child) for child in children_of(7, items, width)]
    assert spans[0][0] == 7
    assert spans[-1][1] == 7 + items - 1
    assert all(before[1] + 1 == after[0] for before, after in pairwise(spans))


def leaves_below(at: int, items: int, width: int) -> tuple[list[str], int]:
    """The leaves of a tree, one after the other, and its managers."""
    if levels_of(items, width) == 1:
        return children_of(at, items, width), 1
    found, managers = [], 1
    for child in children_of(at, items, width):
        first, last = span(child)
        more, below = leaves_below(first, last - first + 1, width)
        found, managers = found + more, managers + below
    return found, managers


@given(sizes, widths)
def test_each_item_is_one_leaf_and_managers_are_counted_right(items: int, width: int) -> None:
    leaves, managers = leaves_below(0, items, width)
    assert leaves == [str(n) for n in range(items)]
    assert managers == managers_of(items, width)


@given(st.integers(1, 100_000), st.integers(2, 200), st.builds(
    Costs, latency=st.floats(0, 5), split=st.floats(0.0001, 1), merge=st.floats(0, 5)))  # fmt: skip
def test_no_other_branching_is_faster(items: int, most: int, costs: Costs) -> None:
    best = best_branching(items, costs, most)
    assert 2 <= best <= most
    assert all(
        seconds_of(items, best, costs) <= seconds_of(items, b, costs) for b in range(2, most + 1)
    )


@pytest.mark.parametrize(("items", "width"), [(100, 100), (1_000, 32), (10_000, 100)])
def test_what_a_tree_chooses_by_itself(items: int, width: int) -> None:
    assert best_branching(items, Costs(), Policy().max_branching) == width


def test_items_are_found_wherever_they_are() -> None:
    assert leaves_of(Task(goal="x", inputs={"items": [1], "item": [2]})) == [1]
    assert leaves_of(Task(goal="x", inputs={"item": [2], "results": {"find": [3]}})) == [2]
    assert leaves_of(Task(goal="x", inputs={"item": 2, "results": {"a": [3], "b": "4"}})) == [3]
    assert leaves_of(Task(goal="x")) is None


def test_no_tree_is_made_of_nothing_or_of_too_much() -> None:
    assert "give the task a list" in tree_flaw(Task(goal="x"), Policy())
    three = Task(goal="x", inputs={"items": [1, 2, 3]})
    assert "3 items; the limit is 2" in tree_flaw(three, Policy(max_leaves=2))
    assert tree_flaw(three, Policy(max_leaves=3)) == ""


def test_a_child_has_its_own_items_and_all_else_the_task_brings() -> None:
    task = Task(goal="read", inputs={"items": ["e", "f", "g"], "tone": "warm"})
    assert work_of(task, "5", 4, None).inputs == {"item": "f", "tone": "warm"}
    below = work_of(task, "5-6", 4, "read on")
    assert (below.id, below.goal, below.inputs["items"]) == ("5-6", "read on", ["f", "g"])
    assert work_of(task, "5-5", 4, None).inputs["items"] == ["f"], "a branch of one item"
    assert work_of(task, "sales", None, None).inputs == task.inputs


def test_a_manager_may_say_one_goal_for_all_a_list_or_goals_by_name() -> None:
    two = ["0-4", "5-9"]
    assert goals_from("read", two) == {"0-4": "read", "5-9": "read"}
    assert goals_from(["a", "b"], two) == {"0-4": "a", "5-9": "b"}
    assert goals_from({"5-9": "b"}, two) == {"5-9": "b"}
    assert goals_from(None, two) == {}


@pytest.mark.parametrize("said", [["a"], {"7": "x"}, {"0-4": 3}, 5])
def test_what_else_a_manager_says_is_told_back(said: object) -> None:
    with pytest.raises(ValueError, match=r"say one goal|there is no '7' below"):
        goals_from(said, ["0-4", "5-9"])  # type: ignore[arg-type]


def made(name: str, status: Status = "done", **more: object) -> Result:
    """A child's result."""
    if status == "failed":
        more.setdefault("failure", broke())
    return Result.model_validate({"task": name, "status": status, "agent": "worker", **more})


def broke(kind: FailureKind = "raised") -> Failure:
    """Why something failed."""
    return Failure(kind=kind, message="it broke")


def at_work(*results: Result, levels: int = 1, **more: object) -> Tree:
    """A manager of three children, with these results."""
    state: Tree = {
        "task": Task(id="0-2", goal="count", inputs={"items": [1, 2, 3]}),
        "at": 0, "levels": levels, "branching": 3, "children": ["0", "1", "2"], "goals": {},
        "sent": [], "results": {r.task: r for r in results}, "revisions": {}, "capped": False,
        "result": None,
    }  # fmt: skip
    return {**state, **more}  # type: ignore[typeddict-item]


DONE = [made(str(n), output=n, usage=Usage(calls=1)) for n in range(3)]


def test_managing_comes_first_then_the_children_then_merging() -> None:
    assert due(at_work(), managed=True) == [MANAGE]
    assert due(at_work(made(MANAGE)), managed=True) == ["0", "1", "2"]
    assert due(at_work(), managed=False) == ["0", "1", "2"]
    assert due(at_work(*DONE), managed=False) == [MERGE]
    assert due(at_work(*DONE, made(MERGE)), managed=False) == []


def test_nothing_is_sent_where_the_manager_waits_or_was_lost() -> None:
    assert due(at_work(made(MANAGE, "waiting")), managed=True) == []
    assert due(at_work(made(MANAGE, "failed")), managed=True) == []


def test_nothing_is_merged_while_a_child_waits_for_a_person() -> None:
    state = at_work(DONE[0], made("1", "waiting"), DONE[2])
    assert due(state, managed=False) == []
    assert [r.task for r in asking(state)] == ["1"]


def test_what_is_ordered_again_is_due_alone() -> None:
    orders = {"1": Revision(task="1", number=2)}
    assert due(at_work(*DONE, revisions=orders), managed=False) == ["1"]
    again = made("1", revision=2)
    assert due(at_work(DONE[0], again, DONE[2], revisions=orders), managed=False) == [MERGE]


def test_what_failed_is_done_once_more_as_often_as_the_policy_says() -> None:
    first = once_more(made("1", "failed"), None, Policy(redos=2))
    assert first == Revision(task="1", number=2, feedback=("it broke",))
    second = once_more(made("1", "failed", revision=2), first, Policy(redos=2))
    assert second is not None
    assert (second.number, second.feedback) == (3, ("it broke", "it broke"))
    assert once_more(made("1", "failed", revision=3), second, Policy(redos=2)) is None


@pytest.mark.parametrize(
    "result",
    [made("1"), made("1", "partial"), made("1", "refused"), made("1", "waiting"),
     made("1", "failed", failure=broke("budget")), made("0-9", "failed", missing=("3", "4"))],
)  # fmt: skip
def test_nothing_else_is_done_once_more(result: Result) -> None:
    assert once_more(result, None, Policy()) is None
    assert not given_up(result, Policy(on_failure="ask"))


def test_a_branch_whose_merge_failed_is_redone_with_what_its_children_made() -> None:
    state = at_work(*DONE, made(MERGE, "failed"))
    lost = left_tree(state)
    assert (lost.status, lost.missing) == ("failed", ("0-2",))
    assert once_more(lost, None, Policy()) is not None
    unused = {r.task: r.model_copy(update={"usage": Usage()}) for r in DONE}
    assert kept_of(lost) == unused, "what it used is counted in what was lost"


def test_what_leaves_a_manager_is_what_was_merged() -> None:
    left = left_tree(at_work(*DONE, made(MERGE, output=3, usage=Usage(calls=1))))
    assert (left.task, left.status, left.output, left.usage.calls) == ("0-2", "done", 3, 4)
    assert (left.missing, left.parts) == ((), {})


def test_what_is_missing_is_named_and_its_result_is_reported() -> None:
    left = left_tree(at_work(DONE[0], made("1", "failed"), DONE[2], made(MERGE, output=2)))
    assert (left.status, left.output, left.missing) == ("partial", 2, ("1",))
    assert set(left.parts) == {"1"}
    assert left.failure == broke()


def test_what_is_missing_below_is_missing_above_by_the_same_name() -> None:
    half = made("0", "partial", output=1, missing=("7",), parts={"7": made("7", "failed")})
    left = left_tree(at_work(half, DONE[1], DONE[2], made(MERGE, output=2), levels=2))
    assert left.missing == ("7",)
    assert set(left.parts) == {"7"}


def test_what_is_missing_of_a_team_is_named_after_it() -> None:
    half = made("0", "partial", output=1, missing=("x",))
    left = left_tree(at_work(half, DONE[1], DONE[2], made(MERGE, output=2), levels=0))
    assert left.missing == ("0/x",)


@pytest.mark.parametrize(("ends", "status"), [("rrr", "refused"), ("rff", "failed")])
def test_where_no_child_made_anything_the_branch_failed(ends: str, status: str) -> None:
    kinds: dict[str, Status] = {"r": "refused", "f": "failed"}
    left = left_tree(at_work(*(made(str(n), kinds[e]) for n, e in enumerate(ends))))
    assert (left.status, left.missing) == (status, ("0", "1", "2"))


def test_of_very_many_failures_the_first_are_reported_and_all_are_named() -> None:
    lost = [made(str(n), "failed") for n in range(REPORTED + 50)]
    state = at_work(*lost, children=[r.task for r in lost])
    assert len(left_tree(state).missing) == REPORTED + 50
    assert len(left_tree(state).parts) == REPORTED


def test_children_answer_each_in_their_way_and_none_is_left_out() -> None:
    results = {r.task: r for r in (DONE[0], made("1", "failed"), made("2", "refused"))}
    said = by_performative(["0", "1", "2", "3"], results)
    assert said == {"inform": ["0"], "failure": ["1"], "refuse": ["2"]}
