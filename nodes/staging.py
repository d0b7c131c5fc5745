"""The boxes of a pipeline that work: the line is opened, and a stage does its part."""

from collections.abc import Mapping
from typing import Any, Protocol

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import here
from kapelle.nodes.posting import tell_letters
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin
from kapelle.state.budget import Usage
from kapelle.state.delivery import mailed, writes_to
from kapelle.state.ladder import weighed
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.line import Halt, Line, behind, stage_at_work, stage_task, too_many
from kapelle.state.policy import Policy
from kapelle.state.task import Brief


class Box(Protocol):
    """A node of the line."""

    async def __call__(self, state: Line, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What happened, as an update."""
        ...


def opening(stages: Mapping[str, str], policy: Policy) -> Box:
    """The node that opens the line; it forgets what an earlier task left behind.

    `stages` are names with the node of each, here and below.
    """

    async def open_line(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        await begin(here(runtime), state["task"], policy)
        refused, halt = too_many(state["task"], policy), state.get("halt") or _begun(stages)
        return {
            "item": state.get("item", ""),
            "stages": list(stages),
            "results": Overwrite(halt.results),
            "at": halt.at,
            "check": halt.check,
            "feedback": halt.feedback,
            "rounds": halt.rounds,
            "spent": halt.spent,
            "capped": False,
            "passed": halt.passed,
            "kept_back": halt.kept_back,
            **NOBODY_ASKED,
            "move": "collect" if refused else halt.move,
            "halt": None,
            "lines": Overwrite({}),
            "halted": Overwrite({}),
            "result": refused,
        }

    return open_line


def _begun(stages: Mapping[str, str]) -> Halt:
    """Where a line begins."""
    first = next(iter(stages.values()))
    return Halt(results={}, at=0, check=0, feedback=(), rounds=0, spent=Usage(), move=first)


def stage(agent: Agent, stages: Mapping[str, str], policy: Policy) -> Box:
    """The node of one agent; it is given what the earlier stages made, and wrote to it."""
    me, channels = agent.card.name, policy.channels
    linked = writes_to(me, {*stages.values()}, channels)
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def work(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        place, name = here(runtime), stage_at_work(state, stages)
        earlier = behind(state["stages"], state["at"], state["results"], policy.look_back)
        task, last = stage_task(state, name), state["results"].get(name)
        brief = Brief(
            results={name: state["results"][name] for name in earlier},
            context=await place.context(task, policy),
            feedback=state["feedback"],
            messages=mailed(state["results"], channels, state.get("passed", ())).get(me, ()),
            peers=linked,
        )
        result = weighed(await call(agent, task, brief, here=place, policy=policy), policy)
        change: dict[str, Any] = {"task": name}
        if last is not None:
            change |= {"revision": last.revision + 1, "usage": last.usage + result.usage}
        result = result.model_copy(update=change)
        if channels:
            tell_letters(place, result, task.id)
        return {"results": {name: result}}

    return work
