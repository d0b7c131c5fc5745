"""What a pipeline remembers, and the laws by which it goes on."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Usage
from kapelle.state.context import Claim, named
from kapelle.state.delivery import Post, overflow, post, requested
from kapelle.state.errors import Misbuilt, Renamed
from kapelle.state.fold import fold
from kapelle.state.leaving import Leaving, asserted
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on
from kapelle.state.task import (
    Failure,
    Result,
    Status,
    Task,
    contradicted,
    merge_results,
    missed,
)


class Halt(Noun):
    """How far the line of an item came that the budget stopped: it goes on from there."""

    results: dict[str, Result]
    """By stage; of the one at work what there is of it."""
    at: int
    """The stage at work, from 0."""
    check: int
    """The check of its gate that is next, from 0."""
    feedback: tuple[str, ...]
    """What was wrong with that stage's work, oldest first."""
    rounds: int
    """How many times it was sent back."""
    spent: Usage
    """By the gates."""
    passed: tuple[str, ...] = ()
    """Messages beyond a limit that a person let pass, by id."""
    kept_back: tuple[str, ...] = ()
    """Those that a person did not."""
    move: str
    """The node that there was no room for."""
    revision: int = 1
    """Of what left the line then."""


def merge_halts(old: Mapping[str, Halt] | None, new: Mapping[str, Halt] | None) -> dict[str, Halt]:
    """Fold how far lines came, by item, the last time. Order and repetition do not matter."""
    return fold(old, new, lambda halt: (-halt.revision, halt.model_dump_json()))


class Line(Leaving, total=False):
    """The shared state of a pipeline."""

    item: str
    """Which of several items is on this line, by its place among them; empty if there is one."""
    stages: list[str]
    """The stages' names as they were when the line was opened."""
    results: Annotated[dict[str, Result], merge_results]
    """The last result of each stage, by its name."""
    at: int
    """The stage at work, from 0."""
    check: int
    """The check of its gate that is next, from 0."""
    feedback: tuple[str, ...]
    """What was wrong with this stage's work, oldest first."""
    rounds: int
    """How many times the gate sent this stage's work back."""
    spent: Usage
    """By the gates; stages keep their own."""
    capped: bool
    """Whether a person was asked for a larger budget and gave none."""
    passed: tuple[str, ...]
    """Messages beyond a limit that a person let pass, by id."""
    kept_back: tuple[str, ...]
    """Those that a person did not."""
    move: str
    """The node that is next; `end`."""
    halt: Halt | None
    """Of an item: how far its line came, if the budget stopped it."""
    lines: Annotated[dict[str, Result], merge_results]
    """What left the line of each item, by its place among them."""
    halted: Annotated[dict[str, Halt], merge_halts]
    """How far the line of each item came that the budget stopped, by its place among them."""


