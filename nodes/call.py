"""The one door to agents: time limit, validation, retries of the same agent, a typed failure.

`call` never raises for what an agent did. It lets LangGraph's own control flow through, so that an
interrupt of a nested graph surfaces.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from kapelle.nodes.agent import Agent, Unusable
from kapelle.nodes.here import Here
from kapelle.state.approval import Escalation
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy, backoff
from kapelle.state.task import (
    Attempt,
    Brief,
    Failure,
    FailureKind,
    Reply,
    Result,
    Task,
    total_usage,
)

Check = Callable[[JsonValue], list[str]]
"""The caller's own check of an output: each flaw a sentence, none if it is good."""

GRACE = 1.0
"""Seconds a cancelled agent has to let go before it is left behind."""

MESSAGE = 4_000
"""Characters of a failure's message that are kept."""

_BUGS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, SyntaxError)


async def call(
    agent: Agent,
    task: Task,
    brief: Brief,
    *,
    here: Here,
    policy: Policy,
    limit: AbstractAsyncContextManager[object] | None = None,
    check: Check | None = None,
) -> Result:
    """Have an agent do a task.

    Args:
        agent: Who does it.
        task: What is to be done.
        brief: What the agent is given with it.
        here: The node that calls.
        policy: Seconds an attempt may take, attempts, backoff, bytes of a reply, budget.
        limit: A further limit on how many work at once; entered for each attempt.
        check: What an output must pass beside the card's schema.

    Returns:
        `done` or `waiting` (the agent turned to a person) with the output as plain JSON;
        `failed` with a `Failure`; or the result of a nested graph as it is.
    """
    tries: list[Attempt] = []
    feedback = brief.feedback
    brief = brief.model_copy(update={"key": f"{here.step}/{task.id}"})
    most = 1 if agent.where == "graph" else policy.attempts
    while True:
        number = len(tries) + 1
        if number > 1:
            brief = brief.model_copy(update={"feedback": feedback, "attempt": number})
        turn = _Turn(agent, task, brief, here, policy, limit or nullcontext(), check)
        outcome = await turn.take()
        tries.append(outcome.attempt)
        if outcome.result is not None:
            return _booked(outcome.result, agent, tries)
        failure = outcome.attempt.failure
        assert failure is not None
        if number >= most or not outcome.again:
            return Result(
                task=task.id,
                status="failed",
                agent=agent.card.name,
                failure=failure,
                usage=total_usage(tries),
                attempts=tuple(tries),
            )
        if failure.kind == "invalid":
            feedback = (*feedback, failure.message)
        lot = random.Random(f"{policy.seed}/{here.step}/{task.id}/{number}").random()
        await here.services.clock.sleep(max(outcome.pause, backoff(policy, number, lot)))


def _booked(result: Result, agent: Agent, tries: list[Attempt]) -> Result:
    if agent.where == "graph":  # it keeps its own books
        return result
    return result.model_copy(update={"attempts": tuple(tries), "usage": total_usage(tries)})


@dataclass(frozen=True)
class _Outcome:
    attempt: Attempt
    result: Result | None = None
    again: bool = False
    """Whether another try can help."""
    pause: float = 0.0
    """Seconds the provider asks to wait before it."""


