"""What a fan-out brings back folds to the same, in whatever order and however often it comes."""

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from kapelle.state.noun import Noun
from kapelle.state.task import Result, Revision, merge_results, merge_revisions, settled
from tests.laws.drawn import ordered, recorded, results


def exact(merged: Mapping[str, Noun]) -> dict[str, str]:
    """As text: Python takes 1, 1.0 and True for equal, a saver does not."""
    return {task: noun.model_dump_json() for task, noun in sorted(merged.items())}


ONE = {"a": Result(task="a", status="done", output=1)}
TRUE = {"a": Result(task="a", status="done", output=True)}
"""Python takes them for equal."""


@given(recorded, recorded)
@example(ONE, TRUE)
def test_results_commute(a: dict[str, Result], b: dict[str, Result]) -> None:
    assert exact(merge_results(a, b)) == exact(merge_results(b, a))


@given(recorded, recorded, recorded)
def test_results_associate(
    a: dict[str, Result], b: dict[str, Result], c: dict[str, Result]
) -> None:
    left = merge_results(merge_results(a, b), c)
    assert exact(left) == exact(merge_results(a, merge_results(b, c)))


@given(recorded, recorded)
def test_results_told_again_change_nothing(a: dict[str, Result], b: dict[str, Result]) -> None:
    once = merge_results(a, b)
    assert exact(merge_results(once, b)) == exact(merge_results(once, a)) == exact(once)


@given(recorded)
def test_nothing_merges_to_nothing_new(a: dict[str, Result]) -> None:
    assert exact(merge_results(None, a)) == exact(merge_results(a, None)) == exact(a)


@given(recorded, recorded)
def test_merging_leaves_what_it_merges_as_it_was(
    a: dict[str, Result], b: dict[str, Result]
) -> None:
    before = exact(a), exact(b)
    merge_results(a, b)
    assert (exact(a), exact(b)) == before


@given(recorded, recorded)
def test_the_highest_revision_counts(a: dict[str, Result], b: dict[str, Result]) -> None:
    for task, result in merge_results(a, b).items():
        assert result.revision == max(m[task].revision for m in (a, b) if task in m)


@given(results)
def test_a_settled_result_wins_over_what_it_was(result: Result) -> None:
    later = settled(result, status="done")
    assert merge_results({"a": result}, {"a": later}) == {"a": later}


@given(ordered, ordered, ordered)
def test_orders_commute_and_associate(
    a: dict[str, Revision], b: dict[str, Revision], c: dict[str, Revision]
) -> None:
    assert exact(merge_revisions(a, b)) == exact(merge_revisions(b, a))
    left = merge_revisions(merge_revisions(a, b), c)
    assert exact(left) == exact(merge_revisions(a, merge_revisions(b, c)))


@given(ordered, ordered)
def test_orders_told_again_change_nothing(a: dict[str, Revision], b: dict[str, Revision]) -> None:
    once = merge_revisions(a, b)
    assert exact(merge_revisions(once, b)) == exact(merge_revisions(once, a)) == exact(once)


@given(ordered, ordered)
def test_the_highest_order_counts(a: dict[str, Revision], b: dict[str, Revision]) -> None:
    for task, order in merge_revisions(a, b).items():
        assert order.number == max(m[task].number for m in (a, b) if task in m)


@given(st.permutations(["raised", "late", "ok"]))
def test_equal_revisions_settle_the_same_for_every_order(arrival: list[str]) -> None:
    merged: dict[str, Result] = {}
    for output in arrival:
        merged = merge_results(merged, {"a": Result(task="a", status="done", output=output)})
    assert merged["a"].output == "raised"
