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
from kapelle.state.answers import unfunded
from kapelle.state.approval import Escalation
from kapelle.state.orders import follow
from kapelle.state.policy import Policy
from kapelle.state.review import opened
from kapelle.state.shortage import cut_short
from kapelle.state.task import Brief, Failure, Result
from kapelle.state.team import Team
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
        assert draft is not None
        assert plan is not None
        goals = {t.id: t.goal for t in plan.tasks}
        brief = Brief(
            results=state["results"] | {task.id: draft},
            goals=goals,
            context=await place.context(task, policy),
        )
        check = partial(verdict_flaws, known=goals)
        made = await call(critic, task, brief, here=place, policy=policy, check=check)
        name = critic.card.name
        if made.failure is not None and made.failure.kind == "budget":
            left, spent = _unjudged(draft, name, made), state["spent"] + made.usage
            return {"spent": spent} | unfunded(task, left, policy, capped=state["capped"])
        verdict = read_verdict(made, draft)
        place.tell("verdict", verdict.decision, task=task.id, agent=name, why=verdict.reason)
        spent = state["spent"] + made.usage
        draft = draft.model_copy(update={"usage": draft.usage + made.usage})
        update: dict[str, Any] = {"verdict": verdict, "spent": spent, "draft": draft}
        if orders := opened(verdict.findings, plan, state["results"]):
            place.tell("choice", "review", task=task.id, agent=name, why=_seen(verdict))
            if state["reviews"] < policy.reviews:
                reviews = state["reviews"] + 1
                return update | {"draft": None, "revisions": orders, "reviews": reviews}
            verdict = _doubtful(verdict)
        if verdict.decision in ("accept", "stop"):
            return update | {"result": _ended(draft, verdict, name)}
        then = follow(state, draft, verdict, policy) if verdict.decision == "revise" else None
        if then is not None:
            if then.get("anew"):
                why = then["feedback"][0]
                place.tell("choice", "stalled", task=task.id, agent=name, why=why)
            return update | then
        place.tell("escalation", "asked", task=task.id, agent=name, why=verdict.reason)
        return update | {"escalation": _ask(verdict, task.id, name, draft)}

    return judge


def _ended(draft: Result, verdict: Verdict, judge: str) -> Result:
    """What leaves when the judge accepts the draft, or stops it."""
    if verdict.decision == "accept":
        sure = draft.confidence if verdict.score is None else verdict.score
        return draft.model_copy(update={"confidence": sure})
    failure = Failure(kind="refused", message=f"{judge} stopped it: {verdict.reason}")
    return draft.model_copy(update={"status": "refused", "failure": failure})


def _unjudged(draft: Result, judge: str, made: Result) -> Result:
    """What leaves where the budget has no room for the judge: the draft, as it is."""
    return draft.model_copy(
        update={
            "status": "partial",
            "missing": (*draft.missing, judge),
            "failure": cut_short([draft, made]),
            "usage": draft.usage + made.usage,
        }
    )


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


def _seen(verdict: Verdict) -> str:
    return "; ".join(f"{f.key} ({', '.join(f.tasks)}): {f.why}" for f in verdict.findings)


def _doubtful(verdict: Verdict) -> Verdict:
    """The verdict of a judge that still sees a contradiction once its subtasks were done again."""
    return verdict.model_copy(
        update={"decision": "ask", "reason": f"The texts contradict each other: {_seen(verdict)}"}
    )


def _ask(verdict: Verdict, task: str, by: str, draft: Result) -> Escalation:
    ask = verdict.escalation or Escalation(
        question="The judge does not accept the result. Accept it?"
        if verdict.decision == "revise"
        else "The judge asks for a decision. Accept the result?",
        reason=verdict.reason,
        evidence=draft.output,
    )
    return ask.model_copy(update={"about": "result", "task": task, "by": by})