def stage_names(agents: Sequence[str]) -> list[str]:
    """What the stages are called: as their agent; where one has several, with a number from 1.

    >>> stage_names(["plan", "move", "move"])
    ['plan', 'move 1', 'move 2']
    """
    often, seen = Counter(agents), Counter[str]()
    names = []
    for agent in agents:
        seen[agent] += 1
        names.append(agent if often[agent] == 1 else f"{agent} {seen[agent]}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Misbuilt(f"two stages would be called {twice[0]!r}; give one agent another name")
    return names


def stage_at_work(state: Line, stages: Mapping[str, str]) -> str:
    """The name of the stage at work.

    Raises:
        Renamed: the stages are not those the line was opened with.
    """
    at, were = state["at"], state["stages"]
    if list(stages) != were:
        now = ", ".join(map(repr, stages))
        raise Renamed(stage=were[at], now=now, was=", ".join(map(repr, were)))
    return were[at]


def stage_task(state: Line, name: str) -> Task:
    """A stage's task: the whole's, by the stage's name, after the item's if there are several."""
    item = state["item"]
    return state["task"].model_copy(update={"id": f"{item}/{name}" if item else name})


def items_of(task: Task) -> list[JsonValue] | None:
    """The stream that a task brings: `inputs["items"]`, if it is a list."""
    items = task.inputs.get("items")
    return items if isinstance(items, list) else None


def piece(task: Task, place: int) -> Task:
    """The task of one item: the whole's, with `inputs["item"]` in place of all items."""
    items = items_of(task) or []
    others = {key: value for key, value in task.inputs.items() if key != "items"}
    return task.model_copy(update={"inputs": {**others, "item": items[place]}})


def too_many(task: Task, policy: Policy) -> Result | None:
    """What leaves instead, if the stream is longer than the policy allows."""
    items = items_of(task) or []
    if len(items) <= policy.max_tasks:
        return None
    why = f"there are {len(items)} items; the limit is {policy.max_tasks} (policy.max_tasks)"
    return Result(task=task.id, status="refused", failure=Failure(kind="refused", message=why))


def halted_ones(state: Line) -> list[str]:
    """The items, by place, whose lines the budget stopped and nobody went on with yet."""
    lines, halted = state["lines"], state.get("halted") or {}
    return [p for p in sorted(halted, key=int) if halted[p].revision == lines[p].revision]


def shortage(state: Line, policy: Policy) -> Escalation | None:
    """What a person is asked, once for the whole stream, if the budget stopped any of it."""
    task, lines = state["task"], state["lines"]
    short = [] if state["capped"] or policy.on_budget != "ask" else halted_ones(state)
    failure = cut_short(lines[place] for place in short)
    if failure is None:
        return None
    missing = [f"{place}/{name}" for place in short for name in lines[place].missing]
    return ask_for_more(task.id, task.goal, failure, missing)


def behind(stages: Sequence[str], at: int, results: Mapping[str, Result], most: int) -> list[str]:
    """The earlier stages whose results a stage is given: the last `most` of those there are."""
    return [name for name in stages[max(0, at - most) : at] if name in results]


def standing_claims(
    stages: Sequence[str], results: Mapping[str, Result], most: int, many: Collection[str] = ()
) -> tuple[Claim, ...]:
    """What a line claims, in order of stages: a stage that claims a key anew has revised it.

    So it is only for a stage that was given the earlier one's work, one of the last `most`; and not
    for keys that may hold `many` values. What a stage that fell claimed does not count.
    """
    done = {n: r.claims for n in stages if (r := results.get(n)) is not None and _good(r)}
    last: dict[str, int] = {}
    stand: list[Claim] = []
    for at, name in reversed(list(enumerate(stages))):
        mine = done.get(name, ())
        stand += [c for c in reversed(mine) if last.get(named(c.key), at + most + 1) - at > most]
        last |= {key: at for c in mine if (key := named(c.key)) not in many}
    return tuple(reversed(stand))


def built_on(stages: Sequence[str], tasks: Collection[str]) -> set[str]:
    """The stages, of their items, that come after these: they built on what these made.

    >>> sorted(built_on(["plan", "draft", "print"], ["draft", "7/plan"]))
    ['7/draft', '7/print', 'print']
    """
    found: set[str] = set()
    for task in tasks:
        item, slash, name = task.rpartition("/")
        if task in stages:
            item, slash, name = "", "", task
        if name in stages:
            found.update(f"{item}{slash}{later}" for later in stages[stages.index(name) + 1 :])
    return found


# -- messages


def posted(state: Line, policy: Policy) -> Post:
    """What became of all that the stages of this line wrote to each other."""
    return post(state["results"], policy.channels, state.get("passed", ()))


def crowded(state: Line, policy: Policy) -> dict[str, str]:
    """Messages held back by a limit, about which a person is to be asked: why, by id."""
    if policy.on_messages != "ask":
        return {}
    known = state.get("kept_back", ())
    return {i: why for i, why in posted(state, policy).held.items() if i not in known}


def let_pass(state: Line, answer: Approval, policy: Policy) -> Line:
    """What follows when a person was asked about messages beyond a limit."""
    held = crowded(state, policy)
    if goes_on(answer):
        return {"passed": (*state.get("passed", ()), *held)}
    return {"kept_back": (*state.get("kept_back", ()), *held)}


def called_back(state: Line, agents: Sequence[str], policy: Policy) -> int | None:
    """The place of the earliest stage that an unread request calls back to work; None if none does.

    `agents`: who has each stage. Whoever has a later one as well reads it there.
    """
    ahead = {*agents[state["at"] + 1 :]}
    letters = [m for m in posted(state, policy).carried if m.receiver not in ahead]
    orders = requested(state["results"], letters, policy.rounds)
    return min((state["stages"].index(name) for name in orders), default=None)


def with_post(left: Result, held: Mapping[str, str]) -> Result:
    """What leaves a line whose stages write to each other: what was held back is missing of it."""
    stays: dict[str, Any] = {"messages": (), "heard": ()}
    if held:
        stays |= {
            "status": "partial" if left.status == "done" else left.status,
            "missing": (*left.missing, *held),
            "failure": left.failure or overflow(held),
        }
    return left.model_copy(update=stays)


# -- what leaves


def left_line(
    task: Task, stages: Sequence[str], results: Mapping[str, Result], spent: Usage
) -> Result:
    """What leaves the line: the last stage's work; what was finished, if the line was stopped."""
    reached = {name: results[name] for name in stages if name in results}
    good = {name: result for name, result in reached.items() if _good(result)}
    end, last = list(reached.items())[-1]
    lost = [name for name in stages if name not in good]
    halves = [half for result in good.values() for half in missed(result)]
    ending: dict[str, Any] = {
        "task": task.id,
        "usage": sum((r.usage for r in reached.values()), spent),
        "missing": tuple(lost + halves),
        "contradictions": contradicted(reached.values()),
        "revision": 1,
    }
    if lost:
        output = {name: result.output for name, result in good.items()} or None
        status: Status = "partial" if good else last.status
        ending |= {"status": status, "output": output, "parts": {end: last}, "escalation": None}
    elif halves:
        ending |= {"status": "partial"}
    return last.model_copy(update=ending)


def collected(task: Task, stages: Sequence[str], lines: Mapping[str, Result]) -> Result:
    """What leaves when every item has left its line: the outputs in the order of the items.

    An item that did not come through is None there; `parts` has what its line left.
    """
    left = [lines[str(place)] for place in range(len(lines))]
    through = [not set(stages) & set(result.missing) for result in left]
    stopped = {str(i): result for i, result in enumerate(left) if not through[i]}
    missing = [f"{i}/{name}" for i, result in enumerate(left) for name in result.missing]
    status: Status = "partial" if missing else "done"
    if stopped and not any(through) and all(r.output is None for r in left):
        status = "refused" if all(r.status == "refused" for r in left) else "failed"
    first = next((r.failure for r in (*stopped.values(), *left) if r.failure), None)
    return Result(
        task=task.id,
        status=status,
        output=[r.output if through[i] else None for i, r in enumerate(left)],
        usage=sum((result.usage for result in left), Usage()),
        failure=cut_short(stopped.values()) or first,
        missing=tuple(missing),
        parts=stopped,
        claims=asserted(filter(_good, left)),
        contradictions=contradicted(left),
    )


def _good(result: Result) -> bool:
    return result.status in ("done", "partial")


# -- what gates are worth


@dataclass(frozen=True, kw_only=True)
class Odds:
    """How a line ends, and what it costs on average."""

    right: float
    """All stages right: from 0 to 1, like the next two."""
    wrong: float
    """Through, with an error in it that no gate saw."""
    stopped: float
    """A gate sent a stage's work back once too often."""
    cost: float
    """Calls of stages, and of gates at their price."""


def line_odds(
    p: float,
    *,
    recall: float,
    false_alarm: float = 0.0,
    retries: int,
    stages: int,
    gate_cost: float = 0.0,
) -> Odds:
    """How a line of independent stages ends.

    With g = p(1-f) passed rightly and b = (1-p)(1-r) passed wrongly, a try is sent back with
    probability rho = 1-g-b, and a stage is tried A = (1-rho^(m+1))/(1-rho) times on average.
    Right is (gA)^n, through is ((g+b)A)^n.

    Args:
        p: That a stage's work is right.
        recall: That a gate sees an error, r.
        false_alarm: That it sees one where there is none, f.
        retries: How many times it sends work back at most, m.
        stages: How many stages there are, n.
        gate_cost: Of one look of a gate, in calls of a stage.

    >>> odds = line_odds(0.9, recall=0.8, retries=2, stages=5, gate_cost=0.2)
    >>> round(odds.right, 4), round(odds.wrong, 4), round(odds.stopped, 4), round(odds.cost, 3)
    (0.8936, 0.1038, 0.0026, 6.512)
    """
    good, bad = p * (1 - false_alarm), (1 - p) * (1 - recall)
    tries = sum((1 - good - bad) ** n for n in range(retries + 1))
    passed = (good + bad) * tries
    reached = sum(passed**n for n in range(stages))
    return Odds(
        right=(good * tries) ** stages,
        wrong=passed**stages - (good * tries) ** stages,
        stopped=1 - passed**stages,
        cost=reached * tries * (1 + gate_cost),
    )
