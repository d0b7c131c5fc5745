"""A sick agent costs 29 calls in an outage, not 2,000; a mutant that never opens costs them all."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.drills import VirtualClock
from kapelle.nodes.agent import agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here
from kapelle.nodes.in_memory import in_memory
from kapelle.state.breaker import Admission, Breaker, admits, newer, observed, probing
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Task

RATE, OUTAGE = 10, 200
"""Calls a second; seconds."""

POLICY = Policy(breaker_window=20, breaker_share=0.5, breaker_probe=10)

Admit = Callable[[Breaker, float], Admission]


def wasted(admit: Admit) -> tuple[int, float]:
    """Calls that a sick agent got in an outage; seconds after it until it works again.

    N is fixed (one outage, 10 calls a second, 20 good calls before); nothing is drawn.
    """
    clock = VirtualClock()
    lost, well_again = 0, -1.0

    async def main() -> None:
        nonlocal lost, well_again
        breaker = Breaker(recent=(True,) * 20)
        for n in range(RATE * (OUTAGE + 60)):
            now = n / RATE
            await clock.sleep(now - clock.now())
            way = admit(breaker, now)
            if way == "open":
                continue
            if way == "probe":
                breaker = probing(breaker, now)
            good = now >= OUTAGE
            lost += not good
            if good and well_again < 0:
                well_again = now - OUTAGE
            breaker = observed(breaker, now, POLICY, good=good, probe=way == "probe")

    clock.run(main())
    return lost, well_again


def test_an_outage_costs_29_calls_and_is_over_within_one_probe() -> None:
    lost, well_again = wasted(partial(admits, policy=POLICY))
    assert lost == 10 + 19, "half a window, and a probe every 10 s"
    assert 0 <= well_again <= 10


def never_opens(breaker: Breaker, now: float) -> Admission:
    """A breaker that looks and does nothing."""
    return "closed"


def never_probes(breaker: Breaker, now: float) -> Admission:
    """A breaker that never closes again."""
    return "open" if breaker.open else "closed"


@pytest.mark.parametrize(("mutant", "costs"), [(never_opens, 2_000), (never_probes, 10)])
def test_mutants_are_told_from_it(mutant: Admit, costs: int) -> None:
    lost, well_again = wasted(mutant)
    assert lost == costs
    assert lost != 29 or well_again < 0


def test_an_agent_that_fails_one_call_in_five_is_left_alone_in_3_windows_of_1000() -> None:
    chance = sum(comb(20, k) * 0.2**k * 0.8 ** (20 - k) for k in range(10, 21))
    assert round(chance, 4) == 0.0026


@given(st.lists(st.booleans(), max_size=60))
def test_it_opens_exactly_when_half_of_the_last_twenty_failed(outcomes: list[bool]) -> None:
    breaker = Breaker()
    for n, good in enumerate(outcomes):
        was_open = breaker.open
        breaker = observed(breaker, float(n), POLICY, good=good)
        failed = outcomes[max(0, n - 19) : n + 1].count(False)
        assert breaker.open == (was_open or failed >= 10)


@given(st.floats(0, 100), st.floats(0, 100))
def test_while_it_is_open_there_is_one_probe_at_a_time(opened: float, later: float) -> None:
    breaker = Breaker(open=True, since=opened)
    now = opened + later
    way = admits(breaker, now, POLICY)
    assert (way == "probe") == (now >= opened + 10)
    if way == "probe":
        assert admits(probing(breaker, now), now + 9.9, POLICY) == "open"


def test_the_later_change_counts_whoever_saw_it() -> None:
    mine, theirs = Breaker(recent=(True,), since=1), Breaker(open=True, since=2, probed=3)
    assert newer(mine, theirs) == theirs
    assert newer(theirs, mine) == theirs
    assert newer(Breaker(open=True, since=2), theirs).probed == 3


def test_without_a_window_there_is_no_breaker() -> None:
    breaker = Breaker()
    for n in range(50):
        breaker = observed(breaker, n, Policy(breaker_window=0), good=False)
    assert not breaker.open


def test_an_outage_costs_as_much_where_agents_are_really_called() -> None:
    clock, lost = VirtualClock(), 0
    services = replace(in_memory(), clock=clock)
    here = Here(services=services, thread="t", place="", step="s", write=lambda _: None)

    @agent
    async def provider(task: Task) -> str:
        nonlocal lost
        if 2 <= clock.now() < 2 + OUTAGE:
            lost += 1
            raise ConnectionError("down")
        return "up"

    async def main() -> list[Result]:
        results = []
        for n in range(RATE * (OUTAGE + 60)):
            await clock.sleep(max(0.0, n / RATE - clock.now()))
            task = Task(id=f"t{n}", goal="x")
            policy = POLICY.model_copy(update={"attempts": 1})
            results.append(await call(provider, task, Brief(), here=here, policy=policy))
        return results

    results = clock.run(main())
    assert lost == 29
    kinds = Counter(r.failure.kind for r in results if r.failure)
    assert kinds["raised"] == 29
    assert kinds["unavailable"] >= RATE * (OUTAGE - 10), "refused at once, and nobody was asked"
    assert [r.status for r in results[-40 * RATE :]] == ["done"] * 40 * RATE
