"""The one door to agents: whatever an agent does, a typed result comes back.

    slot ─ limits of the model ─ reserve ─ try, in time ─ validate ─ settle ─┬─ result
      ▲                                                                      │
      └──────────────── pause: full jitter, or as the provider asks ─────────┘ if it can help

`call` never raises for what an agent did. It lets LangGraph's own control flow through, so that an
interrupt of a nested graph surfaces. Retries are never nested: client libraries are told not to.
"""

import itertools
import os
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from langgraph.errors import GraphBubbleUp
from pydantic import JsonValue

from kapelle.nodes.agent import Agent, Unusable
from kapelle.nodes.breaking import admission, observe
from kapelle.nodes.effect import Doing, Unsure, doing
from kapelle.nodes.envelopes import around, envelopes
from kapelle.nodes.here import Here
from kapelle.nodes.limiting import NO_TURN, Turn, turn
from kapelle.nodes.reserving import reserve, settle
from kapelle.nodes.trying import (
    OutOfTime,
    Patience,
    at_limit,
    contained,
    legible,
    patience,
    retry_after,
    said,
    within,
    worth_retrying,
)
from kapelle.nodes.turns import Turns
from kapelle.nodes.validating import Invalid, check_input, conform, plain, reply_of
from kapelle.state.budget import Envelope, Room, Usage
from kapelle.state.delivery import stamped
from kapelle.state.effect import Effect, doubt
from kapelle.state.errors import DatabaseFailed
from kapelle.state.policy import Policy, backoff
from kapelle.state.task import (
    Attempt,
    Brief,
    Failure,
    FailureKind,
    Reply,
    Result,
    Task,
    Tier,
    total_usage,
)

Check = Callable[[JsonValue], list[str]]
"""The caller's own check of an output: each flaw a sentence, none if it is good."""

_PROCESS = uuid4().hex[:12]
_numbers = itertools.count()

_NOTHING, _ONE, _UNTOLD = Usage(), Usage(calls=1), Reply().usage


async def call(
    agent: Agent,
    task: Task,
    brief: Brief,
    *,
    here: Here,
    policy: Policy,
    limit: Turns | None = None,
    check: Check | None = None,
) -> Result:
    """Have an agent do a task.

    Args:
        agent: Who does it.
        task: What is to be done.
        brief: What the agent is given with it.
        here: The node that calls.
        policy: Budgets, limits of models, seconds, attempts, backoff, sizes.
        limit: A further limit on how many work at once; waited for at each attempt, by the task's
            priority. A graph needs no turn: its own agents do.
        check: What an output must pass beside the card's schema.

    Returns:
        `done` or `waiting` (the agent turned to a person) with the output as plain JSON;
        `failed` with a `Failure`; or the result of a nested graph as it is.
    """
    at: Callable[[Tier | None], Agent] | None = getattr(agent, "at", None)
    agent = at(task.tier) if at is not None else agent
    if ungated(agent, policy):
        return _ungated(agent, task)
    tries: list[Attempt] = []
    feedback = brief.feedback
    brief = brief.model_copy(update={"key": f"{here.step}/{task.id}"})
    most = 1 if agent.where == "graph" else policy.attempts
    out_of = envelopes(here, agent, task, policy)
    mine = nullcontext() if limit is None or agent.where == "graph" else limit.at(task.priority)
    clock = here.services.clock
    end: float | None = None
    while True:
        number = len(tries) + 1
        if number > 1:
            brief = brief.model_copy(update={"feedback": feedback, "attempt": number})
        once = _Try(agent, task, brief, here, policy, mine, check, out_of, end)
        outcome = await once.take()
        tries.append(outcome.attempt)
        if outcome.result is not None:
            return _booked(outcome.result, agent, tries)
        failure = outcome.attempt.failure
        assert failure is not None
        if failure.kind == "unavailable" and number > 1:  # its breaker opened meanwhile
            tries.pop()
            failure = tries[-1].failure or failure
        if number == 1 and policy.task_timeout is not None:
            end = outcome.attempt.started + policy.task_timeout
        lot = random.Random(f"{policy.seed}/{here.step}/{task.id}/{number}").random()
        pause = outcome.pause or backoff(policy, number, lot)
        in_time = end is None or clock.now() + pause < end
        if number >= most or not outcome.again or not in_time:
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
        if not outcome.all_pause:
            await clock.sleep(pause)


