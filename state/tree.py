"""What a manager in a tree remembers, how a tree is laid out, and the laws by which it goes on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.breaker import asks_person, at_fault
from kapelle.state.budget import Usage
from kapelle.state.context import MasterContext
from kapelle.state.leaving import Leaving, asserted
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on
from kapelle.state.task import (
    Failure,
    Result,
    Revision,
    Status,
    Task,
    contradicted,
    merge_results,
    merge_revisions,
    missed,
    reported,
    why_not,
)

MANAGE, MERGE = "manage", "merge"
"""What a manager does itself, before and after its children, under these names."""

LEAF, BRANCH = "leaf", "branch"
"""Who works on an item, and on several."""

Branching = int | Literal["auto"]
"""Children of one manager; chosen by the cost model."""


class Tree(Leaving, total=False):
    """The shared state of one manager. The children of most are managers with such a state.

    Its task is the whole's, with the items of this branch in `inputs["items"]`.
    """

    at: int
    """The place of the first of them among all items, from 0."""
    levels: int
    """Levels of managers from this one down; 0 where the children are named teams."""
    branching: int
    children: list[str]
    """By name: an item's place, those of a branch's first and last, or a team."""
    context: MasterContext
    """What all agents of the run share, as it was when the children were sent to work."""
    goals: dict[str, str]
    """What the manager wants of a child, where that is not the goal of the whole."""
    sent: list[str]
    """The children at work in this step."""
    held: bool
    """Whether a person may hold it, so that each of them goes on by itself."""
    results: Annotated[dict[str, Result], merge_results]
    """By child; of managing and merging as well."""
    revisions: Annotated[dict[str, Revision], merge_revisions]
    capped: bool
    """Whether a person was asked for a larger budget and gave none."""


# -- how a tree is laid out


class Costs(Noun):
    """What a tree's time is made of, in seconds."""

    work: float = Field(default=1.0, ge=0)
    """Of one leaf."""
    latency: float = Field(default=0.02, ge=0)
    """Of handing down and back, once a level."""
    split: float = Field(default=0.001, ge=0)
    """Of sending work to one child."""
    merge: float = Field(default=0.5, ge=0)
    """Of merging what came back, once a level."""


def levels_of(items: int, branching: int) -> int:
    """Levels of managers, the fewest that so many items need.

    >>> levels_of(1_000, 10), levels_of(1_001, 10), levels_of(1, 10)
    (3, 4, 1)
    """
    levels, room = 1, branching
    while room < items:
        levels, room = levels + 1, room * branching
    return levels


def seconds_of(items: int, branching: int, costs: Costs) -> float:
    """T = t_work + depth * (latency + b * t_split + t_merge), with a worker for each leaf."""
    level = costs.latency + branching * costs.split + costs.merge
    return costs.work + levels_of(items, branching) * level


def best_branching(items: int, costs: Costs, most: int) -> int:
    """The branching, from 2 to `most`, with the shortest time; of equals the smallest."""
    return min(range(2, max(2, most) + 1), key=lambda b: (seconds_of(items, b, costs), b))


def width_of(how: Branching | Costs, items: int, policy: Policy) -> int:
    """Children of one manager: as given, else those with the shortest time."""
    if isinstance(how, int):
        return how
    costs = how if isinstance(how, Costs) else Costs()
    return best_branching(items, costs, policy.max_branching)