@dataclass(frozen=True)
class _Turn:
    """One attempt of one agent."""

    agent: Agent
    task: Task
    brief: Brief
    here: Here
    policy: Policy
    limit: AbstractAsyncContextManager[object]
    check: Check | None

    async def take(self) -> _Outcome:
        async with self.here.services.engine.slot(self.agent), self.limit:
            outcome = await self._paid()
        self._tell(outcome.attempt)
        return outcome

    async def _paid(self) -> _Outcome:
        ledger, book = self.here.services.ledger, self.here.thread
        key = f"{self.here.step}/{self.task.id}/{self.brief.attempt}"
        started = self.here.services.clock.now()
        try:
            wanted = self.agent.estimate(self.task, self.brief)
        except Exception as error:  # noqa: BLE001  an agent's estimate may raise anything
            return self._failed(started, Usage(), "raised", self._raised(error), again=False)
        if not await ledger.reserve(book, key, wanted, self.policy.budget):
            return self._over(started)
        usage = wanted
        try:
            outcome = await self._try(started, wanted)
            usage = outcome.attempt.usage
        finally:
            await ledger.settle(book, key, usage)
        return outcome

    async def _try(self, started: float, wanted: Usage) -> _Outcome:
        spent = Usage(calls=0 if self.agent.where == "graph" else 1)
        try:
            raw = await self._act()
            if isinstance(raw, Result):
                spent = Usage() if self.agent.where == "graph" else _counted(raw.usage)
                return _Outcome(self._attempt(started, spent), self._taken(raw))
            reply = _reply(raw)
            spent = _counted(reply.usage)
            output = self._valid(reply)
        except GraphBubbleUp:
            raise
        except Unusable as error:
            return self._failed(started, _counted(error.usage), "invalid", _said(error), again=True)
        except _Invalid as error:
            return self._failed(
                started, spent, error.kind, _said(error), again=error.kind == "invalid"
            )
        except OutOfTime:
            why = f"{self.agent.card.name} gave no answer within {self.policy.timeout:g} s"
            return self._failed(started, wanted, "timeout", why, again=True)  # it may have used all
        except Exception as error:  # noqa: BLE001  the one door: whatever an agent raises
            used = getattr(error, "usage", None)
            spent = _counted(used) if isinstance(used, Usage) else spent
            outcome = self._failed(
                started, spent, "raised", self._raised(error), again=worth_retrying(error)
            )
            return replace(outcome, pause=retry_after(error))
        return _Outcome(self._attempt(started, spent), self._result(reply, output))

    async def _act(self) -> object:
        work = _contained(self.here.services.engine.perform(self.agent, self.task, self.brief))
        if self.agent.where == "graph":  # its own agents have limits; a person may take their time
            return await work
        return await within(self.policy.timeout, work)

    def _taken(self, made: Result) -> Result:
        """A result as it came from an agent that makes its own, like a nested graph."""
        stamp = {"task": self.task.id, "agent": self.agent.card.name}
        if made.status == "waiting" and made.escalation is None:
            raise _Invalid("it waits for a person and does not say what for")
        if made.status in ("done", "partial"):
            reply = Reply(output=made.output, claims=made.claims)
            return made.model_copy(update={**stamp, "output": self._valid(reply)})
        return made.model_copy(update=stamp)

    def _valid(self, reply: Reply) -> JsonValue:
        output = plain(reply.output, self.policy.max_bytes)
        if reply.claims or reply.escalation:
            plain((reply.claims, reply.escalation), self.policy.max_bytes)
        schema = self.agent.card.output
        if schema is not None and reply.escalation is None:
            output = _conform(output, schema)
        flaws = self.check(output) if self.check and reply.escalation is None else []
        if flaws:
            raise _Invalid("; ".join(flaws))
        return output

    def _result(self, reply: Reply, output: JsonValue) -> Result:
        name = self.agent.card.name
        stamp = {"task": self.task.id, "by": name}
        return Result(
            task=self.task.id,
            status="waiting" if reply.escalation else "done",
            output=output,
            agent=name,
            confidence=reply.confidence,
            claims=tuple(claim.model_copy(update=stamp) for claim in reply.claims),
            escalation=reply.escalation
            and reply.escalation.model_copy(update={"about": "task", **stamp}),
        )

    def _over(self, started: float) -> _Outcome:
        why = f"the budget leaves no room for another call of {self.agent.card.name}"
        return self._failed(started, Usage(), "budget", why, again=False)

    def _raised(self, error: Exception) -> str:
        return f"{self.agent.card.name} raised {type(error).__name__}: {_said(error)}"

    def _failed(
        self, started: float, usage: Usage, kind: FailureKind, why: str, *, again: bool
    ) -> _Outcome:
        failure = Failure(kind=kind, message=_legible(why), agent=self.agent.card.name)
        return _Outcome(self._attempt(started, usage, failure), again=again)

    def _attempt(self, started: float, usage: Usage, failure: Failure | None = None) -> Attempt:
        return Attempt(
            agent=self.agent.card.name,
            number=self.brief.attempt,
            started=started,
            seconds=self.here.services.clock.now() - started,
            usage=usage,
            failure=failure,
        )

    def _tell(self, attempt: Attempt) -> None:
        self.here.tell(
            "attempt",
            attempt.failure.kind if attempt.failure else "done",
            task=self.task.id,
            agent=attempt.agent,
            usage=attempt.usage,
            why=attempt.failure.message if attempt.failure else "",
            data={"number": attempt.number, "seconds": round(attempt.seconds, 6)},
            mark=f"{attempt.number}@{attempt.started:.3f}",
        )
        if attempt.usage.tokens:
            self.here.tell(
                "spend",
                "settled",
                task=self.task.id,
                agent=attempt.agent,
                usage=attempt.usage,
                mark=f"{attempt.number}@{attempt.started:.3f}",
            )


