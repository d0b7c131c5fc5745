"""A node's place, and a clock on which hours pass in no time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here
from kapelle.nodes.in_memory import in_memory
from kapelle.state.event import Event
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Task

Calls = Callable[..., Result]


@pytest.fixture
def clock() -> VirtualClock:
    """Starts at 1,000 seconds."""
    return VirtualClock(start=1000.0)


@pytest.fixture
def told() -> list[Event]:
    """What was journaled, in order."""
    return []


@pytest.fixture
def here(clock: VirtualClock, told: list[Event]) -> Here:
    """A node of a run."""
    services = replace(in_memory(), clock=clock)
    return Here(services=services, thread="t1", place="", step="s1", write=told.append)


@pytest.fixture
def called(clock: VirtualClock, here: Here) -> Calls:
    """Has an agent do a task, on the virtual clock."""

    def called(
        agent: Agent, policy: Policy | None = None, brief: Brief | None = None, **more: Any
    ) -> Result:
        task = Task(id="a", goal="work")
        limits = policy or Policy()
        return clock.run(call(agent, task, brief or Brief(), here=here, policy=limits, **more))

    return called
