"""Teams as they may stand, in few words."""

from typing import Any

from kapelle.state.budget import Usage
from kapelle.state.task import Failure, FailureKind, Plan, Result, Status, Task
from kapelle.state.team import Team


def made(
    task: str, status: Status = "done", kind: FailureKind | None = None, **more: Any
) -> Result:
    """A subtask's result."""
    failure = Failure(kind=kind, message=f"{task} broke") if kind else None
    return Result(task=task, status=status, failure=failure, **more)


def planned(**needs: str) -> Plan:
    """A plan from ids and what each needs, one letter each."""
    return Plan(tasks=tuple(Task(id=i, goal="work", needs=tuple(n)) for i, n in needs.items()))


def team(plan: Plan | None, *results: Result, **more: Any) -> Team:
    """A team's state with these results."""
    state: dict[str, Any] = {
        "task": Task(goal="all"), "plan": plan, "results": {r.task: r for r in results},
        "revisions": {}, "assigned": {}, "feedback": (), "draft": None, "verdict": None,
        "escalation": None, "answer": None, "sent_back": (), "replans": 0,
        "proposed": None, "anew": False, "spent": Usage(),
        "result": None, "found": (), "contradictions": (), "reviewed": (), "reviews": 0, "mail": {},
    }  # fmt: skip
    return Team(**(state | more))
