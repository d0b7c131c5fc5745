"""How a manager in a tree goes on: what is due, what is done once more, what leaves."""

import pytest

from kapelle.state.budget import Usage
from kapelle.state.manager import (
    asking,
    by_performative,
    due,
    given_up,
    kept_of,
    left_tree,
    once_more,
)
from kapelle.state.policy import Policy
from kapelle.state.task import REPORTED, Failure, FailureKind, Result, Revision, Status, Task
from kapelle.state.tree import MANAGE, MERGE, Tree


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
