"""The ports: what a node may call at run time. `checkpoints/` fills some of them.

Each has a simple in-memory implementation in `kapelle.nodes.in_memory`, which serves where a graph
is invoked without `context=`.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from kapelle.nodes.agent import Agent
from kapelle.state.budget import Budget, Usage
from kapelle.state.context import MasterContext
from kapelle.state.event import Event
from kapelle.state.task import Brief, Task


class Journal(Protocol):
    """All that happened, in order."""

    def record(self, events: Sequence[Event]) -> None:
        """Keep events. Never blocks; they are durable no later than the checkpoint that follows."""

    async def read(self, thread: str) -> list[Event]:
        """The events of a thread, in order."""
        ...


class Ledger(Protocol):
    """The book of what is reserved and spent, one per run."""

    async def open(self, book: str) -> None:
        """Begin a book anew: another run begins on its thread."""

    async def reserve(self, book: str, key: str, wanted: Usage, budget: Budget) -> bool:
        """Set `wanted` aside for the call `key`; False if that would break the budget."""
        ...

    async def settle(self, book: str, key: str, actual: Usage) -> None:
        """Replace a reservation by what was used. Settled twice is settled once."""

    async def spent(self, book: str) -> Usage:
        """All that counts against the budget: settled, and reserved but not settled."""
        ...


class Memory(Protocol):
    """The master context of each run."""

    async def context(self, thread: str) -> MasterContext:
        """The document as it stands."""
        ...

    async def decide(self, thread: str, context: MasterContext) -> None:
        """Replace the document."""


class Registry(Protocol):
    """Agents that can be found at run time."""

    def admit(self, agent: Agent) -> None:
        """Make an agent known. A name belongs to one agent."""

    def find(self, task: Task) -> Sequence[Agent]:
        """Those whose card fits the task, by name."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Engine(Protocol):
    """Who executes an agent: this process, a pool of processes, another host."""

    def slot(self, agent: Agent) -> AbstractAsyncContextManager[object]:
        """A place to work; waiting for one is outside every timeout."""
        ...

    async def perform(self, agent: Agent, task: Task, brief: Brief) -> object:
        """Have the agent act; what it returned or raised."""
        ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the nodes of a run may call: LangGraph's `context`."""

    journal: Journal
    ledger: Ledger
    memory: Memory
    registry: Registry
    clock: Clock
    engine: Engine


def names(agents: Iterable[Agent]) -> dict[str, tuple[str, ...]]:
    """Who there is, with skills: what a planner is told."""
    return {agent.card.name: agent.card.skills for agent in agents}
