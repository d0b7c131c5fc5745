"""Judge a draft: accept it, send work back, or turn to a person."""

from collections.abc import Collection
from functools import partial
from typing import Any, Protocol

from langgraph.runtime import Runtime
from pydantic import JsonValue, ValidationError

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import here
from kapelle.nodes.services import Services
from kapelle.state.approval import Escalation
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result
from kapelle.state.team import Team, redo
from kapelle.state.verdict import Verdict


class Judge(Protocol):
    """The node that judges."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The verdict and what follows from it, as an update."""
        ...


def judge(critic: Agent, policy: Policy) -> Judge:
    """The node that lets a draft through or not. Where the judge fails, a person is asked."""

    async def judge(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task, draft, plan = here(runtime), state["task"], state["draft"], state["plan"]
        if draft is None or plan is None or state["escalation"] is not None:
            return {}  # the run ended, or waits for a person already
        goals = {t.id: t.goal for t in plan.tasks}
        brief = Brief(
            results=state["results"] | {task.id: draft},
            goals=goals,
            context=await place.services.memory.context(place.thread),
        )
        check = partial(verdict_flaws, known=goals)
        made = await call(critic, task, brief, here=place, policy=policy, check=check)
        verdict = read_verdict(made, draft)
        name = critic.card.name
        place.tell("verdict", verdict.decision, task=task.id, agent=name, why=verdict.reason)
        spent = state["spent"] + made.usage
        draft = draft.model_copy(update={"usage": draft.usage + made.usage})
        update: dict[str, Any] = {"verdict": verdict, "spent": spent, "draft": draft}
        if verdict.decision == "accept":
            return update | {"result": draft}
        if verdict.decision == "revise" and state["rounds"] < policy.rounds:
            orders = redo(verdict.redo, plan, state["results"])
            said = (verdict.reason,) if verdict.reason and not orders else ()
            rounds = state["rounds"] + 1
            return update | {"draft": None, "revisions": orders, "rounds": rounds, "feedback": said}
        place.tell("escalation", "asked", task=task.id, agent=name, why=verdict.reason)
        return update | {"escalation": _ask(verdict, task.id, name, draft)}

    return judge


def verdict_flaws(output: JsonValue, known: Collection[str]) -> list[str]:
    """What keeps an output from being a verdict on the subtasks `known`."""
    try:
        named = Verdict.model_validate(output).redo
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
    return [f"there is no subtask {name!r} to do again" for name in named if name not in known]


def read_verdict(made: Result, draft: Result) -> Verdict:
    """The verdict a judge gave; `ask` if it could not give one or itself turned to a person."""
    if made.status == "done":
        return Verdict.model_validate(made.output)
    why = made.failure.message if made.failure else "the judge turned to a person"
    return Verdict(decision="ask", reason=f"There is no verdict: {why}", escalation=made.escalation)


def _ask(verdict: Verdict, task: str, by: str, draft: Result) -> Escalation:
    ask = verdict.escalation or Escalation(
        question="The judge does not accept the result. Accept it?"
        if verdict.decision == "revise"
        else "The judge asks for a decision. Accept the result?",
        reason=verdict.reason,
        evidence=draft.output,
    )
    return ask.model_copy(update={"about": "result", "task": task, "by": by})
