"""Sync callers come in by one door, inside a running loop as well."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from kapelle.nodes import door


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


async def upto(n: int, closed: list[str]) -> AsyncIterator[int]:
    try:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    finally:
        closed.append("closed")


def test_sync_code_can_wait() -> None:
    assert door.wait(double(2)) == 4


def test_sync_code_inside_a_running_loop_can_wait() -> None:
    async def cell() -> int:
        return door.wait(double(3))

    assert asyncio.run(cell()) == 6


def test_an_error_comes_through() -> None:
    async def fails() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        door.wait(fails())


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Its interrupts arrive, also where a shell that began this in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
@pytest.mark.usefixtures("keyboard")
def test_an_interrupt_from_the_keyboard_goes_on_when_the_work_has_come_to_its_end() -> None:
    done: list[str] = []

    async def interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            done.append("let go")

    with pytest.raises(KeyboardInterrupt):
        door.wait(interrupted())
    assert done == ["let go"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
@pytest.mark.usefixtures("keyboard")
def test_an_interrupt_that_wakes_nobody_is_seen_all_the_same() -> None:
    """As one that comes when who waits is about to fall asleep: it is noted, and that is all."""

    async def interrupted() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        door.wait(interrupted())


def test_a_call_from_within_the_door_s_own_loop_is_refused_instead_of_waiting_for_itself() -> None:
    async def inside() -> int:
        return door.wait(double(1))

    with pytest.raises(RuntimeError, match="would wait for itself; await it"):
        door.wait(inside())


def test_many_threads_share_the_loop() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(door.wait(double(n)))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_an_async_iterator_can_be_iterated() -> None:
    closed: list[str] = []
    assert list(door.each(upto(3, closed))) == [0, 1, 2]
    assert closed == ["closed"]


def test_an_iterator_left_early_is_closed() -> None:
    closed: list[str] = []
    items = door.each(upto(3, closed))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]


def test_an_iterator_can_be_iterated_inside_a_running_loop() -> None:
    async def cell() -> list[int]:
        return list(door.each(upto(2, [])))

    assert asyncio.run(cell()) == [0, 1]


def test_an_iterator_that_is_empty_ends() -> None:
    assert list(door.each(upto(0, []))) == []


def _in_child(answers: "multiprocessing.Queue[int]") -> None:
    answers.put(door.wait(double(21)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_door_of_its_own() -> None:
    door.wait(double(1))
    forking = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[int] = forking.Queue()
    child = forking.Process(target=_in_child, args=(answers,))
    child.start()
    try:
        assert answers.get(timeout=60) == 42
    finally:
        child.kill()
        child.join()
        child.close()