def ungated(agent: Agent, policy: Policy) -> bool:
    """Whether an agent has tools that need a gate, and none is around it (see `gated`)."""
    needs: Callable[[Policy], bool] | None = getattr(agent, "needs_gate", None)
    return needs is not None and needs(policy)


def _ungated(agent: Agent, task: Task) -> Result:
    name = agent.card.name
    why = f"{name} has tools with consequences, and nobody can be asked here: use gated({name}, …)"
    failure = Failure(kind="refused", message=why, agent=name)
    return Result(task=task.id, status="failed", agent=name, failure=failure)


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
    all_pause: bool = False
    """Whether all who use the model wait for it to be over, this one with them."""

    def by(self, model: str) -> "_Outcome":
        """The same, with the model that answered."""
        if not model:
            return self
        return replace(self, attempt=self.attempt.model_copy(update={"model": model}))


@dataclass(frozen=True)
class _Try:
    """One attempt of one agent."""

    agent: Agent
    task: Task
    brief: Brief
    here: Here
    policy: Policy
    limit: AbstractAsyncContextManager[object]
    check: Check | None
    out_of: tuple[Envelope, ...]
    """The envelopes it is paid from, outermost first."""
    end: float | None
    """When the time of all tries together is up, as Unix time in seconds."""

    async def take(self) -> _Outcome:
        async with self.here.services.engine.slot(self.agent, self.task.priority), self.limit:
            outcome = await (self._inside() if self.agent.where == "graph" else self._outside())
        self._tell(outcome.attempt)
        return outcome

    async def _inside(self) -> _Outcome:
        """A nested graph: its own agents pay for themselves, out of the envelopes around it too."""
        depth = self.here.place.count("|") + bool(self.here.place) + 1
        if depth > self.policy.max_nesting:
            why = f"graphs are nested deeper than {self.policy.max_nesting} levels"
            return self._failed(self.here.services.clock.now(), Usage(), "refused", why)
        with around(self.here, self.out_of):
            return await self._try(self.here.services.clock.now(), Usage(), None, NO_TURN)

    async def _outside(self) -> _Outcome:
        clock = self.here.services.clock
        way = await admission(self.here, self.agent, self.policy)
        if way == "open":
            why = f"{self.agent.card.name} failed too often lately and is left alone for a while"
            return self._failed(clock.now(), Usage(), "unavailable", why)
        try:
            check_input(self.task, self.brief, self.policy)
            wanted = self.agent.estimate(self.task, self.brief)
        except Invalid as error:
            return self._failed(clock.now(), Usage(), error.kind, said(error))
        except Exception as error:  # noqa: BLE001  an agent's estimate may raise anything
            return self._failed(clock.now(), Usage(), "raised", self._raised(error))
        if getattr(self.agent, "meter", None) is None:
            outcome = await self._paid(wanted, NO_TURN)
        else:
            outcome = await self._metered(wanted)
        if not outcome.all_pause:  # a limit of its model is no sickness of the agent
            await observe(self.here, self.agent, self.policy, outcome.attempt, way)
        return outcome

    async def _metered(self, wanted: Usage) -> _Outcome:
        """Within the limits of its model."""
        clock, priority = self.here.services.clock, self.task.priority
        async with turn(
            self.agent, self.policy, clock, tokens=wanted.tokens, priority=priority
        ) as mine:
            outcome = await self._paid(wanted, mine)
            mine.used(outcome.attempt.usage.tokens)
        return outcome

    async def _paid(self, wanted: Usage, mine: Turn) -> _Outcome:
        here, out_of = self.here, self.out_of
        key = f"{self.brief.key}/{self.brief.attempt}/{_PROCESS}-{os.getpid()}-{next(_numbers)}"
        priority = self.task.priority
        room = await reserve(here, key, wanted, out_of, policy=self.policy, priority=priority)
        started = here.services.clock.now()
        if room.fit != "fits":
            return self._over(started, wanted, room)
        usage = wanted  # what it used if nobody can tell: all of it
        try:
            outcome = await self._try(started, wanted, self._seconds(started, room), mine)
            usage = outcome.attempt.usage
        except GraphBubbleUp:
            usage = Usage()  # it will be entered again, and then pays
            raise
        except Unsure as error:
            usage = Usage(calls=1)
            outcome = _Outcome(self._attempt(started, usage), self._doubtful(error.effect))
        finally:
            await settle(here, key, usage, out_of)
            self._tell_overrun(wanted, usage, started)
        return outcome

    def _seconds(self, now: float, room: Room) -> float:
        """How long the try may take."""
        most = [self.policy.timeout]
        if room.seconds is not None:
            most.append(room.seconds)
        if self.end is not None:
            most.append(max(0.0, self.end - now))
        elif self.policy.task_timeout is not None:
            most.append(self.policy.task_timeout)
        return min(most)

    async def _try(
        self, started: float, wanted: Usage, seconds: float | None, mine: Turn
    ) -> _Outcome:
        spent, model = _NOTHING if self.agent.where == "graph" else _ONE, ""
        try:
            raw = await self._act(seconds)
            if isinstance(raw, Result):
                spent = Usage() if self.agent.where == "graph" else _counted(raw.usage)
                return _Outcome(self._attempt(started, spent), self._taken(raw))
            reply = reply_of(raw)
            spent, model = _counted(reply.usage), reply.model
            output = self._valid(reply)
        except (GraphBubbleUp, Unsure):
            raise
        except Unusable as error:
            used, why = _counted(error.usage), said(error)
            return self._failed(started, used, "invalid", why, again=True).by(error.model)
        except Invalid as error:
            again = error.kind == "invalid"
            return self._failed(started, spent, error.kind, said(error), again=again).by(model)
        except OutOfTime:
            why = f"{self.agent.card.name} gave no answer within {seconds:g} s"
            return self._failed(started, wanted, "timeout", why, again=True)  # it may have used all
        except Exception as error:  # noqa: BLE001  the one door: whatever an agent raises
            told = getattr(error, "usage", None)
            spent = _counted(told) if isinstance(told, Usage) else spent
            outcome = self._after(error, started, spent, mine)
            return outcome.by(str(getattr(error, "model", "") or ""))
        return _Outcome(self._attempt(started, spent), self._result(reply, output)).by(model)

    def _after(self, error: Exception, started: float, spent: Usage, mine: Turn) -> _Outcome:
        """What comes of an error: whether another try can help, and who waits how long for it."""
        again = worth_retrying(error)
        outcome = self._failed(started, spent, "raised", self._raised(error), again=again)
        asked = retry_after(error, self.here.services.clock.now())
        if not at_limit(error):
            return replace(outcome, pause=asked)
        number = self.brief.attempt
        lot = random.Random(f"{self.policy.seed}/{self.brief.key}/{number}/429").random()
        pause = asked or backoff(self.policy, number, lot)
        shared = mine.slow_down(pause, asked=bool(asked))
        return replace(outcome, pause=pause, all_pause=shared)

    async def _act(self, seconds: float | None) -> object:
        now = Doing.of(self.here, self.task.id, self.agent.card.name, self.check)
        mine = doing.set(now)
        try:
            made = await self._performed(seconds)
        except Exception as error:
            if now.unsure and not isinstance(error, Unsure):  # whatever the agent made of it
                raise Unsure(now.unsure[0]) from error
            raise
        finally:
            doing.reset(mine)
        if now.unsure:
            raise Unsure(now.unsure[0])
        return made

    async def _performed(self, seconds: float | None) -> object:
        work = contained(self.here.services.engine.perform(self.agent, self.task, self.brief))
        if seconds is None:  # a nested graph's agents have limits; a person may take their time
            return await work
        waits = Patience(self._tell_late)
        token = patience.set(waits)
        try:
            return await within(seconds, work, waits)
        finally:
            patience.reset(token)

    def _taken(self, made: Result) -> Result:
        """A result as it came from an agent that makes its own, like a nested graph."""
        stamp = {"task": self.task.id, "agent": self.agent.card.name}
        if made.status == "waiting" and made.escalation is None:
            raise Invalid("it waits for a person and does not say what for")
        reply = Reply(output=made.output, claims=made.claims, messages=made.messages)
        if made.status in ("done", "partial"):
            output = self._valid(reply)
            return made.model_copy(update={**stamp, **self._said(reply), "output": output})
        return made.model_copy(update={**stamp, **self._said(reply)})

    def _valid(self, reply: Reply) -> JsonValue:
        output = plain(reply.output, self.policy)
        if reply.claims or reply.messages or reply.escalation:
            plain((reply.claims, reply.messages, reply.escalation), self.policy)
        schema = self.agent.card.output
        if schema is not None and reply.escalation is None:
            output = conform(output, schema)
        flaws = self.check(output) if self.check and reply.escalation is None else []
        if flaws:
            raise Invalid("; ".join(flaws))
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
            **self._said(reply),
            escalation=reply.escalation
            and reply.escalation.model_copy(update={"about": "task", **stamp}),
        )

    def _said(self, reply: Reply) -> dict[str, Any]:
        """What it claims and writes, with who says so: whatever it says of that itself."""
        name, version = self.agent.card.name, self.brief.context.version
        stamp = {"task": self.task.id, "by": name, "version": version}
        return {
            "claims": tuple(claim.model_copy(update=stamp) for claim in reply.claims),
            "messages": stamped(reply.messages, name, self.task.id),
            "heard": tuple(message.id for message in self.brief.messages),
            "version": version,
        }

    def _doubtful(self, met: Effect) -> Result:
        """What waits until a person says whether an effect happened."""
        name = self.agent.card.name
        ask = doubt(met).model_copy(update={"task": self.task.id, "by": name})
        output = plain(ask.evidence, self.policy)
        return Result(
            task=self.task.id, status="waiting", output=output, agent=name, escalation=ask
        )

    def _over(self, started: float, wanted: Usage, room: Room) -> _Outcome:
        name = self.agent.card.name
        if room.fit == "unpriced":
            why = (
                f"{name} is refused: money is limited and nobody knows what it costs; give its "
                "price, like ModelAgent(…, price=Price(input=0.5, output=2.0)), or lift the limit"
            )
        else:
            why = f"the budget leaves no room for another call of {name} ({room.why})"
        outcome = self._failed(started, Usage(), "budget", why)
        failure = outcome.attempt.failure
        assert failure is not None
        lacking = failure.model_copy(update={"wanted": wanted, "accounts": room.accounts})
        return replace(outcome, attempt=outcome.attempt.model_copy(update={"failure": lacking}))

    def _raised(self, error: Exception) -> str:
        return f"{self.agent.card.name} raised {type(error).__name__}: {said(error)}"

    def _failed(
        self, started: float, usage: Usage, kind: FailureKind, why: str, *, again: bool = False
    ) -> _Outcome:
        failure = Failure(kind=kind, message=legible(why), agent=self.agent.card.name)
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
            data={
                "number": attempt.number,
                "seconds": round(attempt.seconds, 6),
                **({"model": attempt.model} if attempt.model else {}),
            },
            mark=f"{attempt.number}@{attempt.started:.3f}",
        )
        if attempt.usage.tokens:
            self._tell_spend("settled", attempt.usage, at=attempt.started)

    def _tell_overrun(self, reserved: Usage, used: Usage, at: float) -> None:
        tokens, _, money = used.beyond(reserved)
        if reserved.tokens and (tokens or money):
            why = f"it used {tokens} tokens and {money} µ$ more than were reserved"
            over = Usage(output_tokens=tokens, micro_usd=money)
            self._tell_spend("overrun", over, why, at)

    def _tell_late(self) -> None:
        with suppress(DatabaseFailed):  # so late that nobody counts any more
            self.here.tell(
                "attempt",
                "late",
                task=self.task.id,
                agent=self.agent.card.name,
                why="it answered when nobody waited for it any more; the answer is ignored",
                mark=self.brief.attempt,
            )

    def _tell_spend(self, what: str, usage: Usage, why: str = "", at: float = 0) -> None:
        self.here.tell(
            "spend",
            what,
            task=self.task.id,
            agent=self.agent.card.name,
            usage=usage,
            why=why,
            mark=f"{self.brief.attempt}@{at:.3f}",
        )


def _counted(usage: Usage) -> Usage:
    if usage is _UNTOLD:
        return _ONE
    return usage if usage.calls else usage.model_copy(update={"calls": 1})
