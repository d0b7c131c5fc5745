"""What a pipeline remembers, and the laws by which it goes on."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Failure, Result, Task, merge_results, missed, settled
from kapelle.state.team import advice
from kapelle.state.verdict import Verdict

Pass = Literal["next", "again", "ask", "stop"]
"""What a gate does: let through, send back, turn to a person, stop the line."""


class Line(TypedDict, total=False):
    """The shared state of a pipeline."""

    task: Task
    results: Annotated[dict[str, Result], merge_results]
    """The last result of each stage, by its name."""
    at: int
    """The stage at work, from 0."""
    feedback: tuple[str, ...]
    """What was wrong with this stage's work, oldest first."""
    rounds: int
    """How many times the gate sent this stage's work back."""
    spent: Usage
    escalation: Escalation | None
    answer: Approval | None
    move: str
    """The stage that is next; `approve` or `end`."""
    result: Result | None


def at_gate(result: Result, verdict: Verdict | None, rounds: int, policy: Policy) -> Pass:
    """What the gate does with a stage's result; a stage that failed is never let through."""
    if result.status == "waiting":
        return "ask"
    if result.status not in ("done", "partial"):
        return "ask" if policy.on_failure == "ask" and result.status == "failed" else "stop"
    if verdict is None or verdict.decision == "accept":
        return "next"
    return "again" if verdict.decision == "revise" and rounds < policy.rounds else "ask"


def after_answer(answer: Approval) -> Pass:
    """What the gate does when a person has answered."""
    choices: dict[str, Pass] = {"reject": "stop", "respond": "again"}
    return choices.get(answer.decision, "next")


def amended(result: Result, answer: Approval) -> Result:
    """A stage's result after a person's answer."""
    if answer.decision == "reject":
        why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
        failure = Failure(kind="refused", message=why, agent=result.agent)
        return settled(result, status="refused", failure=failure, escalation=None)
    change: dict[str, Any] = {"escalation": None}
    if answer.decision in ("approve", "edit"):
        change |= {"status": "done", "failure": None}
    if answer.decision == "edit":
        change |= {"output": answer.value, "agent": answer.by}
    return settled(result, **change)


def told(
    feedback: tuple[str, ...], verdict: Verdict | None, answer: Approval | None
) -> tuple[str, ...]:
    """The feedback a stage gets when its work is sent back."""
    said = advice(answer) if answer else verdict.reason if verdict else ""
    return (*feedback, said or "it was not accepted")


def left_line(
    task: Task, stages: Sequence[str], results: dict[str, Result], spent: Usage
) -> Result:
    """What leaves the line: the last stage's work; what was finished, if the line was stopped."""
    reached = [results[name] for name in stages if name in results]
    good = {result.task: result for result in reached if _good(result)}
    last = reached[-1]
    lost = [name for name in stages if name not in good]
    halves = [part for result in good.values() for part in missed(result)]
    ending: dict[str, Any] = {
        "task": task.id,
        "usage": sum((r.usage for r in reached), spent),
        "missing": tuple(lost + halves),
    }
    if lost and good and last.status == "failed":
        output = {name: result.output for name, result in good.items()}
        ending |= {"status": "partial", "output": output}
    elif halves and last.status == "done":
        ending |= {"status": "partial"}
    return last.model_copy(update=ending)


def _good(result: Result) -> bool:
    return result.status in ("done", "partial")
