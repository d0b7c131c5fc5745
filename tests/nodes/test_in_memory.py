"""The ports in memory: engine, ledger, journal, registry."""

import asyncio
import threading
from typing import Any

import pytest

from kapelle.nodes.agent import agent
from kapelle.nodes.in_memory import (
    LocalEngine,
    MemoryJournal,
    MemoryRegistry,
    in_memory,
)
from kapelle.state.context import MasterContext
from kapelle.state.errors import Misbuilt
from kapelle.state.event import Event
from kapelle.state.task import Brief, Task

pytestmark = pytest.mark.anyio

TASK = Task(goal="work")


# ── engine ────────────────────────────────────────────────────────────────────────────────────


async def most_at_once(engine: LocalEngine, worker: Any, many: int) -> int:
    """How many slots of an agent are held at once."""
    held = most = 0

    async def hold() -> None:
        nonlocal held, most
        async with engine.slot(worker):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(hold() for _ in range(many)))
    return most


@agent
def in_thread(task: Task) -> int:
    return threading.get_ident()


@agent(cpu=True)
def in_process(task: Task) -> None:
    return


@agent
async def on_loop(task: Task) -> int:
    return threading.get_ident()


async def test_threads_and_processes_have_so_many_slots_the_loop_needs_none() -> None:
    engine = LocalEngine(threads=3, processes=2)
    assert await most_at_once(engine, in_thread, 10) == 3
    assert await most_at_once(engine, in_process, 10) == 2
    assert await most_at_once(engine, on_loop, 10) == 10


async def test_threads_do_not_take_the_slots_of_processes() -> None:
    engine = LocalEngine(threads=1, processes=1)
    async with engine.slot(in_thread):
        assert await most_at_once(engine, in_process, 2) == 1


async def test_the_engine_has_the_agent_act() -> None:
    engine = LocalEngine()
    assert await engine.perform(on_loop, TASK, Brief()) == threading.get_ident()
    assert await engine.perform(in_thread, TASK, Brief()) != threading.get_ident()


def test_one_engine_serves_several_loops() -> None:
    engine = LocalEngine(threads=1)
    for _ in range(2):
        assert asyncio.run(most_at_once(engine, in_thread, 3)) == 1


# ── journal, memory, registry ─────────────────────────────────────────────────────────────────


async def test_the_journal_keeps_order_and_the_same_event_once() -> None:
    journal = MemoryJournal()
    first, again, other = (
        Event(kind="run", what=what, thread="t", key=key)
        for what, key in (("one", "1"), ("two", "1"), ("three", "2"))
    )
    journal.record([first, again])
    journal.record([other])
    assert [e.what for e in await journal.read("t")] == ["one", "three"]
    assert await journal.read("another") == []


async def test_events_without_a_key_are_all_kept() -> None:
    journal = MemoryJournal()
    journal.record([Event(kind="run", what="x", thread="t")] * 3)
    assert len(await journal.read("t")) == 3


async def test_the_journal_drops_the_oldest_beyond_its_limit() -> None:
    journal = MemoryJournal(most=2)
    for n in range(5):
        journal.record([Event(kind="run", what=str(n), thread="t")])
    assert [e.what for e in await journal.read("t")] == ["3", "4"]


async def test_a_run_s_context_is_its_own() -> None:
    memory = in_memory().memory
    await memory.open("a", MasterContext(goal="x"))
    assert (await memory.context("a")).goal == "x"
    assert (await memory.context("b")).goal == ""


def test_a_name_belongs_to_one_agent() -> None:
    registry = MemoryRegistry()
    registry.admit(on_loop)
    registry.admit(on_loop)
    with pytest.raises(Misbuilt, match="there is an agent 'on_loop' already"):
        registry.admit(agent(name="on_loop")(lambda task: 1))


def test_the_registry_finds_who_fits_by_name() -> None:
    registry = MemoryRegistry()
    for name, skills in (("zoe", ["write"]), ("bob", ["audit"]), ("ann", ["audit.security"])):
        registry.admit(agent(name=name, skills=skills)(lambda task: 1))
    found = registry.find(Task(goal="x", skills=("audit",)))
    assert [a.card.name for a in found] == ["ann", "bob"]
