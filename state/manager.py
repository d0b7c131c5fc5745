"""How a manager in a tree goes on: what is due, what the budget cut short, what leaves."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kapelle.state.approval import Approval, Escalation
from kapelle.state.breaker import asks_person, at_fault
from kapelle.state.budget import Usage
from kapelle.state.leaving import asserted
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on
from kapelle.state.task import (
    Failure,
    Result,
    Revision,
    Status,
    Task,
    contradicted,
    missed,
    reported,
    why_not,
)
from kapelle.state.tree import LEAF, MANAGE, MERGE, Tree

# -- what is due


def is_due(result: Result | None, order: Revision | None) -> bool:
    """Whether something is to be done, for the first time or again."""
    return result is None or (order is not None and result.revision < order.number)


def due(state: Tree, *, managed: bool, merging: bool = True) -> list[str]:
    """What is to be done now: managing, if somebody does; then the children; then merging.

    Without `merging` not that: what lacks children for want of budget, a person may yet add to.
    """
    results, orders = state["results"], state["revisions"]

    def open_(name: str) -> bool:
        return is_due(results.get(name), orders.get(name))

    if managed and (open_(MANAGE) or not is_good(results[MANAGE])):
        return [MANAGE] if open_(MANAGE) else []
    children = [child for child in state["children"] if open_(child)]
    over = merging and not children
    over = over and not any(results[c].status == "waiting" for c in state["children"])
    return [MERGE] if over and good_ones(state) and open_(MERGE) else children


def is_good(result: Result) -> bool:
    """Whether there is something to build on."""
    return result.status in ("done", "partial")


def good_ones(state: Tree) -> dict[str, Result]:
    """What the children made, in their order."""
    results = state["results"]
    return {c: results[c] for c in state["children"] if c in results and is_good(results[c])}


def asking(state: Tree) -> list[Result]:
    """What waits for a person."""
    orders = state["revisions"]
    return [
        result
        for name, result in state["results"].items()
        if result.status == "waiting" and not is_due(result, orders.get(name))
    ]


def may_be_held(state: Tree, graphs: Collection[str]) -> bool:
    """Whether a person may hold the next step, and there is another child that must not wait.

    Of `graphs`, by node, each may turn to a person before it has a result. A branch asks within.
    """
    if state["levels"] > 1:
        return False
    asks, sent = asking(state), [c for c in state["sent"] if c not in (MANAGE, MERGE)]
    graph = any((child if state["levels"] == 0 else LEAF) in graphs for child in sent)
    return len(asks) + len(sent) > 1 and (bool(asks) or graph)


def once_more(result: Result, order: Revision | None, policy: Policy) -> Revision | None:
    """The order to redo what failed; None if it failed too often, or what it needs is at fault.

    A branch whose children failed is none of them: they were redone below.
    """
    done_before = len(order.feedback) if order else 0
    if not _own_failure(result) or done_before >= policy.redos:
        return None
    why = result.failure.message if result.failure else "it failed"
    feedback = (*(order.feedback if order else ()), why)
    return Revision(task=result.task, number=result.revision + 1, feedback=feedback)


def _own_failure(result: Result) -> bool:
    return at_fault(result) and result.missing in ((), (result.task,))


def given_up(result: Result, policy: Policy) -> bool:
    """Whether a person is asked what to do about it."""
    return _own_failure(result) and asks_person(policy, [result.agent or ""])


def kept_of(result: Result | None) -> dict[str, Result]:
    """What a branch that is redone need not do again; what that used, its last result has counted.

    Of one that the budget ended that is all but what there was no room for.
    """
    if result is None:
        return {}
    all_of_it = _is_short(result)
    kept = {name: part for name, part in result.parts.items() if all_of_it or is_good(part)}
    return {name: part.model_copy(update={"usage": Usage()}) for name, part in kept.items()}


# -- when the budget ends before the work does


def short_of(state: Tree) -> list[Result]:
    """What the budget left no room for: children, managing, merging."""
    orders = state["revisions"]
    return [
        result
        for name, result in state["results"].items()
        if _is_short(result) and not is_due(result, orders.get(name))
    ]


def _is_short(result: Result) -> bool:
    failure = result.failure
    return result.status == "failed" and failure is not None and failure.kind == "budget"


def held(state: Tree, policy: Policy) -> bool:
    """Whether it waits for a larger budget: a branch leaves as it is, the root asks for all."""
    return policy.on_budget == "ask" and not state["capped"] and bool(short_of(state))


def left_held(state: Tree) -> Result:
    """What leaves a branch that waits for a larger budget: with all that there is of it."""
    task, results = state["task"], state["results"]
    parts = {n: r for n, r in results.items() if n != MERGE and (not _is_short(r) or r.parts)}
    return Result(
        task=task.id,
        status="failed",
        failure=cut_short(short_of(state)),
        usage=sum((r.usage for r in results.values()), Usage()),
        missing=tuple(name for r in short_of(state) for name in _lacking(r, task)),
        parts=parts,
    )


def _lacking(result: Result, task: Task) -> tuple[str, ...]:
    if result.task in (MANAGE, MERGE):
        return (f"{task.id}/{result.task}",)
    return result.missing or (result.task,)


def ask_of_tree(state: Tree) -> Escalation:
    """What a person is asked, once for the whole tree."""
    task, left = state["task"], left_held(state)
    assert left.failure is not None
    return ask_for_more(task.id, task.goal, left.failure, left.missing)


def once_answered(state: Tree, answer: Approval) -> dict[str, Any]:
    """What follows: all that was short is gone on with; or what there is of it is merged."""
    funded = goes_on(answer)
    again = [result for result in short_of(state) if funded or result.parts]
    return {
        "answer": None,
        "capped": not funded,
        "revisions": gone_on_with(again, state["revisions"]),
    }


def gone_on_with(results: Iterable[Result], orders: Mapping[str, Revision]) -> dict[str, Revision]:
    """The orders to go on with what the budget ended, which is no failure of it."""
    return {
        r.task: Revision(
            task=r.task,
            number=r.revision + 1,
            feedback=before.feedback if (before := orders.get(r.task)) else (),
        )
        for r in results
        if _is_short(r)
    }


# -- what leaves


def left_tree(state: Tree) -> Result:
    """What leaves a manager: what was merged; what is missing of it, and why."""
    results, task = state["results"], state["task"]
    below = [results[child] for child in state["children"] if child in results]
    merged, managed = results.get(MERGE), results.get(MANAGE)
    usage = sum((r.usage for r in (*below, merged, managed) if r), Usage())
    bad = next((r for r in (managed, merged) if r and not is_good(r)), None)
    if bad is not None and not (bad is merged and _is_short(bad)):
        parts = {**good_ones(state), bad.task: bad}
        return Result(task=task.id, status=bad.status, failure=bad.failure, usage=usage,
                      missing=(task.id,), parts=parts)  # fmt: skip
    named = state["levels"] == 0
    failed = {r.task: r for r in below if r.status != "done"} if named else _failed(below)
    missing = tuple(name for result in below for name in _lost(result, named=named))
    output = merged.output if merged else None
    if bad is not None:  # there was no room to merge it: it leaves as it is
        output = {name: result.output for name, result in good_ones(state).items()}
        missing, below = (*missing, f"{task.id}/{MERGE}"), [*below, bad]
    said = [r for r in (managed, *below, merged) if r]
    status: Status = "partial" if missing else "done"
    if below and not any(map(is_good, below)):
        status = "refused" if all(r.status == "refused" for r in below) else "failed"
    return Result(
        task=task.id,
        status=status,
        output=output,
        agent=merged.agent if merged else None,
        claims=asserted(filter(is_good, said)),
        failure=cut_short(below) or next((r.failure for r in below if r.failure), None),
        usage=usage,
        missing=missing,
        parts=reported(failed),
        contradictions=contradicted(said),
    )


def lost_children(state: Tree) -> dict[str, str]:
    """Why children did not come through, by name."""
    good, results = good_ones(state), state["results"]
    return {name: why_not(results.get(name)) for name in state["children"] if name not in good}


def _lost(result: Result, *, named: bool) -> tuple[str, ...]:
    if result.status == "done":
        return ()
    if named and is_good(result):
        return missed(result)
    return result.missing or (result.task,)


def _failed(below: Sequence[Result]) -> dict[str, Result]:
    """What did not come through: leaves, and branches whose manager failed, by their own name."""
    found: dict[str, Result] = {}
    for result in below:
        if result.status == "done":
            continue
        if result.missing and result.task not in result.missing:
            found |= result.parts
        else:
            found[result.task] = result
    return found


def refused_tree(task: Task, why: str) -> Result:
    """What leaves where no tree could be made."""
    return Result(task=task.id, status="refused", failure=Failure(kind="refused", message=why))


def by_performative(names: Sequence[str], results: Mapping[str, Result]) -> dict[str, list[str]]:
    """How children answer: inform, failure or refuse, and who does."""
    said = {"failed": "failure", "refused": "refuse"}
    answers: dict[str, list[str]] = {}
    for name in names:
        if name in results:
            answers.setdefault(said.get(results[name].status, "inform"), []).append(name)
    return answers
