"""The box of one peer: proposes or ranks, blind to what the others say in the same round."""

from functools import partial
from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime
from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import board
from kapelle.nodes.call import Check, call
from kapelle.nodes.gating import park
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import remembered
from kapelle.nodes.polling import unless_over
from kapelle.nodes.services import Services
from kapelle.state.ballot import Same
from kapelle.state.budget import Usage
from kapelle.state.ladder import weighed
from kapelle.state.policy import Policy
from kapelle.state.ranking import ranking_flaws
from kapelle.state.swarm import Slot, key_of, red_flags
from kapelle.state.task import Brief, Result, Task


class Turn(TypedDict):
    """What a peer reads: whose turn it is, and the task as it is put to it."""

    slot: Slot
    task: Task
    feedback: tuple[str, ...]
    revision: int
    used: Usage
    """What earlier revisions used."""


class Peer(Protocol):
    """A node that votes."""

    async def __call__(self, state: Turn, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The answer, as an update."""
        ...


def peer(agent: Agent, same: Same, check: Check | None, policy: Policy) -> Peer:
    """The node of one peer. What is malformed never becomes a vote."""
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def vote(state: Turn, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        slot, place = state["slot"], here(runtime)
        if runtime.drain_requested:
            raise park()
        brief = Brief(context=remembered("context"), feedback=state["feedback"])
        flaws = (
            partial(ranking_flaws, options=list(_options(state["task"])))
            if slot.kind == "rank"
            else partial(vote_flaws, same=same, check=check)
        )
        desk = await board(runtime, policy.parallel)
        work = call(
            agent, state["task"], brief, here=place, policy=policy, limit=desk.limit, check=flaws
        )
        result = weighed(await unless_over(slot, work), policy)
        if state["revision"] > 1:
            stamp = {"revision": state["revision"], "usage": state["used"] + result.usage}
            result = result.model_copy(update=stamp)
        _tell(place, slot, result, same)
        return {"results": {slot.id: result}}

    return vote


def vote_flaws(answer: JsonValue, same: Same, check: Check | None) -> list[str]:
    """Why an answer is malformed: by the caller's check, or because it can't be compared."""
    try:
        if check is not None and (flaws := check(answer)):
            return flaws
        same(answer)
    except Exception as error:  # noqa: BLE001  the caller's own laws may raise anything
        return [f"it can't be checked, or compared with other answers: {error}"]
    return []


def _options(task: Task) -> Any:
    return task.inputs["options"]


def _tell(place: Here, slot: Slot, result: Result, same: Same) -> None:
    """Journal the vote, or why there is none."""
    said = result.status in ("done", "partial")
    choice: JsonValue = None
    if said:
        choice = key_of(result.output, same) if slot.kind == "vote" else result.output
    what = {"vote": "voted", "rank": "ranked"}[slot.kind] if said else result.status
    place.tell(
        "vote",
        what,
        task=slot.id,
        agent=slot.agent,
        why=result.failure.message if result.failure else "",
        data={"round": slot.round, "choice": choice, "red_flagged": red_flags(result)},
        mark=result.revision,
    )
    if result.status == "waiting" and result.escalation is not None:
        why = result.escalation.question
        place.tell("escalation", "asked", task=slot.id, agent=slot.agent, why=why,
                   mark=result.revision)  # fmt: skip
