"""Decompose: a task becomes a plan, checked before anyone works on it."""

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime
from langgraph.types import Overwrite
from pydantic import JsonValue, TypeAdapter, ValidationError

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Given
from kapelle.nodes.services import Services, names
from kapelle.state.approval import Escalation
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Plan, Result, Revision, Task
from kapelle.state.team import plan_flaws, replanned

_TASKS = TypeAdapter(tuple[Task, ...])


class Stuck(TypedDict):
    """What planning anew reads."""

    task: Task
    plan: Plan | None
    results: dict[str, Result]
    revisions: dict[str, Revision]
    feedback: tuple[str, ...]
    spent: Usage


class Planner(Protocol):
    """The node that plans."""

    async def __call__(self, state: Given, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """A plan, an ask about one, or a failed result, as an update."""
        ...


class Replanner(Protocol):
    """The node that plans anew."""

    async def __call__(self, state: Stuck, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """As `Planner`; what is done stays done."""
        ...


def plan(planner: Agent, workers: Sequence[Agent], policy: Policy) -> Planner:
    """The node that decomposes a new task; it forgets what an earlier task left behind."""

    async def plan(state: Given, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task = here(runtime), state["task"]
        await place.begin(task)
        fresh: dict[str, Any] = {
            "plan": None,
            "results": Overwrite({}),
            "revisions": Overwrite({}),
            "assigned": {},
            "feedback": (),
            "draft": None,
            "verdict": None,
            "escalation": None,
            "answer": None,
            "rounds": 0,
            "replans": 0,
            "spent": Usage(),
            "result": None,
        }
        return fresh | await _planned(planner, task, Brief(), workers, policy, place, Usage())

    return plan


def replan(planner: Agent, workers: Sequence[Agent], policy: Policy) -> Replanner:
    """The node that plans anew, told what went wrong; results of unchanged subtasks stay."""

    async def replan(state: Stuck, runtime: Runtime[Services]) -> dict[str, Any]:
        brief = Brief(results=state["results"], feedback=state["feedback"])
        place = here(runtime)
        update = await _planned(
            planner, state["task"], brief, workers, policy, place, state["spent"]
        )
        old, new = state["plan"], update.get("plan")
        if new is not None:
            orders = replanned(old, new, state["results"], state["revisions"])
            return update | {"revisions": orders}
        if old is not None:  # without a better plan, what was finished by the old one counts
            update.pop("result", None)
        return update

    return replan


async def _planned(
    planner: Agent,
    task: Task,
    brief: Brief,
    workers: Sequence[Agent],
    policy: Policy,
    place: Here,
    spent: Usage,
) -> dict[str, Any]:
    def check(output: JsonValue) -> list[str]:
        tasks, flaws = read_tasks(output)
        return flaws or plan_flaws(tasks, [w.card for w in workers], policy, root=task.id)

    context = await place.services.memory.context(place.thread)
    brief = brief.model_copy(update={"agents": names(workers), "context": context})
    made = await call(planner, task, brief, here=place, policy=policy, check=check)
    spent += made.usage
    if made.status == "waiting":
        return {"spent": spent, "escalation": _about_plan(made.escalation)}
    if made.status != "done":
        if made.failure is not None and made.failure.kind == "invalid":
            return {"spent": spent, "escalation": _bad_plan(task, made)}
        return {"spent": spent, "result": made.model_copy(update={"usage": spent})}
    tasks, _ = read_tasks(made.output)
    why, name = f"{len(tasks)} subtasks", planner.card.name
    data: dict[str, JsonValue] = {"tasks": len(tasks)}
    place.tell("choice", "planned", task=task.id, agent=name, why=why, data=data)
    shown = _show(task, tasks) if policy.approve_plan else None
    return {"spent": spent, "plan": Plan(tasks=tasks), "escalation": shown, "feedback": ()}


def read_tasks(output: JsonValue) -> tuple[tuple[Task, ...], list[str]]:
    """The tasks a planner gave, as a `Plan` or a list, and what keeps them from being read."""
    listed = output.get("tasks") if isinstance(output, dict) else output
    try:
        return _TASKS.validate_python(listed), []
    except ValidationError as error:
        flaws = [
            f"{'.'.join(map(str, e['loc'])) or 'plan'}: {e['msg']}" for e in error.errors()[:5]
        ]
        return (), flaws


def _bad_plan(task: Task, made: Result) -> Escalation:
    return Escalation(
        question=f"No usable plan for {task.goal!r}. What now?",
        reason=made.failure.message if made.failure else "",
        evidence={"attempts": [a.model_dump(mode="json") for a in made.attempts]},
        about="plan",
        task=task.id,
        by=made.agent or "",
        offers=("edit", "reject", "respond"),
    )


def _show(task: Task, tasks: Sequence[Task]) -> Escalation:
    return Escalation(
        question=f"Work on {task.goal!r} by this plan of {len(tasks)} subtasks?",
        reason="The policy asks for approval of plans.",
        evidence={"tasks": [t.model_dump(mode="json") for t in tasks]},
        about="plan",
        task=task.id,
    )


def _about_plan(asked: Escalation | None) -> Escalation | None:
    return asked and asked.model_copy(update={"about": "plan"})
