"""The ports: what a node may call at run time. `checkpoints/` fills some of them.

Each has a simple in-memory implementation in `kapelle.nodes.in_memory`, which serves where a graph
is invoked without `context=`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.state.budget import Balance, Budget, Envelope, Room, Spend, Usage
from kapelle.state.context import MasterContext
from kapelle.state.effect import Effect, EffectStatus
from kapelle.state.event import Event
from kapelle.state.reputation import Record
from kapelle.state.skills import PLAIN, Ontology
from kapelle.state.task import Brief, Task


class Journal(Protocol):
    """All that happened, in order."""

    def record(self, events: Sequence[Event]) -> None:
        """Keep events. Never blocks; they are durable no later than the checkpoint that follows."""

    async def read(self, thread: str) -> list[Event]:
        """The events of a thread, in order."""
        ...


class Ledger(Protocol):
    """The book of what is reserved and spent: one a run, with an account for each envelope.

    The laws are those of `kapelle.state.budget`.
    """

    async def open(self, book: str, run: str = "") -> None:
        """Begin a book anew, if it is not that of `run` already: another run begins on its thread.

        `run` is the same after a crash, so that what was spent before it counts.
        """

    async def reserve(
        self,
        book: str,
        key: str,
        wanted: Usage,
        envelopes: Sequence[Envelope],
        worked: Mapping[str, int] | None = None,
    ) -> Room:
        """Set `wanted` aside in every envelope, outermost first, or in none; never waits for room.

        Durable, where there is a limit, before it returns. A key that is known is reserved already.
        `worked`: milliseconds an agent was at work since last told, by account.
        """
        ...

    async def settle(
        self, book: str, key: str, actual: Usage, worked: Mapping[str, int] | None = None
    ) -> None:
        """Replace a reservation by what was used. Settled twice is settled once.

        Never waits; durable no later than the checkpoint that follows.
        """

    async def charge(self, book: str) -> None:
        """Book in full what is reserved and whose outcome nobody will tell: its process died.

        If somebody does after all, the difference is corrected.
        """

    async def grant(self, book: str, more: Budget, account: str = "", key: str = "") -> None:
        """Raise the limit of an account; told again under the same key, it is raised once."""

    async def balance(self, book: str, account: str = "") -> Balance:
        """What stands in an account."""
        ...

    async def held(self, book: str) -> list[Spend]:
        """The reservations whose outcome is not known, by key."""
        ...

    async def spent(self, book: str) -> Usage:
        """All that counts against the run's budget: settled, and reserved but not settled."""
        ...


class Effects(Protocol):
    """The book of what agents did to the world, one per run."""

    async def begin(self, book: str, wanted: Effect) -> Effect:
        """Write down, durably, that an effect begins; how it is recorded then (`began`)."""
        ...

    async def settle(
        self, book: str, key: str, holder: str, status: EffectStatus, output: JsonValue = None
    ) -> None:
        """Write down, durably, how an effect ended (`settled_by`)."""


class Memory(Protocol):
    """The master context of each run, and those that projects share."""

    async def open(
        self, thread: str, begun: MasterContext, project: str | None = None
    ) -> MasterContext:
        """Begin the context of a run; one of a project is gone on with, and `begun` added to it."""
        ...

    async def context(self, thread: str) -> MasterContext:
        """The document as it stands."""
        ...

    async def change(
        self, thread: str, law: Callable[[MasterContext], MasterContext]
    ) -> MasterContext:
        """Change the document by a pure law; what it then is, with what others changed meanwhile.

        Where another was faster, the law is asked again about what that one left.
        """
        ...

    async def near(self, thread: str, text: str) -> Mapping[str, float]:
        """Keys of decisions near to a text by meaning, with their likeness.

        None where there is no model of meaning.
        """
        ...

    async def records(self, agents: Sequence[str], decay: float) -> Mapping[str, Record]:
        """What was measured of agents, by name; those nobody measured are left out."""
        ...


class Registry(Protocol):
    """Agents that can be found at run time."""

    def admit(self, agent: Agent) -> None:
        """Make an agent known. A name belongs to one agent."""

    def find(self, task: Task, ontology: Ontology = PLAIN) -> Sequence[Agent]:
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

    def slot(self, agent: Agent, priority: int = 0) -> AbstractAsyncContextManager[object]:
        """A place to work, for the most urgent first; waiting is outside every timeout."""
        ...

    async def perform(self, agent: Agent, task: Task, brief: Brief) -> object:
        """Have the agent act; what it returned or raised."""
        ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the nodes of a run may call: LangGraph's `context`."""

    journal: Journal
    ledger: Ledger
    effects: Effects
    memory: Memory
    registry: Registry
    clock: Clock
    engine: Engine


def names(agents: Iterable[Agent]) -> dict[str, tuple[str, ...]]:
    """Who there is, with skills: what a planner is told."""
    return {agent.card.name: agent.card.skills for agent in agents}
