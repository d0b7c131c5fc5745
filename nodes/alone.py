"""All that may become of a child that goes on by itself, where a person may hold the step.

    part ─┬─ leaf ─ follow ─┬─ leaf       it failed, or a person wants it done again
          │                 ├─ approve    it turned to a person, or failed for good
          │                 └─ END
          └─ approve ─ follow

Where nobody may hold it, the manager follows what came back of all its children.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import close_boards
from kapelle.nodes.branching import (
    Child,
    Part,
    Parter,
    after_failure,
    answered,
    known_above,
    message,
)
from kapelle.nodes.branching import leaf as working
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.here import here
from kapelle.nodes.pattern import Pattern
from kapelle.nodes.services import Services
from kapelle.state.manager import is_due
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Revision, merge_results, merge_revisions


class Alone(Part):
    """What it remembers."""

    results: Annotated[dict[str, Result], merge_results]
    revisions: Annotated[dict[str, Revision], merge_revisions]


def alone(workers: Mapping[str, Agent], limits: Policy) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph of one child."""
    graph = Pattern(Alone, context_schema=Services)
    graph.add_node("follow", follow(limits))
    graph.add_node("approve", gate(limits), input_schema=Asked)
    for name, agent in workers.items():
        graph.add_node(name, working(agent, limits), input_schema=Child)
    nexts = [*workers, "approve"]
    for name in nexts:
        graph.add_edge(name, "follow")
    graph.add_conditional_edges(START, by_next, nexts)
    graph.add_conditional_edges("follow", by_next, [*nexts, END])
    return graph.compile(name="part")


def to_next(state: Part) -> Send:
    """Whoever is next for one child: who works on it, a person."""
    child, to = state["child"], state["to"]
    last, order = state["results"].get(child), state["revisions"].get(child)
    if to == "approve" and last is not None and last.escalation is not None:
        return Send(to, Asked(ask=last.escalation, stopped=last, order=order))
    return Send(to, Child(child=child))


def by_next(state: Part) -> str | Send:
    """Whoever is next for one child, or its end."""
    return to_next(state) if state["to"] else END


def follow(policy: Policy) -> Parter:
    """The node that decides what follows from what came back of a child."""

    async def follow(state: Part, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        place, task = here(runtime), known_above()["task"]
        name, order = state["child"], state["revisions"].get(state["child"])
        result = state["results"][name]
        if state["to"] == state["node"]:
            answered(place, task, {name: result})
        now, again = after_failure(result, order, task, place, policy)
        wanted = again or order
        if is_due(now, wanted):
            message(place, "request", task, [name])
        to = state["node"] if is_due(now, wanted) else ""
        to = "approve" if now.status == "waiting" and not to else to
        return {
            "to": to,
            "results": {name: now},
            "revisions": {name: again} if again else {},
        }

    return follow
