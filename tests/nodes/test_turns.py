"""Turns: so many at once; whoever waits goes by urgency, then by arrival."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.nodes.turns import Turns


async def served(most: int, priorities: list[int]) -> list[int]:
    """In what order those who arrive one after the other get their turns."""
    turns, order = Turns(most), []
    now = 0

    async def come(n: int) -> None:
        nonlocal now
        async with turns.at(priorities[n]):
            now += 1
            assert now <= most
            order.append(n)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(come(n) for n in range(len(priorities))))
    return order


@given(st.integers(1, 3), st.lists(st.integers(-2, 2), max_size=12))
def test_the_most_urgent_of_those_who_wait_goes_first(most: int, priorities: list[int]) -> None:
    order = asyncio.run(served(most, priorities))
    waiting = range(most, len(priorities))
    assert order[:most] == list(range(min(most, len(priorities))))
    assert order[most:] == sorted(waiting, key=lambda n: (-priorities[n], n))


@pytest.mark.anyio
async def test_who_is_cancelled_while_waiting_or_when_called_leaves_the_turn_to_the_next() -> None:
    turns = Turns(1)
    await turns.take(0)
    gone, called, last = (asyncio.ensure_future(turns.take(n)) for n in (3, 2, 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    turns.give()
    called.cancel()
    await asyncio.wait_for(last, 5)
    turns.give()
    await asyncio.wait_for(turns.take(0), 5)
