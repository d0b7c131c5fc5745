"""Have the judge look at a part its author is not sure of, before a person must."""

from functools import partial
from typing import Any, Protocol, TypedDict

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import PARKED, board
from kapelle.nodes.call import call
from kapelle.nodes.here import here
from kapelle.nodes.judging import read_verdict, verdict_flaws
from kapelle.nodes.services import Services
from kapelle.state.ladder import reviewed
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Task


class Doubtful(TypedDict):
    """What a review reads: a part, and what came of it."""

    subtask: Task
    stopped: Result


class Reviewer(Protocol):
    """A node that reviews."""

    async def __call__(self, state: Doubtful, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The part's result as the judge leaves it, as an update."""
        ...


def review(critic: Agent, policy: Policy) -> Reviewer:
    """The node that lets doubtful work through, or sends it to a person."""
    graph = getattr(critic, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def review(state: Doubtful, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        place, task, stopped = here(runtime), state["subtask"], state["stopped"]
        desk = await board(runtime, policy.parallel)
        outcome: Result | None = PARKED
        try:
            draft = stopped.model_copy(update={"status": "done", "escalation": None})
            brief = Brief(
                results={task.id: draft},
                goals={task.id: task.goal},
                context=await place.context(task, policy),
            )
            check = partial(verdict_flaws, known=(task.id,))
            made = await call(critic, task, brief, here=place, policy=policy, check=check)
            verdict = read_verdict(made, draft)
            place.tell("verdict", verdict.decision, task=task.id, agent=critic.card.name,
                       why=verdict.reason, mark=stopped.revision)  # fmt: skip
            outcome = reviewed(stopped, verdict, made.usage)
            return {"results": {task.id: outcome}}
        finally:
            desk.post(task.id, outcome)

    return review
