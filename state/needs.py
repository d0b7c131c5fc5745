"""Which tasks need which: what builds on a task, and how urgent what is needed is."""

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from kapelle.state.task import Plan, Task


def dependents(plan: Plan, of: Iterable[str]) -> set[str]:
    """The tasks that need, directly or through others, one of `of`; without `of` themselves."""
    return reached(needed_by(plan), of)


def needed_by(plan: Plan) -> dict[str, list[str]]:
    """Which tasks need each task directly; for those that any needs."""
    behind: dict[str, list[str]] = {}
    for task in plan.tasks:
        for need in task.needs:
            behind.setdefault(need, []).append(task.id)
    return behind


def reached(ways: Mapping[str, Iterable[str]], of: Iterable[str]) -> set[str]:
    """Where these ways lead to from `of`; without `of` themselves."""
    start = set(of)
    found, ahead = set(start), list(start)
    while ahead:
        fresh = set(ways.get(ahead.pop(), ())) - found
        found |= fresh
        ahead += fresh
    return found - start


def by_urgency(tasks: Iterable[Task], least: int | None = None) -> list[Task]:
    """The most urgent first, each made as urgent as the most urgent task that needs it.

    So no task waits behind what is less urgent than it is only because what it needs does (priority
    inheritance: L. Sha, R. Rajkumar, J. P. Lehoczky, IEEE Trans. Computers 39, 1990). None is less
    urgent than `least`, the priority of the whole. Equally urgent ones stay as they were given.

    >>> a, b = Task(id="a", goal="x"), Task(id="b", goal="y", needs=("a",), priority=3)
    >>> [(t.id, t.priority) for t in by_urgency([Task(id="c", goal="z"), b, a])]
    [('b', 3), ('a', 3), ('c', 0)]
    """
    known = {t.id: t for t in tasks}
    inside = {i: [need for need in t.needs if need in known] for i, t in known.items()}
    urgency = {i: t.priority if least is None else max(t.priority, least) for i, t in known.items()}
    for task in reversed(list(TopologicalSorter(inside).static_order())):
        for need in inside[task]:
            urgency[need] = max(urgency[need], urgency[task])
    raised = (
        t if t.priority == urgency[i] else t.model_copy(update={"priority": urgency[i]})
        for i, t in known.items()
    )
    return sorted(raised, key=lambda t: -t.priority)
