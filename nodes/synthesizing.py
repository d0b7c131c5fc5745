"""Merge what the workers gave back; find and resolve what contradicts."""

from collections.abc import Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.state.context import Contradiction, contradictions
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Failure, FailureKind, Plan, Result
from kapelle.state.team import Team, leaves, missing, never_begun


class Synthesizer(Protocol):
    """The node that merges."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """A draft, or a failed result, as an update."""
        ...


def synthesize(merger: Agent | None, policy: Policy, *, judged: bool) -> Synthesizer:
    """The node that makes one draft of all results; without a judge the draft is the result."""

    async def synthesize(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        place, plan, task = here(runtime), state["plan"], state["task"]
        assert plan is not None
        good = {i: r for i, r in state["results"].items() if r.status in ("done", "partial")}
        lost = missing(plan, state["results"], state["revisions"])
        if not good:
            return {"result": _nothing(state, plan)}
        found = contradictions(claim for _, r in sorted(good.items()) for claim in r.claims)
        brief = await _brief(place, good, found, state["feedback"])
        brief = brief.model_copy(update={"goals": {t.id: t.goal for t in plan.tasks}})
        if merger is None:
            made = Result.model_validate(
                {"task": task.id, "status": "done", "output": leaves(plan, good)}
            )
        else:
            made = await call(merger, task, brief, here=place, policy=policy)
        spent = state["spent"] + made.usage
        draft = made.model_copy(
            update={
                "status": "partial" if lost and made.status == "done" else made.status,
                "missing": lost,
                "contradictions": found,
                "usage": sum((r.usage for r in state["results"].values()), spent),
            }
        )
        if made.status == "failed":
            return {"spent": spent, "result": _kept(draft, plan, good)}
        if made.status == "waiting" and made.escalation is not None:
            about = made.escalation.model_copy(update={"about": "result"})
            kept = draft.model_copy(update={"status": "partial" if lost else "done"})
            return {"spent": spent, "draft": kept, "escalation": about}
        return {
            "spent": spent,
            "feedback": (),
            **({"draft": draft} if judged else {"result": draft}),
        }

    return synthesize


async def _brief(
    place: Here, good: dict[str, Result], found: Sequence[Contradiction], feedback: tuple[str, ...]
) -> Brief:
    context = await place.services.memory.context(place.thread)
    for conflict in found:
        decision = conflict.decision
        place.tell(
            "choice", "decided", why=f"{decision.key}: by {decision.rule}", mark=decision.key
        )
    decided = (*context.decisions, *(conflict.decision for conflict in found))
    context = context.model_copy(update={"decisions": decided})
    return Brief(results=good, context=context, feedback=feedback)


def _nothing(state: Team, plan: Plan) -> Result:
    causes = [
        (task, result.failure)
        for task, result in sorted(state["results"].items())
        if result.failure is not None and not never_begun(result)
    ]
    causes.sort(key=lambda cause: cause[1].kind != "budget")
    kind: FailureKind = causes[0][1].kind if causes else "blocked"
    said = [f"{task}: {failure.message}" for task, failure in causes[:3]]
    why = "no subtask was done; " + "; ".join(said)
    return Result(
        task=state["task"].id,
        status="refused" if {f.kind for _, f in causes} == {"refused"} else "failed",
        failure=Failure(kind=kind, message=why),
        missing=tuple(sorted(t.id for t in plan.tasks)),
        usage=sum((r.usage for r in state["results"].values()), state["spent"]),
    )


def _kept(failed: Result, plan: Plan, good: dict[str, Result]) -> Result:
    """What was finished leaves even when merging it failed."""
    return Result.model_validate(
        failed.model_dump() | {"status": "partial", "output": leaves(plan, good)}
    )
