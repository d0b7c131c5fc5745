"""The board: who waits for whom within one step."""

import asyncio

import pytest

from kapelle.nodes.board import PARKED, Board
from kapelle.nodes.turns import Turns
from kapelle.state.task import Result

pytestmark = pytest.mark.anyio

DONE = Result(task="a", status="done", output=1)
LATER = Result(task="a", status="done", output=2, revision=2)


async def test_who_waits_is_told_when_it_is_done() -> None:
    board = Board((), Turns(1))
    waiting = [asyncio.ensure_future(board.outcome("a")) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    board.post("a", DONE)
    assert await asyncio.gather(*waiting) == [DONE] * 3


async def test_what_the_step_had_finished_before_is_there_at_once() -> None:
    assert await Board([("n", "results", {"a": DONE})], Turns(1)).outcome("a") == DONE


async def test_who_waits_for_a_person_is_told_to_park() -> None:
    board = Board((), Turns(1))
    board.post("a", PARKED)
    assert await board.outcome("a") is PARKED


async def test_the_newer_post_counts() -> None:
    board = Board((), Turns(1))
    board.post("a", PARKED)
    board.post("a", DONE)
    board.post("a", LATER)
    assert await board.outcome("a") == LATER


async def test_one_who_stops_waiting_takes_it_from_nobody_else() -> None:
    board = Board((), Turns(1))
    first = asyncio.ensure_future(board.outcome("a"))
    second = asyncio.ensure_future(board.outcome("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    board.post("a", DONE)
    assert await second == DONE
