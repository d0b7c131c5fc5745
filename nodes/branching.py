"""The boxes below a manager in a tree: an item, a named team, a branch of the tree.

Where a person may hold the step, an item or a team goes on by itself: what may become of it is in
`kapelle.nodes.alone`. A branch does not: it asks within, and is redone in one go.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol, TypedDict

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import Board, board
from kapelle.nodes.call import call
from kapelle.nodes.envelopes import same
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here, part_of
from kapelle.nodes.pattern import Given, remembered
from kapelle.nodes.services import Services
from kapelle.state.breaker import give_up
from kapelle.state.context import MasterContext
from kapelle.state.ladder import weighed
from kapelle.state.manager import by_performative, given_up, is_due, kept_of, once_more
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Revision, Task, settled
from kapelle.state.tree import levels_of, span, work_of


class Child(TypedDict):
    """What a child's node reads; all else it finds in its manager's state."""

    child: str


class Part(Child):
    """What is sent to a child that goes on by itself."""

    node: str
    """Who works on it."""
    to: str
    """Who is next: that, `approve`; empty at the end."""
    results: dict[str, Result]
    """Its own, the last one."""
    revisions: dict[str, Revision]
    """The order it follows."""


class Below(Given):
    """What goes into a branch."""

    at: int
    branching: int
    results: dict[str, Result]
    """Of children that need not work again."""
    capped: bool
    """Whether nobody will add to the budget."""


class Worker(Protocol):
    """A node of one child."""

    async def __call__(self, state: Child, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Its result, as an update."""
        ...


class Parter(Protocol):
    """A node of one child that goes on by itself."""

    async def __call__(self, state: Part, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What came of it, as an update."""
        ...


Known = Mapping[str, Any]
"""What a manager remembers, of what its children read."""

_KNOWN = ["task", "at", "levels", "branching", "goals", "context", "capped"]

_desk: ContextVar[Board | None] = ContextVar("_desk", default=None)
"""The board of the whole tree, in all that happens below its root."""

_manager: ContextVar[Known | None] = ContextVar("_manager", default=None)
"""What the manager remembers, in the graph of a part."""


def leaf(agent: Agent, policy: Policy) -> Worker:
    """The node of one item, or of one named team."""
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def work(state: Child, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        desk, name, place = await _board(runtime, policy), state["child"], here(runtime)
        known, last, order = known_above(), *_before(name)
        _desk.set(None)  # what is nested in it is a tree of its own
        _manager.set(None)
        if runtime.drain_requested:
            raise park()
        context: MasterContext = known["context"]
        brief = Brief(context=context, feedback=order.feedback if order else ())
        task = _task(name, known)
        result = await call(agent, task, brief, here=place, policy=policy, limit=desk.limit)
        result = anew(weighed(result, policy), last)
        if result.status == "done":
            result = result.model_copy(update={"attempts": ()})  # the journal has them
        return {"results": {name: result}}

    return work


def branch(tree: Callable[[], CompiledStateGraph[Any, Any, Any, Any]], policy: Policy) -> Worker:
    """The node of one manager below: a tree of its own, which merges as soon as it is done.

    One that failed is redone at once, whatever its siblings wait for.
    """

    async def descend(state: Child, runtime: Runtime[Services]) -> dict[str, Any]:
        desk, name = await _board(runtime, policy), state["child"]
        known, last, order = known_above(), *_before(name)
        _desk.set(desk)
        first, end = span(name)
        async with _door(desk, end - first + 1, known["branching"], policy):
            if runtime.drain_requested:
                raise park()
            place = here(runtime)
            task, width, capped = _task(name, known), known["branching"], known["capped"]
            again: Revision | None = order
            while last is None or again is not None:
                order, kept = again, kept_of(last)
                below = Below(task=task, at=first, branching=width, results=kept, capped=capped)
                with same(place, policy):
                    left = await tree().ainvoke(below)
                last = anew(left["result"], last)
                again = once_more(last, order, policy)
                if again is not None:
                    answered(place, known["task"], {name: last})
                    tell_redo(place, again)
                    message(place, "request", known["task"], [name])
        return {"results": {name: last}, "revisions": {name: order} if order else {}}

    return descend


def part(graph: CompiledStateGraph[Any, Any, Any, Any], policy: Policy) -> Parter:
    """The node of one child that goes on by itself, whatever its siblings wait for."""

    async def part(state: Part, runtime: Runtime[Services]) -> dict[str, Any]:
        _desk.set(await _board(runtime, policy))
        _manager.set(known_above())
        with part_of(here(runtime)):
            left = await graph.ainvoke(state)
        return {"results": left["results"], "revisions": left["revisions"]}

    return part


def after_failure(
    result: Result, before: Revision | None, task: Task, place: Here, policy: Policy
) -> tuple[Result, Revision | None]:
    """What is to be done about what failed: once more, by that order; or a person decides."""
    if result.status in ("done", "partial") or is_due(result, before):
        return result, None
    order = once_more(result, before, policy)
    if order is not None:
        tell_redo(place, order)
        return result, order
    if not given_up(result, policy):
        return result, None
    why = result.failure.message if result.failure else ""
    ask = give_up(task.model_copy(update={"id": result.task}), result)
    place.tell("escalation", "given up", task=result.task, why=why, mark=result.revision)
    return settled(result, status="waiting", escalation=ask), None


def tell_redo(place: Here, order: Revision) -> None:
    """Journal that something is done once more, and why."""
    place.tell("choice", "redo", task=order.task, why=order.feedback[-1], mark=order.number)


def message(place: Here, act: str, task: Task, names: list[str]) -> None:
    """One row for all children that are told the same: none is left out."""
    said = "to" if act == "request" else "from"
    data: Any = {said: names, "count": len(names)}
    place.tell("message", act, task=task.id, agent="manager", data=data)


def answered(place: Here, task: Task, results: Mapping[str, Result]) -> None:
    """Journal what children answered."""
    for act, names in by_performative([*results], results).items():
        message(place, act, task, names)


def anew(result: Result, last: Result | None) -> Result:
    """What came of doing something once more: with what it took before."""
    if last is None:
        return result
    stamp = {"revision": last.revision + 1, "usage": last.usage + result.usage}
    return result.model_copy(update=stamp)


def known_above() -> Known:
    """What the manager of this child remembers."""
    known: Known = _manager.get() or remembered(_KNOWN)
    return known


def _before(name: str) -> tuple[Result | None, Revision | None]:
    """What came of a child last, and the order about it."""
    return remembered("results").get(name), remembered("revisions").get(name)


def _task(name: str, known: Known) -> Task:
    at: int | None = known["at"] if known["levels"] else None
    return work_of(known["task"], name, at, known["goals"].get(name))


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
