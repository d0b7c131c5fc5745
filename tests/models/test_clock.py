"""On a virtual clock hours pass in no time, and in order."""

import asyncio
import time
from collections.abc import Callable, Coroutine

import anyio
import anyio.to_thread
import pytest

from kapelle.drills import LoopbackModel, VirtualClock
from kapelle.nodes.services import Clock

HOUR = 3600.0


def test_an_hour_takes_no_real_time() -> None:
    clock, began = VirtualClock(), time.monotonic()
    clock.run(asyncio.sleep(HOUR))
    assert clock.now() == HOUR
    assert time.monotonic() - began < 5


def test_it_is_a_clock_as_services_want_it() -> None:
    clock = VirtualClock(start=1_000_000_000.0)
    port: Clock = clock
    clock.run(port.sleep(HOUR))
    assert port.now() == 1_000_000_000.0 + HOUR


def test_order_is_kept() -> None:
    woke: list[tuple[str, float]] = []
    clock = VirtualClock()

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await asyncio.sleep(nap)
            woke.append((name, clock.now()))

    async def main() -> None:
        await asyncio.gather(sleeper("a", 30, 40), sleeper("b", 10, 50), sleeper("c", 40))

    clock.run(main())
    assert woke == [("b", 10), ("a", 30), ("c", 40), ("b", 60), ("a", 70)]


async def two_hours_by_asyncio() -> None:
    async with asyncio.timeout(HOUR):
        await asyncio.sleep(2 * HOUR)


async def two_hours_by_anyio() -> None:
    with anyio.fail_after(HOUR):
        await anyio.sleep(2 * HOUR)


@pytest.mark.parametrize("work", [two_hours_by_asyncio, two_hours_by_anyio])
def test_timeouts_end_at_their_time(work: Callable[[], Coroutine[None, None, None]]) -> None:
    clock = VirtualClock()
    with pytest.raises(TimeoutError):
        clock.run(work())
    assert clock.now() == HOUR


@pytest.mark.parametrize("to_thread", [asyncio.to_thread, anyio.to_thread.run_sync])
def test_time_does_not_jump_while_a_thread_works(to_thread: type) -> None:
    clock = VirtualClock()

    async def main() -> object:
        async with asyncio.timeout(HOUR):
            return await to_thread(lambda: sum(range(300_000)))

    assert clock.run(main()) == sum(range(300_000))
    assert clock.now() < HOUR


def test_time_does_not_jump_while_a_socket_is_open() -> None:
    clock = VirtualClock()

    async def main(model: object) -> str:
        async with asyncio.timeout(HOUR):
            return (await model.ainvoke("x")).text  # type: ignore[attr-defined]

    with LoopbackModel(["hello"]) as server:
        assert clock.run(main(server.model())) == "hello"
    assert clock.now() < HOUR


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    clock = VirtualClock()
    clock.run(asyncio.sleep(HOUR))
    clock.run(asyncio.sleep(HOUR))
    assert clock.now() == 2 * HOUR


def test_ten_thousand_timers_are_no_matter() -> None:
    clock = VirtualClock()

    async def main() -> None:
        await asyncio.gather(*(asyncio.sleep(i) for i in range(10_000)))

    clock.run(main())
    assert clock.now() == 9_999
