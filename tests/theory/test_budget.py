"""Budgets, retries and limits against closed forms, on a virtual clock; each with a mutant."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kapelle.drills import VirtualClock
from kapelle.nodes.agent import Where, agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here
from kapelle.nodes.in_memory import MemoryLedger, in_memory
from kapelle.nodes.services import Ledger
from kapelle.nodes.turns import Turns
from kapelle.state.budget import Budget, Envelope, Room, Usage, fit
from kapelle.state.policy import Policy
from kapelle.state.rate import Limits
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Reply, Result, Task


class CheckThenCharge(MemoryLedger):
    """The mutant: looks before the call at what was settled, and books after it."""

    async def reserve(
        self,
        book: str,
        key: str,
        wanted: Usage,
        envelopes: Sequence[Envelope],
        worked: object = None,
    ) -> Room:
        """Hold nothing against the limit."""
        balance = await self.balance(book)
        balance.held_calls = balance.held_tokens = balance.held_usd = 0
        said = Room(fit(envelopes[0].budget, balance, wanted))
        if said.fit == "fits":
            await super().reserve(book, key, wanted, [Envelope("", Budget())])
        return said


class Drawn:
    """Reserves what its task says, uses what its task says, in some seconds."""

    where: Where = "loop"
    card = AgentCard(name="drawn")

    def __init__(self, model: str | None = None) -> None:
        self.meter = model
        self.began: list[tuple[float, str]] = []

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """What the task says."""
        return Usage(output_tokens=int(str(task.inputs.get("most", 0))), calls=1)

    async def act(self, task: Task, brief: Brief) -> object:
        """Take the seconds."""
        self.began.append((asyncio.get_running_loop().time(), task.id))
        await asyncio.sleep(float(str(task.inputs.get("seconds", 1))))
        return Reply(output=1, usage=Usage(output_tokens=int(str(task.inputs.get("uses", 0)))))


def conduct(
    tasks: Sequence[Task],
    policy: Policy,
    worker: Drawn | None = None,
    *,
    at_once: int = 10_000,
    ledger: Ledger | None = None,
) -> tuple[list[Result], float, Usage]:
    """All of them by one agent: results, seconds passed, what the book says."""  # fmt: skip
    clock = VirtualClock()
    services = replace(in_memory(), clock=clock, ledger=ledger or MemoryLedger())
    here = Here(services=services, thread=uuid4().hex, place="", step="s", write=lambda _: None)
    act = worker or Drawn()

    async def main() -> tuple[list[Result], Usage]:
        limit = Turns(at_once)
        work = (call(act, t, Brief(), here=here, policy=policy, limit=limit) for t in tasks)
        return await asyncio.gather(*work), await services.ledger.spent(here.thread)

    results, spent = clock.run(main())
    return results, clock.passed, spent


def many(number: int, **inputs: int) -> list[Task]:
    return [Task(id=f"t{n}", goal="x", inputs=dict(inputs)) for n in range(number)]


def done(results: Sequence[Result]) -> int:
    return sum(result.status == "done" for result in results)


# ── a limit is a limit ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at_once", [1, 16, 100])
@pytest.mark.parametrize("cap", [0, 1, 37, 100])
def test_of_a_hundred_agents_as_many_run_as_the_cap_allows(at_once: int, cap: int) -> None:
    results, _, spent = conduct(many(100), Policy(budget=Budget(calls=cap)), at_once=at_once)
    assert done(results) == spent.calls == cap
    assert {r.failure.kind for r in results if r.failure} <= {"budget"}


def test_a_ledger_that_checks_and_then_charges_overspends() -> None:
    policy = Policy(budget=Budget(calls=37))
    results, _, _ = conduct(many(100), policy, at_once=100, ledger=CheckThenCharge())
    assert done(results) == 100


def test_what_running_calls_leave_is_used() -> None:
    """Reserving 100 and using 10 of 1,000, all 91 fit one after the other that can."""
    policy = Policy(budget=Budget(tokens=1000))
    results, _, spent = conduct(many(200, most=100, uses=10), policy)
    assert done(results) == 91
    assert spent.tokens == 910, "the last one needs room for 100, and uses 10"


@pytest.mark.parametrize("seed", range(5))
def test_with_unbounded_demand_nearly_all_is_spent(seed: int) -> None:
    """At least 1 - r_max/cap of the budget: 400 calls of up to 1,000 tokens, cap 20,000."""
    lot = random.Random(seed)
    tasks = []
    for n in range(400):
        most = lot.randint(200, 1000)
        inputs: dict[str, Any] = {
            "most": most,
            "uses": lot.randint(100, most),
            "seconds": lot.randint(1, 9),
        }
        tasks.append(Task(id=f"t{n}", goal="x", inputs=inputs))
    _, _, spent = conduct(tasks, Policy(budget=Budget(tokens=20_000)))
    assert 1 - 1000 / 20_000 <= spent.tokens / 20_000 <= 1


def test_an_overrun_is_booked_and_stops_who_comes_next() -> None:
    policy = Policy(budget=Budget(tokens=300))
    results, _, spent = conduct(many(10, most=100, uses=250), policy)
    assert (done(results), spent.tokens) == (3, 750)


# ── who waits ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at_once", [10_000, 4], ids=["all there", "one by one"])
def test_small_ones_do_not_starve_a_large_one(at_once: int) -> None:
    small = [
        Task(id=f"s{n}", goal="x", inputs={"most": 30, "seconds": n % 7 + 1}) for n in range(60)
    ]
    large = Task(id="large", goal="x", inputs={"most": 100, "seconds": 1})
    worker = Drawn()
    tasks = [*small[:3], large, *small[3:]]
    conduct(tasks, Policy(budget=Budget(tokens=100)), worker, at_once=at_once)
    order = [name for _, name in worker.began]
    assert order.index("large") == 3, "nobody who came later went before it"
    assert len(order) == 61


def test_who_waits_goes_as_soon_as_there_is_room() -> None:
    worker = Drawn()
    conduct(many(3, most=100, seconds=10), Policy(budget=Budget(tokens=100)), worker)
    assert [at for at, _ in worker.began] == [0, 10, 20]


def test_the_more_urgent_waits_less() -> None:
    tasks = [t.model_copy(update={"priority": n}) for n, t in enumerate(many(5, most=100))]
    worker = Drawn()
    conduct(tasks, Policy(budget=Budget(tokens=100)), worker)
    assert [name for _, name in worker.began] == ["t0", "t4", "t3", "t2", "t1"]


def test_waiting_for_room_has_a_deadline() -> None:
    policy = Policy(budget=Budget(calls=1), budget_wait=5, timeout=100)
    results, passed, _ = conduct(many(3, seconds=60), policy)
    assert (done(results), passed) == (1, 60)
    assert [r.attempts[0].started for r in results] == [0, 5, 5]


def test_seconds_of_work_are_limited_and_idle_ones_are_not_counted() -> None:
    policy = Policy(budget=Budget(seconds=10), attempts=1)
    results, passed, _ = conduct(many(5, seconds=4), policy, at_once=1)
    assert [r.failure and r.failure.kind for r in results] == [
        None,
        None,
        "timeout",
        "budget",
        "budget",
    ]
    assert passed == 10


# ── retries ───────────────────────────────────────────────────────────────────────────────────


def success(attempts: int, number: int = 20_000, fails: float = 0.2) -> tuple[float, float]:
    """Share of calls that succeed, and tries a call, of an agent that fails with a chance."""
    lot = random.Random(7)

    @agent
    async def flaky(task: Task) -> int:
        if lot.random() < fails:
            raise ConnectionError
        return 1

    policy, place = Policy(attempts=attempts, backoff=0, breaker_window=0), in_memory()
    here = Here(services=place, thread="t", place="", step="s", write=lambda _: None)

    async def main() -> list[Result]:
        return [await call(flaky, t, Brief(), here=here, policy=policy) for t in many(number)]

    results = asyncio.run(main())
    return done(results) / number, sum(len(r.attempts) for r in results) / number


def test_with_two_retries_nearly_all_succeed_at_a_quarter_more_tries() -> None:
    """1 - q^3 = .992 and 1 + q + q^2 = 1.24; N = 4,000, 4 standard errors."""
    share, tries = success(attempts=3, number=4_000)
    assert share == pytest.approx(0.992, abs=4 * (0.992 * 0.008 / 4_000) ** 0.5)
    assert tries == pytest.approx(1.24, abs=4 * 0.5 / 4_000**0.5)


def test_with_one_retry_fewer_do() -> None:
    share, _ = success(attempts=2, number=4_000)
    assert share < 0.992 - 4 * (0.992 * 0.008 / 4_000) ** 0.5


# ── limits of a model ─────────────────────────────────────────────────────────────────────────


def in_any_minute(began: Sequence[tuple[float, str]]) -> int:
    """The most that began within 60 seconds."""
    times = sorted(at for at, _ in began)
    return max(sum(at <= t < at + 60 for t in times) for at in times)


def test_requests_a_minute_are_shared_by_all_agents_of_a_model() -> None:
    policy = Policy(models={"m": Limits(requests=10)})
    worker = Drawn("m")
    _, passed, _ = conduct(many(35), policy, worker)
    assert in_any_minute(worker.began) == 10
    assert passed == pytest.approx(181, abs=1)
    unlimited = Drawn("m")
    conduct(many(35), Policy(), unlimited)
    assert in_any_minute(unlimited.began) == 35, "the mutant: no limit"


def test_tokens_a_minute_are_what_was_really_used() -> None:
    policy = Policy(models={"*": Limits(tokens=1000)})
    worker = Drawn("m")
    conduct(many(40, most=200, uses=100), policy, worker)
    assert 9 <= in_any_minute(worker.began) <= 10


def test_so_many_work_at_once() -> None:
    worker = Drawn("m")
    _, passed, _ = conduct(many(20), Policy(models={"m": Limits(parallel=4)}), worker)
    assert passed == pytest.approx(5, abs=0.3)


class Busy(Drawn):
    """A provider that says 429 with Retry-After until a moment."""

    def __init__(self, until: float) -> None:
        super().__init__("m")
        self.until = until

    async def act(self, task: Task, brief: Brief) -> object:
        """Refuse until then."""
        now = asyncio.get_running_loop().time()
        self.began.append((now, task.id))
        await asyncio.sleep(0.1)
        if now < self.until:
            raise TooManyError
        return 1


class TooManyError(Exception):
    """As HTTP clients raise it."""

    status_code = 429
    response = type("Response", (), {"headers": {"retry-after": "20"}})


def test_a_429_slows_everyone_down_once() -> None:
    worker = Busy(until=1)
    late = [Task(id="late", goal="x")]
    results, passed, _ = conduct([*many(50), *late], Policy(), worker, at_once=25)
    assert done(results) == 51
    starts = sorted({at for at, _ in worker.began})
    assert starts[0] == 0
    assert min(at for at in starts if at > 0) == pytest.approx(20.1, abs=0.01), "all of them pause"
    assert len(worker.began) == 51 + 25, "only those that were at work tried again"
    assert passed < 25
