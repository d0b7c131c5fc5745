"""How a tree of managers is laid out, and what each child is given."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.policy import Policy
from kapelle.state.task import Task
from kapelle.state.tree import (
    Costs,
    best_branching,
    children_of,
    goals_from,
    leaves_of,
    levels_of,
    managers_of,
    messages_of,
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