def shares(items: int, branching: int) -> list[int]:
    """Items of each child of a manager: as even as can be, and no more managers than needed.

    >>> shares(1_000, 10), shares(12, 5), shares(4, 5)
    ([100, 100, 100, 100, 100, 100, 100, 100, 100, 100], [4, 4, 4], [1, 1, 1, 1])
    """
    room = branching ** (levels_of(items, branching) - 1)
    children = -(-items // room)
    small, more = divmod(items, children)
    return [small + (n < more) for n in range(children)]


def children_of(at: int, items: int, branching: int) -> list[str]:
    """A manager's children by name: places of items, or of the first and last of a branch.

    >>> children_of(0, 12, 5), children_of(4, 2, 5)
    (['0-3', '4-7', '8-11'], ['4', '5'])
    """
    if levels_of(items, branching) == 1:
        return [str(at + n) for n in range(items)]
    names = []
    for many in shares(items, branching):
        names.append(f"{at}-{at + many - 1}")
        at += many
    return names


def span(child: str) -> tuple[int, int]:
    """The places of a child's first and last item."""
    first, _, last = child.partition("-")
    return int(first), int(last or first)


def managers_of(items: int, branching: int) -> int:
    """How many managers a tree has.

    >>> managers_of(1_000, 10)
    111
    """
    if levels_of(items, branching) == 1:
        return 1
    return 1 + sum(managers_of(many, branching) for many in shares(items, branching))


def messages_of(items: int, managers: int) -> int:
    """Messages of a run without redos: to every one below the root, and back.

    >>> messages_of(1_000, 111)
    2220
    """
    return 2 * (items + managers - 1)


# -- what it works on


def leaves_of(task: Task) -> list[JsonValue] | None:
    """The items of a task, wherever they are.

    `inputs["items"]`; else an item that is a list; else the last list that an earlier stage made.
    """
    given = task.inputs
    earlier = given.get("results")
    made = list(earlier.values()) if isinstance(earlier, dict) else []
    lists = [given.get("items"), given.get("item"), *reversed(made)]
    return next((each for each in lists if isinstance(each, list)), None)


def tree_flaw(task: Task, policy: Policy) -> str:
    """Why no tree can be made of a task, in a sentence; empty if one can."""
    items = leaves_of(task)
    if items is None:
        return 'there are no items: give the task a list as inputs["items"]'
    if len(items) > policy.max_leaves:
        return f"there are {len(items)} items; the limit is {policy.max_leaves} (policy.max_leaves)"
    return ""


def work_of(task: Task, child: str, at: int | None, goal: str | None) -> Task:
    """A child's task: the whole's, with its own items; a team's, with `at` None, has all."""
    if at is None:
        return task.model_copy(update={"id": child} | ({"goal": goal} if goal else {}))
    items = leaves_of(task) or []
    first, last = span(child)
    mine: dict[str, JsonValue] = {"items": items[first - at : last - at + 1]}
    if first == last and "-" not in child:
        mine = {"item": items[first - at]}
    change: dict[str, Any] = {"id": child, "inputs": {**others_of(task), **mine}}
    return task.model_copy(update=change | ({"goal": goal} if goal else {}))


def others_of(task: Task) -> dict[str, JsonValue]:
    """What a task brings beside its items."""
    return {k: v for k, v in task.inputs.items() if k not in ("items", "item", "results")}


def goals_from(said: JsonValue, children: Sequence[str]) -> dict[str, str]:
    """What a manager said its children are to do: one goal for all, one for each, or by name.

    Raises:
        ValueError: with what is wrong about it.
    """
    if said is None:
        return {}
    if isinstance(said, str):
        return dict.fromkeys(children, said)
    if isinstance(said, list) and len(said) == len(children):
        said = dict(zip(children, said, strict=True))
    if not isinstance(said, dict) or not all(isinstance(goal, str) for goal in said.values()):
        raise ValueError(f"say one goal for all, a list of {len(children)}, or goals by name")
    if unknown := set(said) - set(children):
        raise ValueError(f"there is no {min(unknown)!r} below; there are: {list(children)}")
    return {name: str(goal) for name, goal in said.items()}


# -- how it goes on


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


def is_good(result: Result) -> bool:
    """Whether there is something to build on."""
    return result.status in ("done", "partial")


def good_ones(state: Tree) -> dict[str, Result]:
    """What the children made, in their order."""
    results = state["results"]
    return {c: results[c] for c in state["children"] if c in results and is_good(results[c])}


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