class _Invalid(Exception):
    """An output that is not what was asked for."""

    def __init__(self, why: str, kind: FailureKind = "invalid") -> None:
        super().__init__(why)
        self.kind: FailureKind = kind


class OutOfTime(Exception):
    """The time is up. Not a `TimeoutError`: those are the agent's own."""


async def within(seconds: float, work: Coroutine[Any, Any, object]) -> object:
    """Await `work`, at most `seconds`; then cancel it, and leave it behind if it will not stop.

    Raises:
        OutOfTime: when the time is up, even if `work` swallows its cancellation.
    """
    doing = asyncio.ensure_future(work)
    doing.add_done_callback(lambda late: late.cancelled() or late.exception())
    try:
        await asyncio.wait({doing}, timeout=seconds)
    except asyncio.CancelledError:
        doing.cancel()
        raise
    if doing.done():
        return doing.result()
    doing.cancel()
    await asyncio.wait({doing}, timeout=GRACE)
    raise OutOfTime


async def _contained(work: Coroutine[Any, Any, object]) -> object:
    """Await what an agent does; what would end more than the agent becomes an ordinary error."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"it called exit({error.code!r})") from error
    except asyncio.CancelledError as error:
        doing = asyncio.current_task()
        if doing is not None and doing.cancelling():
            raise
        raise RuntimeError("it was cancelled from within") from error


def plain(output: object, most: int) -> JsonValue:
    """An output as plain JSON, at most `most` bytes of it."""
    try:
        text = to_json(output, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _Invalid(f"the output can't be written as JSON: {error}") from None
    if len(text) > most:
        raise _Invalid(f"the output has {len(text)} bytes; the limit is {most}", "too_large")
    value: JsonValue = from_json(text)
    return value


def retry_after(error: Exception) -> float:
    """Seconds a provider asks to wait (HTTP's Retry-After), at most a minute; 0 if it does not."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(60.0, max(0.0, float(headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


def worth_retrying(error: Exception) -> bool:
    """Whether trying again can help: not for a bug, nor for a request the provider rejects."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 409, 429) or status >= 500
    return not isinstance(error, _BUGS)


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its __str__ may raise anything
        return "(its message can't be read)"


def _legible(why: str) -> str:
    """What can be stored and read: no lone surrogates, no more than a page."""
    text = why if len(why) <= MESSAGE else f"{why[:MESSAGE]} … ({len(why)} characters)"
    return text.encode(errors="replace").decode()


def _counted(usage: Usage) -> Usage:
    return usage.model_copy(update={"calls": max(1, usage.calls)})


def _reply(raw: object) -> Reply:
    if isinstance(raw, Reply):
        return raw
    if isinstance(raw, Escalation):
        return Reply(output=raw.evidence, escalation=raw)
    return Reply(output=raw)


def _conform(output: JsonValue, schema: type[BaseModel]) -> JsonValue:
    try:
        conformed: JsonValue = schema.model_validate(output).model_dump(mode="json")
    except ValidationError as error:
        flaws = "; ".join(f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        raise _Invalid(f"the output is no {schema.__name__}: {flaws}") from None
    return conformed


def _path(where: tuple[int | str, ...]) -> str:
    return ".".join(map(str, where)) or "the whole"
