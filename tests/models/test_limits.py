"""Budgets, retries and limits with a real client over real HTTP, and all that can go wrong."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kapelle import ModelAgent
from kapelle.drills import Cut, Garbage, LoopbackModel, NoUsage, RateLimited, ServerError, Slow
from kapelle.nodes.call import call
from kapelle.nodes.here import Here
from kapelle.nodes.in_memory import SystemClock, in_memory
from kapelle.state.budget import Budget, Usage
from kapelle.state.event import Event
from kapelle.state.policy import Policy
from kapelle.state.price import Price
from kapelle.state.rate import Limits
from kapelle.state.task import Brief, Result, Task

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=0.01, attempts=3, timeout=60)
PRICE = Price(input=1, output=2)


class At:
    """A node of a run on a clock of its own, so that no other test's limits are shared."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.services = replace(in_memory(), clock=SystemClock())
        self.here = Here(
            services=self.services, thread="t", place="", step="s", write=self.told.append
        )

    async def call(self, agent: ModelAgent, policy: Policy, id: str = "a") -> Result:
        """Have it write a report."""
        task = Task(id=id, goal="Write the report")
        return await call(agent, task, Brief(), here=self.here, policy=policy)


def writer(server: LoopbackModel, **more: Any) -> ModelAgent:
    """A model that writes at most 100 tokens."""
    settings = more.pop("settings", {})
    return ModelAgent("writer", server.model(**settings), max_tokens=100, **more)


@pytest.mark.parametrize(
    "trouble",
    [RateLimited(0.05), ServerError(500), Cut("half"), Garbage()],
    ids=lambda trouble: type(trouble).__name__,
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_what_can_help_is_tried_again_and_nothing_else_tries(
    scripted: Callable, trouble: object, *, streaming: bool
) -> None:
    server = scripted([trouble, trouble, "the report"])
    at = At()
    agent = writer(server, settings={"streaming": streaming})
    result = await at.call(agent, QUICK.model_copy(update={"budget": Budget(calls=3)}))
    assert (result.status, result.output, len(server.requests)) == ("done", "the report", 3)
    assert len(result.attempts) == 3, "the client does not try by itself"
    assert (await at.services.ledger.balance("t")).held_tokens == 0


async def test_a_slow_answer_times_out_and_counts_in_full(scripted: Callable) -> None:
    server, at = scripted([Slow(), *["the report"] * 9]), At()
    policy = QUICK.model_copy(update={"timeout": 0.3, "attempts": 9})
    result = await at.call(writer(server), policy)
    *late, last = [a.failure and a.failure.kind for a in result.attempts]
    assert (set(late), last) == ({"timeout"}, None)
    assert result.attempts[0].usage.output_tokens == 100, "it may have used all it might"


@pytest.mark.parametrize("streaming", [False, True])
async def test_without_a_count_of_tokens_they_are_estimated_never_nothing(
    scripted: Callable, *, streaming: bool
) -> None:
    server, at = scripted(lambda _: NoUsage("a report of several words")), At()
    agent = writer(server, price=PRICE, settings={"streaming": streaming})
    result = await at.call(agent, QUICK)
    assert result.usage.tokens > 20
    assert result.usage.micro_usd == PRICE.of(result.usage.input_tokens, result.usage.output_tokens)
    assert (await at.services.ledger.spent("t")) == result.usage


async def test_money_is_limited(scripted: Callable) -> None:
    server, at = scripted(lambda _: "the report"), At()
    agent = writer(server, price=PRICE)
    most = agent.estimate(Task(goal="Write the report"), Brief()).micro_usd
    assert most is not None
    policy = QUICK.model_copy(update={"budget": Budget(usd=(most + 5) / 1e6)})
    results = [await at.call(agent, policy, str(n)) for n in range(9)]
    spent = (await at.services.ledger.spent("t")).micro_usd
    assert results[0].status == "done"
    assert results[-1].failure is not None
    assert results[-1].failure.kind == "budget"
    assert spent is not None
    assert spent <= most + 5


async def test_a_model_without_a_price_is_refused_where_money_is_limited(
    scripted: Callable,
) -> None:
    server, at = scripted(lambda _: "the report"), At()
    result = await at.call(writer(server), QUICK.model_copy(update={"budget": Budget(usd=9)}))
    assert result.failure is not None
    assert "writer is refused: money is limited and nobody knows what it costs" in (
        result.failure.message
    )
    assert server.requests == []
    known = writer(server, settings={"model": "gpt-4o"})
    priced = await at.call(known, QUICK.model_copy(update={"budget": Budget(usd=9)}))
    assert priced.usage.micro_usd, "genai-prices knows it"
    unlimited = await At().call(writer(server), QUICK)
    assert unlimited.usage.micro_usd is None, "unpriced, not free"


async def test_a_provider_that_ignores_the_limit_is_booked_told_and_stops_the_next(
    scripted: Callable,
) -> None:
    server, at = scripted(lambda _: "word " * 5_000), At()
    policy = QUICK.model_copy(update={"budget": Budget(tokens=1_500), "max_bytes": 10**6})
    first, second = [await at.call(writer(server), policy, id) for id in ("a", "b")]
    assert (first.status, second.status, len(server.requests)) == ("done", "failed", 1)
    assert (await at.services.ledger.balance("t")).over_tokens > 3_000
    (overrun,) = [e for e in at.told if (e.kind, e.what) == ("spend", "overrun")]
    assert "more than were reserved" in overrun.why


async def test_a_429_pauses_all_agents_of_the_model(scripted: Callable) -> None:
    server = scripted([RateLimited(0.5), *["the report"] * 9])
    at, began = At(), time.monotonic()
    policy = QUICK.model_copy(update={"models": {"openai:loopback": Limits(parallel=1)}})
    agents = [writer(server), writer(server)]
    results = await asyncio.gather(*(at.call(a, policy, str(n)) for n, a in enumerate(agents * 2)))
    assert {r.status for r in results} == {"done"}
    assert sum(len(r.attempts) for r in results) == 5, "one of them was refused, once"
    assert time.monotonic() - began >= 0.5


async def test_the_limit_of_an_answer_goes_to_the_model(scripted: Callable) -> None:
    server = scripted(["the report"])
    result = await At().call(writer(server), QUICK)
    body = server.requests[0].body
    assert body.get("max_completion_tokens", body.get("max_tokens")) == 100
    assert result.usage == Usage(**result.usage.model_dump())
