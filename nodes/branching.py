"""The boxes of a tree: a manager opens its branch, sends its children to work, gathers, merges.

A child finds its items in the state of its manager's graph, so that nothing is sent but its name.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol, TypedDict, TypeGuard

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import Board, board, close_boards
from kapelle.nodes.call import call
from kapelle.nodes.ending import tell_end
from kapelle.nodes.envelopes import same
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Given, remembered
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin
from kapelle.nodes.validating import plain
from kapelle.state.breaker import give_up
from kapelle.state.ladder import weighed
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.message import Performative
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Failure, Result, Revision, Task, settled
from kapelle.state.tree import (
    MANAGE,
    MERGE,
    Branching,
    Costs,
    Tree,
    ask_of_tree,
    asking,
    by_performative,
    children_of,
    due,
    given_up,
    goals_from,
    gone_on_with,
    good_ones,
    held,
    kept_of,
    leaves_of,
    left_held,
    left_tree,
    levels_of,
    lost_children,
    managers_of,
    once_answered,
    once_more,
    others_of,
    refused_tree,
    span,
    tree_flaw,
    width_of,
    work_of,
)

Merge = Agent | Callable[[Any], object]
"""Who merges: an agent, told the results; or a plain function of the list of outputs."""

SAMPLE = 20
"""Items a manager is shown of those in its branch."""


class Child(TypedDict):
    """What a child's node reads; all else it finds in its manager's state."""

    child: str


class Below(Given):
    """What goes into a branch."""

    at: int
    branching: int
    results: dict[str, Result]
    """Of children that need not work again."""
    capped: bool
    """Whether nobody will add to the budget."""


class Box(Protocol):
    """A node of a manager."""

    async def __call__(self, state: Tree, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What happened, as an update."""
        ...


