"""The end that patterns share: nothing leaves them whose claims contradict unseen.

… ─┬─ reconcile ─┬─ arbitrate ─ reconcile   what no rule settles, by the judge, if there is one
   │             ├─ decide ─ reconcile      what it does not settle either, by a person
   │             └─ END                     settled, and shown in the result
   └─ END                                   nothing is claimed
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from langgraph.graph import END
from langgraph.runtime import Runtime
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.deciding import Case, arbitrate, held_by, tell_flagged
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Pattern
from kapelle.nodes.services import Services
from kapelle.state.approval import Choice
from kapelle.state.leaving import Leaving, asserts, leaving, to_promise
from kapelle.state.policy import Policy
from kapelle.state.review import answered_by, still_open
from kapelle.state.task import Result, Task

CLOSING = ("reconcile", "arbitrate", "decide")
"""Its nodes."""

OFFERS: tuple[Choice, ...] = ("approve", "edit", "reject")
"""At the end nobody works again: what a person can say of what contradicts."""

Rests = Callable[[Any, set[str]], Iterable[str]]
"""Of a pattern's state, and some tasks by id: those that built on them."""


class Closer(Protocol):
    """The node that settles what can't all hold of a result."""

    async def __call__(self, state: Any, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was found; the result as it leaves, as an update."""
        ...


def ends(
    graph: Pattern,
    policy: Policy,
    *,
    judge: Agent | None = None,
    rests: Rests = lambda state, tasks: (),
) -> None:
    """Give a graph its end: `to_end` leads there."""
    box = reconcile(policy, judged=judge is not None, rests=rests)
    graph.add_node("reconcile", box, input_schema=graph.state_schema)
    graph.add_node("decide", gate(policy), input_schema=Asked)
    graph.add_edge("decide", "reconcile")
    nexts = ["decide", END]
    if judge is not None:
        graph.add_node(
            "arbitrate", arbitrate(judge, policy, parts_of), input_schema=graph.state_schema
        )
        graph.add_edge("arbitrate", "reconcile")
        nexts.append("arbitrate")
    graph.add_conditional_edges("reconcile", by_doubt, nexts)


def to_end(state: Any) -> str:
    """The end; by way of `reconcile`, if anything is claimed, or was promised to be."""
    return "reconcile" if is_open(state, state["result"]) else END


def is_open(state: Any, left: Result | None) -> bool:
    """Whether what leaves is yet to be reconciled."""
    return left is not None and asserts(left, to_promise(state["task"], parts_of(state)))


def parts_of(state: Any) -> Iterable[Task]:
    """The tasks a market awards; what other patterns are made of has no promises of its own."""
    tasks: dict[str, Task] = state.get("tasks", {})
    return tasks.values()


def tell_end(place: Here, state: Any, left: Result, why: str = "") -> None:
    """Journal how a run ends, unless that is yet to be reconciled."""
    if not is_open(state, left):
        place.tell("run", left.status, task=left.task, why=why)


def by_doubt(state: Leaving) -> str | list[Send]:
    """To a person who is asked; to the judge, if nobody was asked yet; to the end."""
    ask = state["escalation"]
    if ask is not None:
        return [Send("decide", Asked(ask=ask, stopped=None))]
    return "arbitrate" if state["found"] else END


def reconcile(policy: Policy, *, judged: bool, rests: Rests) -> Closer:
    """The node that finds what contradicts, settles it, and shows it in the result.

    What neither rule nor judge nor person settled stays open in it.
    """

    async def reconcile(state: Leaving, runtime: Runtime[Services]) -> dict[str, Any]:
        place, result = here(runtime), state["result"]
        assert result is not None
        promises = to_promise(state["task"], parts_of(state))
        case = Case(result.claims, promises, result.task, place, policy)
        found, answer, held = state["found"], state["answer"], await held_by(place)
        if answer is not None:
            found = answered_by(found, answer, held)
        elif not found:
            found = await case.found(held)
            if judged and still_open(found):
                return {"found": found}
        ask = await case.asked(found, OFFERS)
        if ask is not None:
            return {"answer": None, "found": found, "escalation": ask}
        found = await case.decided(found, held)
        left = leaving(result, found, partial(rests, state))
        tell_flagged(place, left.contradictions[: len(found)])
        place.tell("run", left.status, task=left.task)
        return {"answer": None, "found": (), "result": left}

    return reconcile
