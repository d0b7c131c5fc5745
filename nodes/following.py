"""What follows from what came back of a part: another agent, a higher tier, the judge, a person.

Where a person may hold a step, each part goes on by itself, in a graph of its own, so that none
waits for what another one waits for.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, TypedDict

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.board import PARKED, board, close_boards, one_limit
from kapelle.nodes.breaking import ailing
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here, part_of
from kapelle.nodes.performing import needs_of
from kapelle.nodes.services import Services
from kapelle.state.breaker import asks_person, at_fault, give_up
from kapelle.state.ladder import climb, in_doubt, rung
from kapelle.state.message import Message
from kapelle.state.orders import assign, second_chance
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Result, Revision, Task, merge_results, merge_revisions, settled
from kapelle.state.team import never_begun, standing


class Part(TypedDict):
    """What the graph of one part remembers."""

    subtask: Task
    given: dict[str, Result]
    """Results of what it needs."""
    mail: Mapping[str, tuple[Message, ...]]
    """What was written to each agent, in earlier steps."""
    results: Annotated[dict[str, Result], merge_results]
    """Its own, the last one."""
    revisions: Annotated[dict[str, Revision], merge_revisions]
    """The order it follows."""
    to: str
    """Who is next: an agent, `review`, `approve`; empty at the end."""


class Follower(Protocol):
    """The node of a part that decides what is next."""

    async def __call__(self, state: Part, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Who is next, as an update."""
        ...


class Parter(Protocol):
    """The node of one part, whatever becomes of it."""

    async def __call__(self, state: Part, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What came of it in the end, as an update."""
        ...


def part(graph: CompiledStateGraph[Any, Any, Any, Any], policy: Policy) -> Parter:
    """The node of one part; it starts when its needs are met, and ends when nothing follows."""

    async def part(state: Part, runtime: Runtime[Services]) -> dict[str, Any]:
        task, place = state["subtask"], here(runtime)
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED
        try:
            given = await needs_of(desk, task, state["given"])
            if any(result is PARKED for result in given.values()) or runtime.drain_requested:
                raise park()
            with part_of(place), one_limit(desk):
                left = await graph.ainvoke({**state, "given": given})
            outcome = left["results"].get(task.id)
            return {"results": left["results"], "revisions": left["revisions"]}
        finally:
            desk.post(task.id, outcome)

    return part


def follow(cards: Sequence[AgentCard], policy: Policy, *, judged: bool) -> Follower:
    """The node that every other of a part returns to."""

    async def follow(state: Part, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        task, place = state["subtask"], here(runtime)
        last, order = state["results"].get(task.id), state["revisions"].get(task.id)
        if last is None or never_begun(last):
            return {"to": ""}
        result, again = follow_up(task, last, order, cards, policy, place, judged=judged)
        now, wanted = result or last, again or order
        stand, to = standing(now, wanted), ""
        if stand == "waiting" and now.escalation is not None:
            to = "review" if in_doubt(now) else "approve"
        elif stand == "due":
            sick = await ailing(place, policy, cards)
            orders = {task.id: wanted} if wanted else {}
            to = assign([task], cards, orders, sick).get(task.id, "")
            place.tell("choice", "assigned", task=task.id, agent=to, why="by skill",
                       mark=now.revision)  # fmt: skip
        return {
            "to": to,
            "results": {task.id: result} if result else {},
            "revisions": {task.id: again} if again else {},
        }

    return follow


def follow_up(
    task: Task,
    result: Result,
    order: Revision | None,
    cards: Sequence[AgentCard],
    policy: Policy,
    place: Here,
    *,
    judged: bool,
) -> tuple[Result | None, Revision | None]:
    """What becomes of failed or doubtful work: its result as it is from now on, an order to redo.

    None of either where it stays as it is.
    """
    if standing(result, order) == "lost" and at_fault(result):
        return after_failure(task, result, order, cards, policy, place)
    return after_doubt(task, result, order, cards, place, judged=judged)


def after_failure(
    task: Task,
    result: Result,
    before: Revision | None,
    cards: Sequence[AgentCard],
    policy: Policy,
    place: Here,
) -> tuple[Result | None, Revision | None]:
    """Failed work goes to another agent, then perhaps to a person."""
    name, mark = result.agent or "", result.revision
    order = second_chance(task, result, before, cards, policy)
    if order is not None:
        place.tell("choice", "reassigned", task=task.id, agent=name, why=order.feedback[-1],
                   mark=mark)  # fmt: skip
        return None, order
    if not asks_person(policy, (*(before.failed if before else ()), name)):
        return None, None
    ask = give_up(task, result, before)
    place.tell("escalation", "given up", task=task.id, agent=name, why=ask.reason, mark=mark)
    return settled(result, status="waiting", escalation=ask), None


def after_doubt(
    task: Task,
    result: Result,
    before: Revision | None,
    cards: Sequence[AgentCard],
    place: Here,
    *,
    judged: bool,
) -> tuple[Result | None, Revision | None]:
    """Doubtful work goes up the ladder: to the next tier, to the judge, to a person."""
    ask = result.escalation
    if ask is None or not in_doubt(result) or standing(result, before) != "waiting":
        return None, None
    to = rung(task, result, before, cards, judged=judged)
    place.tell("escalation", f"to the next {to}" if to == "tier" else f"to a {to}",
               task=task.id, agent=result.agent or "", why=ask.question,
               mark=result.revision)  # fmt: skip
    if to == "tier":
        return None, climb(result, before, cards)
    if to == "judge":
        return None, None
    return settled(result, escalation=ask.model_copy(update={"about": "task"})), None
