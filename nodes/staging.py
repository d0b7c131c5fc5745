"""The boxes of a pipeline: a stage that works, and the gate behind it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.judging import read_verdict, verdict_flaws
from kapelle.nodes.pattern import Given
from kapelle.nodes.services import Services
from kapelle.state.approval import Escalation
from kapelle.state.budget import Usage
from kapelle.state.line import Line, Pass, after_answer, amended, at_gate, left_line, told
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result
from kapelle.state.team import give_up, weighed
from kapelle.state.verdict import Verdict


class Opener(Protocol):
    """The node that opens the line."""

    async def __call__(self, state: Given, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """A fresh line, as an update."""
        ...


class Box(Protocol):
    """A node of the line."""

    async def __call__(self, state: Line, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What happened, as an update."""
        ...


async def open_line(state: Given, runtime: Runtime[Services]) -> dict[str, Any]:
    """Forget what an earlier task left behind."""
    place = here(runtime)
    await place.begin(state["task"])
    return {
        "results": Overwrite({}),
        "at": 0,
        "feedback": (),
        "rounds": 0,
        "spent": Usage(),
        "escalation": None,
        "answer": None,
        "result": None,
    }


def stage(agent: Agent, policy: Policy) -> Box:
    """The node of one stage; it is given what the earlier ones made."""
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def work(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        place, name = here(runtime), agent.card.name
        earlier = {k: r for k, r in state["results"].items() if k != name}
        brief = Brief(
            results=earlier,
            context=await place.services.memory.context(place.thread),
            feedback=state["feedback"],
        )
        task = state["task"].model_copy(update={"id": name})
        last = state["results"].get(name)
        result = weighed(await call(agent, task, brief, here=place, policy=policy), policy)
        if last is not None:
            change = {"revision": last.revision + 1, "usage": last.usage + result.usage}
            result = result.model_copy(update=change)
        return {"results": {name: result}}

    return work


def stage_gate(stages: Sequence[Agent], judges: Mapping[str, Agent], policy: Policy) -> Box:
    """The node behind every stage: validates, judges, sends back, asks, or stops the line."""
    names = [agent.card.name for agent in stages]

    async def gate(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        place, name, answer = here(runtime), names[state["at"]], state["answer"]
        result, spent = state["results"][name], state["spent"]
        verdict: Verdict | None = None
        if answer is not None:
            result, way = amended(result, answer), after_answer(answer)
        else:
            if name in judges and result.status in ("done", "partial"):
                verdict, used = await _judged(judges[name], state, result, place, policy)
                spent += used
            way = at_gate(result, verdict, state["rounds"], policy)
        place.tell("choice", way, task=name, why=verdict.reason if verdict else result.status,
                   mark=f"{result.revision}/{state['rounds']}")  # fmt: skip
        after: Line = {**state, "results": {**state["results"], name: result}, "spent": spent}
        update: dict[str, Any] = {"results": {name: result}, "spent": spent, "answer": None}
        return update | _onward(after, way, names, result, verdict, place)

    return gate


def _onward(
    state: Line,
    way: Pass,
    names: Sequence[str],
    result: Result,
    verdict: Verdict | None,
    place: Here,
) -> dict[str, Any]:
    name = names[state["at"]]
    if way == "ask":
        return {"move": "approve", "escalation": _ask(state, name, result, verdict)}
    if way == "again":
        feedback = told(state["feedback"], verdict, state["answer"])
        return {"move": name, "feedback": feedback, "rounds": state["rounds"] + 1}
    if way == "next" and state["at"] + 1 < len(names):
        return {"move": names[state["at"] + 1], "at": state["at"] + 1, "feedback": (), "rounds": 0}
    left = left_line(state["task"], names, state["results"], state["spent"])
    place.tell("run", left.status, task=state["task"].id)
    return {"move": "end", "result": left}


async def _judged(
    critic: Agent, state: Line, result: Result, place: Here, policy: Policy
) -> tuple[Verdict, Usage]:
    brief = Brief(results=state["results"])
    task = state["task"].model_copy(update={"id": result.task})
    check = partial(verdict_flaws, known=())
    made = await call(critic, task, brief, here=place, policy=policy, check=check)
    verdict = read_verdict(made, result)
    name, mark = critic.card.name, result.revision
    place.tell(
        "verdict", verdict.decision, task=result.task, agent=name, why=verdict.reason, mark=mark
    )
    return verdict, made.usage


def _ask(state: Line, name: str, result: Result, verdict: Verdict | None) -> Escalation:
    if result.escalation is not None:
        return result.escalation
    if result.status == "failed":
        return give_up(state["task"].model_copy(update={"id": name}), result)
    if verdict is not None and verdict.escalation is not None:
        return verdict.escalation.model_copy(update={"task": name})
    return Escalation(
        question=f"Stage {name!r} was not accepted. Let its work through?",
        reason=verdict.reason if verdict else "",
        evidence=result.output,
        task=name,
        by=result.agent or "",
    )
