"""What a manager in a tree remembers, how a tree is laid out, and what each child is given.

How a manager goes on is in `kapelle.state.manager`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from kapelle.state.context import MasterContext
from kapelle.state.leaving import Leaving
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Revision, Task, merge_results, merge_revisions

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


# -- what each child is given


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
