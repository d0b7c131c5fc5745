"""Merge what the workers gave back, once nothing in it contradicts unseen."""

from typing import Any, Protocol

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import here
from kapelle.nodes.services import Services
from kapelle.state.answers import unfunded
from kapelle.state.delivery import overflow, post
from kapelle.state.leaving import with_record
from kapelle.state.policy import Policy
from kapelle.state.shortage import cut_short
from kapelle.state.task import Brief, Failure, FailureKind, Plan, Result, contradicted
from kapelle.state.team import (
    Team,
    finished,
    leaves,
    lost_parts,
    missing,
    never_begun,
    presented,
    undone,
    unvetted,
    used,
)


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
        good = finished(state["results"])
        held = post(state["results"], policy.channels, state["passed"]).held
        lost = (*missing(plan, state["results"], state["revisions"]), *held)
        if not good:
            return {"result": _nothing(state, plan)}
        brief = Brief(
            results=good,
            context=await place.context(task, policy),
            feedback=state["feedback"],
            goals={t.id: t.goal for t in plan.tasks},
            missing=lost_parts(state),
        )
        if merger is None:
            made = Result.model_validate(
                {"task": task.id, "status": "done", "output": leaves(plan, good)}
            )
        else:
            made = await call(merger, task, brief, here=place, policy=policy)
        update = {"spent": state["spent"] + made.usage, "vetted": False}
        failed = [r for i, r in state["results"].items() if i not in good] if lost else []
        short = cut_short([made, *failed])
        draft = made.model_copy(
            update={
                "failure": short or made.failure or overflow(held),
                "status": "partial" if lost and made.status == "done" else made.status,
                "missing": lost,
                "parts": undone(plan, state["results"], state["revisions"]),
                "contradictions": contradicted(state["results"].values()),
                "usage": used(state) + made.usage,
            }
        )
        if made.status == "failed":
            left = with_record(_kept(draft, plan, good), state["contradictions"])
            if made.failure is not None and made.failure.kind == "budget":
                return update | unfunded(task, left, policy, capped=state["capped"])
            return update | {"result": left}
        if made.status == "waiting":
            draft = draft.model_copy(update={"status": "partial" if lost else "done"})
        if unvetted({**state, "draft": draft, "vetted": False}):
            return update | {"draft": draft}
        draft = with_record(draft, state["contradictions"])
        return update | presented(draft, judged=judged)

    return synthesize


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
    short = cut_short(state["results"].values())
    return Result(
        task=state["task"].id,
        status="refused" if {f.kind for _, f in causes} == {"refused"} else "failed",
        failure=short or Failure(kind=kind, message=why),
        missing=tuple(sorted(t.id for t in plan.tasks)),
        parts=undone(plan, state["results"], state["revisions"]),
        usage=used(state),
    )


def _kept(failed: Result, plan: Plan, good: dict[str, Result]) -> Result:
    """What was finished leaves even when merging it failed; whoever should have is missing."""
    lost = (*failed.missing, failed.agent) if failed.agent else failed.missing
    change = {"status": "partial", "output": leaves(plan, good), "missing": lost}
    return Result.model_validate(failed.model_dump() | change)
