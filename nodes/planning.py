"""Decompose: a task becomes a plan, checked before anyone works on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime
from langgraph.types import Overwrite
from pydantic import JsonValue, TypeAdapter, ValidationError

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.estimating import guess
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Given
from kapelle.nodes.services import Services, names
from kapelle.state.answers import unfunded
from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.orders import plan_flaws, replanned, unaffordable
from kapelle.state.policy import Policy
from kapelle.state.skills import fits
from kapelle.state.task import Brief, Plan, Result, Revision, Task
from kapelle.state.team import finished

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
    planning = _Planning(planner, workers, policy)

    async def plan(state: Given, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task = here(runtime), state["task"]
        await place.begin(task)
        fresh: dict[str, Any] = {
            "plan": None,
            "proposed": None,
            "anew": False,
            "left": None,
            "capped": False,
            "results": Overwrite({}),
            "revisions": Overwrite({}),
            "assigned": {},
            "passed": (),
            "kept_back": (),
            "mail": {},
            "feedback": (),
            "draft": None,
            "vetted": False,
            "redrafts": 0,
            "verdict": None,
            "escalation": None,
            "answer": None,
            "sent_back": (),
            "found": (),
            "contradictions": (),
            "reviewed": (),
            "planned": (),
            "claims": (),
            "reviews": 0,
            "replans": 0,
            "spent": Usage(),
            "result": None,
        }
        return fresh | await planning.made(task, Brief(), Usage(), place)

    return plan


def replan(planner: Agent, workers: Sequence[Agent], policy: Policy) -> Replanner:
    """The node that plans anew, told what went wrong; results of unchanged subtasks stay."""
    planning = _Planning(planner, workers, policy)

    async def replan(state: Stuck, runtime: Runtime[Services]) -> dict[str, Any]:
        old, results = state["plan"], state["results"]
        brief = Brief(results=results, feedback=state["feedback"])
        made = await planning.made(state["task"], brief, state["spent"], here(runtime), old)
        if (new := made.get("plan")) is not None:
            made |= {"revisions": replanned(old, new, results, state["revisions"])}
        elif old is not None:  # without a better plan, what was finished by the old one counts
            made |= {"result": None}
        return made | {"anew": False}

    return replan


@dataclass(frozen=True)
class _Planning:
    """A planner, and those whose work it plans."""

    planner: Agent
    workers: Sequence[Agent]
    policy: Policy

    async def made(
        self, task: Task, brief: Brief, spent: Usage, place: Here, old: Plan | None = None
    ) -> dict[str, Any]:
        """A plan that can be worked on, or what stands in its way, as an update."""
        services = place.services
        context = await place.context(task, self.policy)
        brief = brief.model_copy(update={"agents": names(self.workers), "context": context})
        own = Usage(calls=0 if self.planner.where == "graph" else 1)
        gone = await services.ledger.spent(place.thread) + own
        kept = [t for t in old.tasks if t.id in finished(brief.results)] if old else []
        critic = _Critic(self.workers, self.policy, task.id, gone, kept)
        made = await call(
            self.planner, task, brief, here=place, policy=self.policy, check=critic.flaws
        )
        spent += made.usage
        kind = made.failure.kind if made.failure else None
        if made.status == "waiting" and made.escalation is not None:
            return {"spent": spent} | self._asked(made.escalation, critic)
        if kind in ("invalid", "budget") and critic.dear:
            return {"spent": spent} | self._dear(task, critic, place)
        if kind == "invalid":
            return {"spent": spent, "escalation": _bad_plan(task, made)}
        if made.status != "done":
            left = made.model_copy(update={"usage": spent})
            if kind == "budget" and old is None:
                left = left.model_copy(update={"missing": (task.id,)})
                return {"spent": spent} | unfunded(task, left, self.policy, capped=False)
            return {"spent": spent, "result": left}
        tasks, _ = read_tasks(made.output)
        why = f"{len(tasks)} subtasks, for each of which somebody fits, within the budget"
        said = {"spent": spent, "planned": made.claims}
        return said | self._ready(task, tasks, place, why)

    def _ready(self, task: Task, tasks: tuple[Task, ...], place: Here, why: str) -> dict[str, Any]:
        data: dict[str, JsonValue] = {"tasks": len(tasks)}
        name = self.planner.card.name
        place.tell("choice", "planned", task=task.id, agent=name, why=why, data=data)
        if self.policy.approve_plan:
            return _proposed(tasks, _show(task, tasks, "The policy asks for approval of plans."))
        return {"plan": Plan(tasks=tasks), "feedback": ()}

    def _dear(self, task: Task, critic: "_Critic", place: Here) -> dict[str, Any]:
        """A plan that stays too dear: worked on as far as it goes, or a person is asked."""
        why = "; ".join(critic.too_dear(critic.dear))
        if self.policy.on_failure == "ask":
            return _proposed(critic.dear, _show(task, critic.dear, why))
        return self._ready(task, critic.dear, place, f"{why}: the most urgent first")

    def _asked(self, asked: Escalation, critic: "_Critic") -> dict[str, Any]:
        """A planner's own question; a plan it shows with it is worked by if that is approved."""
        about = asked.model_copy(update={"about": "plan"})
        tasks, flaws = read_tasks(asked.evidence)
        if flaws or critic.unworkable(tasks):
            return {"proposed": None, "escalation": about}
        return _proposed(tasks, about)