class Worker(Protocol):
    """A node of one child."""

    async def __call__(self, state: Child, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Its result, as an update."""
        ...


_desk: ContextVar[Board | None] = ContextVar("_desk", default=None)
"""The board of the whole tree, in all that happens below its root."""


def open_root(
    teams: Sequence[str], branching: Branching | Costs, manager: Agent | None, policy: Policy
) -> Box:
    """The node that opens a tree: it counts the items and chooses the branching."""

    async def open_tree(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, place = state["task"], here(runtime)
        await begin(place, task, policy)
        if teams:
            return await _opened(task, list(teams), place, policy, managed=manager is not None)
        flaw, items = tree_flaw(task, policy), len(leaves_of(task) or [])
        width = width_of(branching, items, policy)
        if flaw or not items:
            left = refused_tree(task, flaw) if flaw else Result(task=task.id, status="done")
            return await _opened(task, [], place, policy) | {"result": left}
        managers = managers_of(items, width)
        why = f"{items} items, {width} to a manager: {managers} managers"
        place.tell("choice", "branched", task=task.id, why=why, data={"managers": managers})
        children = children_of(0, items, width)
        return await _opened(task, children, place, policy, at=0, branching=width,
                       managed=manager is not None)  # fmt: skip

    return open_tree


def open_branch(manager: Agent | None, policy: Policy) -> Box:
    """The node that opens a branch of a tree."""

    async def open_tree(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, at, width = state["task"], state["at"], state["branching"]
        children = children_of(at, len(leaves_of(task) or []), width)
        return await _opened(task, children, here(runtime), policy, at=at, branching=width,
                       kept=state["results"], capped=state["capped"],
                       managed=manager is not None)  # fmt: skip

    return open_tree


async def _opened(  # noqa: PLR0913 - each is a part of the state
    task: Task,
    children: list[str],
    place: Here,
    policy: Policy,
    *,
    at: int | None = None,
    branching: int = 0,
    kept: dict[str, Result] | None = None,
    capped: bool = False,
    managed: bool = False,
) -> dict[str, Any]:
    fresh: Tree = {
        "task": task,
        "at": at or 0,
        "levels": 0 if at is None else levels_of(len(leaves_of(task) or []), branching),
        "branching": branching,
        "children": children,
        "context": await place.context(task, policy),
        "goals": {},
        "results": kept or {},
        "revisions": gone_on_with((kept or {}).values(), {}),
        "capped": capped,
        "result": None,
    }
    if MANAGE in fresh["results"]:
        fresh["goals"] = _goals(fresh["results"][MANAGE], fresh)
    sent = _sent(fresh, place, policy, managed=managed) if children else []
    results, orders = Overwrite(fresh["results"]), Overwrite(fresh["revisions"])
    return {**fresh, **NOBODY_ASKED, "results": results, "revisions": orders, "sent": sent}


def leaf(agent: Agent, policy: Policy) -> Worker:
    """The node of one item, or of one named team."""
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def work(state: Child, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        desk, name, place = await _board(runtime, policy), state["child"], here(runtime)
        order: Revision | None = remembered("revisions").get(name)
        last: Result | None = remembered("results").get(name)
        _desk.set(None)  # what is nested in it is a tree of its own
        if runtime.drain_requested:
            raise park()
        said = order.feedback if order else ()
        brief = Brief(context=remembered("context"), feedback=said)
        result = await call(agent, _task(name), brief, here=place, policy=policy, limit=desk.limit)
        result = _again(weighed(result, policy), last)
        if result.status == "done":
            result = result.model_copy(update={"attempts": ()})  # the journal has them
        return {"results": {name: result}}

    return work


def branch(tree: Callable[[], CompiledStateGraph[Any, Any, Any, Any]], policy: Policy) -> Worker:
    """The node of one manager below: a tree of its own, which merges as soon as it is done."""

    async def descend(state: Child, runtime: Runtime[Services]) -> dict[str, Any]:
        desk, name = await _board(runtime, policy), state["child"]
        last: Result | None = remembered("results").get(name)
        width: int = remembered("branching")
        _desk.set(desk)
        first, end = span(name)
        below = Below(
            task=_task(name),
            at=first,
            branching=width,
            results=kept_of(last),
            capped=remembered("capped"),
        )
        async with _door(desk, end - first + 1, width, policy):
            if runtime.drain_requested:
                raise park()
            place = here(runtime)
            with same(place, policy):
                left = await tree().ainvoke(below)
        return {"results": {name: _again(left["result"], last)}}

    return descend


def managing(manager: Agent, policy: Policy) -> Box:
    """The node in which a manager says what its children are to do."""

    async def manage(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, place, children = state["task"], here(runtime), state["children"]
        others = {k: v for k, v in task.inputs.items() if k not in ("items", "item", "results")}
        items = leaves_of(task) or []
        shown: dict[str, Any] = {
            "children": children,
            "count": len(items),
            "sample": items[:SAMPLE],
        }
        given = shown if state["levels"] else {"children": children}
        mine = task.model_copy(update={"id": MANAGE, "inputs": {**others, **given}})

        def flaws(output: Any) -> list[str]:
            try:
                goals_from(output, children)
            except ValueError as error:
                return [str(error)]
            return []

        result = await _by_itself(manager, mine, {}, state, place, policy, flaws)
        return {"results": {MANAGE: result}, "sent": []}

    return manage


def is_agent(merge: Merge) -> TypeGuard[Agent]:
    """Whether merging takes a node of its own."""
    return hasattr(merge, "card")


def merging(merge: Merge, policy: Policy) -> Box:
    """The node in which what the children made becomes one."""

    async def merge_them(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, good = state["task"], good_ones(state)
        if not is_agent(merge):
            made = _again(_merged(merge, state, policy), state["results"].get(MERGE))
            return {"results": {MERGE: made}, "sent": []}
        mine = task.model_copy(update={"id": MERGE, "inputs": others_of(task)})
        result = await _by_itself(merge, mine, good, state, here(runtime), policy, None)
        return {"results": {MERGE: result}, "sent": []}

    return merge_them


async def _by_itself(
    agent: Agent,
    task: Task,
    given: dict[str, Result],
    state: Tree,
    place: Here,
    policy: Policy,
    check: Any,
) -> Result:
    order, last = state["revisions"].get(task.id), state["results"].get(task.id)
    brief = Brief(
        results=given,
        context=await place.context(task, policy),
        feedback=order.feedback if order else (),
        missing={} if task.id == MANAGE else lost_children(state),
    )
    result = await call(agent, task, brief, here=place, policy=policy, check=check)
    return _again(weighed(result, policy), last)


def gathering(manager: Agent | None, policy: Policy, *, root: bool) -> Box:
    """The node every child returns to: it redoes what failed, asks, has it merged, or leaves.

    What is claimed in a whole tree is reconciled once, at its root.
    """
    managed = manager is not None

    async def gather(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        if root:  # its board is everybody's
            close_boards(runtime)
        place, answer = here(runtime), state["answer"]
        for act, names in by_performative(state["sent"], state["results"]).items():
            _message(place, act, state, names)
        heard = once_answered(state, answer) if answer is not None else {}
        results, orders = _failed(state, place, policy)
        orders = {**orders, **heard.pop("revisions", {})}
        now = _folded(state, results, orders)
        now["capped"] = heard.get("capped", state["capped"])
        if managed and not state["goals"] and (said := now["results"].get(MANAGE)):
            now["goals"] = _goals(said, state)
        sent = _sent(now, place, policy, managed=managed)
        update: dict[str, Any] = {**heard, "results": results, "revisions": orders, "sent": sent}
        if sent or asking(now):
            context = await place.context(state["task"], policy)
            return update | {"goals": now["goals"], "context": context}
        if root and held(now, policy):
            ask = ask_of_tree(now)
            place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark="budget")
            return update | {"goals": now["goals"], "escalation": ask}
        left = left_held(now) if held(now, policy) else left_tree(now)
        why = left.failure.message if left.failure else ""
        if root:
            tell_end(place, state, left, why)
        else:
            place.tell("run", left.status, task=left.task, why=why)
        return update | {"result": left}

    return gather


def _folded(state: Tree, results: dict[str, Result], orders: dict[str, Revision]) -> Tree:
    now: Tree = {**state, "results": {**state["results"], **results}}
    now["revisions"] = {**state["revisions"], **orders}
    return now


def _failed(
    state: Tree, place: Here, policy: Policy
) -> tuple[dict[str, Result], dict[str, Revision]]:
    """What is to be done about what failed: once more, or a person."""
    results: dict[str, Result] = {}
    orders: dict[str, Revision] = {}
    for name, result in state["results"].items():
        if result.status in ("done", "partial"):
            continue
        order = once_more(result, state["revisions"].get(name), policy)
        why = result.failure.message if result.failure else ""
        if order is not None:
            orders[name] = order
            place.tell("choice", "redo", task=name, why=why, mark=order.number)
        elif given_up(result, policy):
            ask = give_up(state["task"].model_copy(update={"id": name}), result)
            results[name] = settled(result, status="waiting", escalation=ask)
            place.tell("escalation", "given up", task=name, why=why, mark=result.revision)
    return results, orders


def _merged(merge: Any, state: Tree, policy: Policy) -> Result:
    good = good_ones(state)
    outputs: Any = {name: result.output for name, result in good.items()}
    if state["levels"]:
        outputs = [*outputs.values()]
    try:
        made = plain(merge(outputs), policy)
    except Exception as error:  # noqa: BLE001  a stranger's function may raise anything
        why = f"merging raised {type(error).__name__}: {error}"
        return Result(task=MERGE, status="failed", failure=Failure(kind="raised", message=why))
    return Result(task=MERGE, status="done", output=made)


def _goals(said: Result, state: Tree) -> dict[str, str]:
    try:
        return goals_from(said.output, state["children"]) if said.status == "done" else {}
    except ValueError:  # a person's own words
        return dict.fromkeys(state["children"], str(said.output))


def _sent(state: Tree, place: Here, policy: Policy, *, managed: bool) -> list[str]:
    """What goes to work now; the children among it are told so."""
    names = due(state, managed=managed, merging=not held(state, policy))
    if names not in ([], [MANAGE], [MERGE]):
        _message(place, "request", state, names)
    return names


def _message(place: Here, act: Performative | str, state: Tree, names: list[str]) -> None:
    """One row for all children that are told the same: none is left out."""
    said = "to" if act == "request" else "from"
    data: Any = {said: names, "count": len(names)}
    task = state["task"].id
    place.tell("message", act, task=task, agent="manager", data=data)


def _task(name: str) -> Task:
    task: Task = remembered("task")
    at: int | None = remembered("at") if remembered("levels") else None
    return work_of(task, name, at, remembered("goals").get(name))


def _again(result: Result, last: Result | None) -> Result:
    if last is None:
        return result
    stamp = {"revision": last.revision + 1, "usage": last.usage + result.usage}
    return result.model_copy(update=stamp)


async def _board(runtime: Runtime[Services], policy: Policy) -> Board:
    """The board of the whole tree: made at its root, known to all below."""
    return _desk.get() or await board(runtime, policy.parallel)


def _door(
    desk: Board, items: int, width: int, policy: Policy
) -> AbstractAsyncContextManager[object]:
    """As many of the lowest managers at a time as keep the workers busy: memory has a bound."""
    if levels_of(items, width) > 1:
        return nullcontext()
    return desk.shared(lambda: asyncio.Semaphore(2 + policy.parallel // width))
