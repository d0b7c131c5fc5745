"""What the gate behind a stage does: what it finds, what follows, what a person may say."""

from typing import Any, Literal

from pydantic import BaseModel, JsonValue, ValidationError

from kapelle.state.answers import advice
from kapelle.state.approval import Approval
from kapelle.state.breaker import asks_person
from kapelle.state.policy import Policy
from kapelle.state.shortage import goes_on
from kapelle.state.task import Failure, Result, settled
from kapelle.state.verdict import Verdict

Pass = Literal["next", "again", "ask", "stop"]
"""What a gate does: let through, send back, turn to a person, stop the line."""


def verdict_on(said: object) -> Verdict:
    """What a plain function says of an output, as a verdict.

    `said` is a `Verdict`; or True, None or nothing listed for yes; or False, a sentence or several
    for what is wrong with it.
    """
    if isinstance(said, Verdict):
        return said
    if isinstance(said, str):
        flaws = [said] if said else []
    elif isinstance(said, (list, tuple)):
        flaws = [str(flaw) for flaw in said]
    else:
        flaws = ["it was not accepted"] if said is False else []
    return Verdict(decision="revise" if flaws else "accept", reason="; ".join(flaws))


def schema_flaws(output: JsonValue, schema: type[BaseModel]) -> list[str]:
    """What keeps an output from being what a schema says, a sentence each, five at most."""
    try:
        schema.model_validate(output)
    except ValidationError as error:
        wrong = error.errors()[:5]
        return [f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg']}" for e in wrong]
    return []


def at_gate(result: Result, verdict: Verdict | None, rounds: int, policy: Policy) -> Pass:
    """What the gate does with a stage's result; a stage that failed is never let through.

    Work sent back too often stops the line, unless the policy turns to a person on failure.
    """
    gives_up: Pass = "ask" if asks_person(policy, [result.agent or ""]) else "stop"
    if result.status == "waiting":
        return "ask"
    if result.status not in ("done", "partial"):
        empty = result.failure is not None and result.failure.kind == "budget"
        if empty and result.output is None and policy.on_budget == "ask":
            return "ask"
        return gives_up if result.status == "failed" and not empty else "stop"
    if verdict is None or verdict.decision == "accept":
        return "next"
    if verdict.decision == "revise":
        return "again" if rounds < policy.rounds else gives_up
    return verdict.decision


def stopped_at(name: str, result: Result, verdict: Verdict | None, rounds: int) -> Result:
    """The result of a stage at which its gate stops the line, with why."""
    if verdict is None or result.status not in ("done", "partial"):
        return result
    often = f" after {rounds + 1} tries" if verdict.decision == "revise" else ""
    why = f"the gate behind {name!r} stopped the line{often}: {verdict.reason or 'no reason given'}"
    failure = Failure(kind="refused", message=why, agent=result.agent)
    return settled(result, status="refused", failure=failure)


def unjudged(result: Result, judge: Result) -> Result:
    """The result of a stage whose judge the budget left no room for."""
    return settled(result, status="failed", failure=judge.failure)


def after_answer(answer: Approval) -> Pass:
    """What the gate does when a person has answered."""
    if answer.about == "budget":
        return "again" if goes_on(answer) else "stop"
    choices: dict[str, Pass] = {"reject": "stop", "respond": "again"}
    return choices.get(answer.decision, "next")


def amended(result: Result, answer: Approval) -> Result:
    """A stage's result after a person's answer; one about the budget changes nothing of it."""
    if answer.about == "budget":
        return result
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
    if answer is not None and answer.about == "budget":
        return feedback
    said = advice(answer) if answer else verdict.reason if verdict else ""
    return (*feedback, said or "it was not accepted")
