"""What an agent's answer becomes: valid, as plain JSON, stamped with whose it is."""

from typing import Any

from pydantic import JsonValue

from kapelle.nodes.attempt import Try
from kapelle.nodes.validating import Invalid, conform, plain
from kapelle.state.delivery import stamped
from kapelle.state.effect import Effect, doubt
from kapelle.state.task import Attempt, Reply, Result, total_usage


def valid(mine: Try, reply: Reply) -> JsonValue:
    """The output: by the card's schema, then by the caller's checks.

    Raises:
        Invalid: says what is wrong with it.
    """
    output = plain(reply.output, mine.policy)
    if reply.claims or reply.messages or reply.escalation:
        plain((reply.claims, reply.messages, reply.escalation), mine.policy)
    if reply.escalation is not None:
        return output
    schema = mine.agent.card.output
    if schema is not None:
        output = conform(output, schema)
    if mine.check is not None and (flaws := mine.check(output)):
        raise Invalid("; ".join(flaws))
    return output


def answered(mine: Try, reply: Reply, output: JsonValue, attempt: Attempt) -> Result:
    """The result of a reply whose output is valid."""
    ask, name, tries = reply.escalation, mine.name, (*mine.before, attempt)
    if ask is not None:
        ask = ask.model_copy(update={"about": "task", "task": mine.task.id, "by": name})
    return Result(
        task=mine.task.id,
        status="done" if ask is None else "waiting",
        output=output,
        agent=name,
        confidence=reply.confidence,
        usage=total_usage(tries),
        attempts=tries,
        escalation=ask,
        **_said(mine, reply),
    )


def taken(mine: Try, made: Result) -> Result:
    """A result as it came from an agent that makes its own, like a nested graph.

    Raises:
        Invalid: says what is wrong with it.
    """
    if made.status == "waiting" and made.escalation is None:
        raise Invalid("it waits for a person and does not say what for")
    reply = Reply(output=made.output, claims=made.claims, messages=made.messages)
    change = {"task": mine.task.id, "agent": mine.name, **_said(mine, reply)}
    if made.status in ("done", "partial"):
        change["output"] = valid(mine, reply)
    return made.model_copy(update=change)


def doubtful(mine: Try, met: Effect, attempt: Attempt) -> Result:
    """What waits until a person says whether an effect happened."""
    ask = doubt(met).model_copy(update={"task": mine.task.id, "by": mine.name})
    tries = (*mine.before, attempt)
    return Result(
        task=mine.task.id,
        status="waiting",
        output=plain(ask.evidence, mine.policy),
        agent=mine.name,
        usage=total_usage(tries),
        attempts=tries,
        escalation=ask,
    )


def booked(mine: Try, made: Result, attempt: Attempt) -> Result:
    """A result with all tries it took; a graph keeps its own books."""
    if mine.nested:
        return made
    tries = (*mine.before, attempt)
    return made.model_copy(update={"attempts": tries, "usage": total_usage(tries)})


def _said(mine: Try, reply: Reply) -> dict[str, Any]:
    """What it claims and writes, with who says so: whatever it says of that itself."""
    name, version = mine.name, mine.brief.context.version
    stamp = {"task": mine.task.id, "by": name, "version": version}
    return {
        "claims": tuple(claim.model_copy(update=stamp) for claim in reply.claims),
        "messages": stamped(reply.messages, name, mine.task.id),
        "heard": tuple(message.id for message in mine.brief.messages),
        "version": version,
    }
