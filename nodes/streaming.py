"""The boxes of a stream: each item on a line of its own, and what is collected at their ends."""

from typing import Any, Protocol, TypedDict

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.board import board, close_boards
from kapelle.nodes.ending import tell_end
from kapelle.nodes.envelopes import same
from kapelle.nodes.gating import park
from kapelle.nodes.here import here
from kapelle.nodes.pattern import Finished, Given, remembered
from kapelle.nodes.services import Services
from kapelle.state.line import Halt, Line, collected, piece, shortage
from kapelle.state.policy import Policy
from kapelle.state.shortage import goes_on
from kapelle.state.task import Result


class Piece(Given):
    """What goes into the line of one item."""

    item: str
    """Its place among the items."""
    halt: Halt | None
    """How far it came before."""


class Flowed(Finished):
    """What leaves the line of one item."""

    halt: Halt | None
    """How far it came, if the budget stopped it."""


class Place(TypedDict):
    """What an item's node reads; the item itself it finds in the graph's task."""

    place: int
    """Among the items, from 0."""


class Streamer(Protocol):
    """A node that takes one item through the line."""

    async def __call__(self, state: Place, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What left the item's line, as an update."""
        ...


def item(line: CompiledStateGraph[Any, Any, Any, Any], policy: Policy) -> Streamer:
    """The node of one item; it goes as far as it can, whatever becomes of the others."""

    async def flow(state: Place, runtime: Runtime[Services]) -> dict[str, Any]:
        place, whole = str(state["place"]), remembered("task")
        before: Result | None = remembered("lines").get(place)
        halt: Halt | None = remembered("halted").get(place)
        desk = await board(runtime, policy.parallel)
        async with desk.limit.at(whole.priority):
            if runtime.drain_requested:
                raise park()
            task = piece(whole, state["place"])
            with same(here(runtime), policy):
                flowed = await line.ainvoke(Piece(task=task, item=place, halt=halt))
        revision = before.revision + 1 if before else 1
        left: Result = flowed["result"].model_copy(update={"revision": revision})
        stopped: Halt | None = flowed["halt"]
        if stopped is None:
            return {"lines": {place: left}}
        stopped = stopped.model_copy(update={"revision": revision})
        return {"lines": {place: left}, "halted": {place: stopped}}

    return flow


class Collector(Protocol):
    """The node at the end of all lines."""

    async def __call__(self, state: Line, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What leaves, or what a person is asked first, as an update."""
        ...


def collecting(policy: Policy) -> Collector:
    """The node that puts together what left the lines.

    Where the budget stopped some, a person is asked once; if they add to it, these go on.
    """

    async def collect(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        answer, place = state["answer"], here(runtime)
        if answer is not None and goes_on(answer):
            return {"answer": None, "move": "item"}
        capped = state["capped"] or answer is not None
        ask = shortage({**state, "capped": capped}, policy)
        if ask is not None:
            place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark="budget")
            return {"move": "approve", "escalation": ask}
        result = state["result"] or collected(state["task"], state["stages"], state["lines"])
        tell_end(place, state, result)
        return {"answer": None, "capped": capped, "move": "end", "result": result}

    return collect