@dataclass
class _Critic:
    """Judges plans before anyone works on them: schema, skills, budget."""

    workers: Sequence[Agent]
    policy: Policy
    root: str
    """Id of the task that is planned."""
    gone: Usage
    """What is spent when the plan is there."""
    kept: Sequence[Task]
    """Subtasks that are done already."""
    dear: tuple[Task, ...] = ()
    """The last plan that was good but for its price."""

    def flaws(self, output: JsonValue) -> list[str]:
        """Why an output is no plan that can be worked on and paid for."""
        tasks, flaws = read_tasks(output)
        flaws = flaws or self.unworkable(tasks)
        if flaws:
            return flaws
        flaws = self.too_dear(tasks)
        self.dear = tasks if flaws else ()
        return flaws

    def unworkable(self, tasks: Sequence[Task]) -> list[str]:
        """Why these agents can't work on these tasks."""
        cards = [worker.card for worker in self.workers]
        return plan_flaws(tasks, cards, self.policy, root=self.root)

    def too_dear(self, tasks: Sequence[Task]) -> list[str]:
        """Why they can't be paid for; where a person can add to the budget, that is no flaw."""
        if self.policy.budget == Budget() or self.policy.on_budget == "ask":
            return []
        sure = [self._least(task) for task in tasks if task not in self.kept]
        return unaffordable(sure, self.gone, self.policy.budget)

    def _least(self, task: Task) -> Usage:
        """What a subtask is sure to use: a call, and what is sent to who is sent least."""
        guesses = [guess(w, task) or Usage() for w in self.workers if fits(w.card, task)]
        return Usage(
            calls=min(guess.calls for guess in guesses),
            input_tokens=min(guess.input_tokens for guess in guesses),
        )


def read_tasks(output: JsonValue) -> tuple[tuple[Task, ...], list[str]]:
    """The tasks a planner gave, as a `Plan` or a list, and what keeps them from being read."""
    listed = output.get("tasks") if isinstance(output, dict) else output
    try:
        tasks = _TASKS.validate_python(listed)
        return tuple(t.model_copy(update={"context": None, "project": None}) for t in tasks), []
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


def _proposed(tasks: tuple[Task, ...], ask: Escalation) -> dict[str, Any]:
    return {"proposed": Plan(tasks=tasks), "escalation": ask}


def _show(task: Task, tasks: Sequence[Task], reason: str) -> Escalation:
    return Escalation(
        question=f"Work on {task.goal!r} by this plan of {len(tasks)} subtasks?",
        reason=reason,
        evidence={"tasks": [t.model_dump(mode="json") for t in tasks]},
        about="plan",
        task=task.id,
    )
