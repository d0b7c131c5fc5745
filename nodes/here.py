"""Where a node finds itself: its services, thread and place, and how it tells what happened."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.config import get_config
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.memory import StoreMemory
from kapelle.nodes.services import Services
from kapelle.state.context import MasterContext
from kapelle.state.event import Event, EventKind
from kapelle.state.policy import Policy
from kapelle.state.relevance import fits, shown
from kapelle.state.task import Task

_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, Services] = WeakKeyDictionary()
_kept: WeakKeyDictionary[BaseStore, StoreMemory] = WeakKeyDictionary()


_wholes: ContextVar[tuple[str, ...]] = ContextVar("_wholes", default=())
"""The places of graphs that the graphs directly within them are only parts of, outermost first."""


@dataclass(frozen=True)
class Here:
    """One execution of one node."""

    services: Services
    thread: str
    """LangGraph's thread; without a saver a name that is unique to the invocation."""
    place: str
    """The graph within nested graphs, as LangGraph's namespace; empty at the root.

    A part of a graph is at the place of the whole.
    """
    step: str
    """LangGraph's id of this execution: the same after a crash and on resume."""
    write: Callable[[Any], None]
    """LangGraph's custom stream."""
    store: BaseStore | None = None
    """LangGraph's store; what is known in it outlives the run."""
    depth: int = 0
    """How many graphs it is nested in; parts of a graph are none."""
    run: str = ""
    """Tells apart the runs of one thread; empty where the caller gave LangGraph no `run_id`."""

    async def begin(self, task: Task) -> None:
        """Set the run's goal and open its book; a nested graph shares those of the whole."""
        if not self.place:
            await self.services.ledger.open(self.thread, self.step)
            begun = (task.context or MasterContext()).model_copy(update={"goal": task.goal})
            await self.services.memory.open(self.thread, begun, task.project)

    async def context(
        self, task: Task, policy: Policy, held: MasterContext | None = None
    ) -> MasterContext:
        """The master context as an agent at this task is shown it: what has room in its brief.

        `held`: the whole of it, where it was read already.
        """
        memory = self.services.memory
        held = held if held is not None else await memory.context(self.thread)
        if fits(held, policy.context_tokens):
            return held
        near = await memory.near(self.thread, " ".join((task.goal, *task.skills)))
        return shown(held, task, policy.context_tokens, near)

    def tell(
        self, kind: EventKind, what: str, *, mark: object = "", key: str = "", **fields: Any
    ) -> None:
        """Journal one event; told again after a crash or an interrupt, it is the same event.

        `mark` tells apart what may happen more than once in one execution; `key` names what is
        also told elsewhere.
        """
        task, agent = fields.get("task", ""), fields.get("agent", "")
        event = Event(
            kind=kind,
            what=what,
            thread=self.thread,
            place=self.place,
            at=self.services.clock.now(),
            key=key or f"{self.step}/{kind}/{what}/{task}/{agent}/{mark}",
            **fields,
        )
        self.services.journal.record([event])
        self.write(event)


def here(runtime: Runtime[Services]) -> Here:
    """Where the node of this runtime is."""
    info = runtime.execution_info
    assert info is not None, "a node has execution info"
    place = whole_of(info.checkpoint_ns.rpartition("|")[0])
    return Here(
        services=_given(runtime.context, runtime.store),
        thread=info.thread_id or f"unsaved-{id(runtime.control):x}",
        place=place,
        depth=_depth(place),
        step=info.task_id,
        store=runtime.store,
        run=str((get_config().get("metadata") or {}).get("run_id") or ""),
        write=runtime.stream_writer,
    )


@contextmanager
def part_of(place: Here) -> Iterator[None]:
    """A graph that is run in this context is part of the present one: it counts as no other."""
    token = _wholes.set((*_wholes.get(), place.place))
    try:
        yield
    finally:
        _wholes.reset(token)


def whole_of(place: str) -> str:
    """The place of the graph that the one at a place is part of; if of none, its own."""
    around = _wholes.get()
    return around[-1] if around and place and place.rpartition("|")[0] == around[-1] else place


def _depth(place: str) -> int:
    graphs = len(place.split("|")) if place else 0
    return graphs - sum(len(whole) < len(place) for whole in _wholes.get())


def _given(context: Services | None, store: BaseStore | None) -> Services:
    """What was given; else services in memory, the master context in the graph's own store."""
    if context is not None:
        return context
    loop = asyncio.get_running_loop()
    if loop not in _defaults:
        _defaults[loop] = in_memory()
    if store is None:
        return _defaults[loop]
    if store not in _kept:
        _kept[store] = StoreMemory(store)
    return replace(_defaults[loop], memory=_kept[store])
