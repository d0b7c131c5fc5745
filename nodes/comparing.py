"""The judge's box: says which of two answers is better, not knowing whose they are."""

from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime
from pydantic import JsonValue, ValidationError

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import board
from kapelle.nodes.call import call
from kapelle.nodes.gating import park
from kapelle.nodes.here import here
from kapelle.nodes.pattern import remembered
from kapelle.nodes.polling import unless_over
from kapelle.nodes.services import Services
from kapelle.state.policy import Policy
from kapelle.state.swarm import Slot, preference
from kapelle.state.task import Brief, Result, Task
from kapelle.state.verdict import Preference


class Duel(TypedDict):
    """What a judge reads: the task, and two answers in the order in which they are shown."""

    slot: Slot
    task: Task
    first: JsonValue
    second: JsonValue
    revision: int


class Comparer(Protocol):
    """The node that compares."""

    async def __call__(self, state: Duel, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What the judge said of the pair, as an update."""
        ...


def compare(critic: Agent, policy: Policy) -> Comparer:
    """The node of one comparison. Each pair comes twice, once in each order."""
    graph = getattr(critic, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def judge(state: Duel, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        slot, place = state["slot"], here(runtime)
        if runtime.drain_requested:
            raise park()
        pair = {
            which: Result(task=which, status="done", output=output)
            for which, output in (("first", state["first"]), ("second", state["second"]))
        }
        desk = await board(runtime, policy.parallel)
        brief = Brief(results=pair, context=remembered("context"))
        work = call(
            critic, state["task"], brief, here=place, policy=policy, limit=desk.limit, check=_flaws
        )
        result = await unless_over(slot, work)
        result = result.model_copy(update={"revision": state["revision"]})
        said = preference(result)
        place.tell(
            "verdict",
            said.better if said else result.status,
            task=slot.id,
            agent=slot.agent,
            why=said.reason if said else result.failure.message if result.failure else "",
            data={"pair": list(slot.pair), "round": slot.round},
            mark=result.revision,
        )
        return {"results": {slot.id: result}}

    return judge


def _flaws(output: JsonValue) -> list[str]:
    try:
        Preference.model_validate(output)
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
    return []
