"""The boxes of a stream: each item on a line of its own, and what is collected at their ends."""

from typing import Any, Protocol, TypedDict

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.board import board, close_boards
from kapelle.nodes.ending import tell_end
from kapelle.nodes.envelopes import same
from kapelle.nodes.gating import park
from kapelle.nodes.here import here
from kapelle.nodes.pattern import Given, remembered
from kapelle.nodes.services import Services
from kapelle.state.line import Line, collected, piece
from kapelle.state.policy import Policy


class Piece(Given):
    """What goes into the line of one item."""

    item: str
    """Its place among the items."""


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
        desk = await board(runtime, policy.parallel)
        async with desk.limit.at(whole.priority):
            if runtime.drain_requested:
                raise park()
            task = piece(whole, state["place"])
            with same(here(runtime), policy):
                left = await line.ainvoke(Piece(task=task, item=place))
        return {"lines": {place: left["result"]}}

    return flow


async def collect(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
    """Put together what left the lines, now that all items have."""
    close_boards(runtime)
    result = state["result"] or collected(state["task"], state["stages"], state["lines"])
    tell_end(here(runtime), state, result)
    return {"result": result}
