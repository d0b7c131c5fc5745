"""Where a node finds itself: its services, thread and place, and how it tells what happened."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.runtime import Runtime

from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.services import Services
from kapelle.state.context import MasterContext
from kapelle.state.event import Event, EventKind
from kapelle.state.task import Task

_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, Services] = WeakKeyDictionary()


@dataclass(frozen=True)
class Here:
    """One execution of one node."""

    services: Services
    thread: str
    """LangGraph's thread; without a saver a name that is unique to the invocation."""
    place: str
    """The graph within nested graphs, as LangGraph's namespace; empty at the root."""
    step: str
    """LangGraph's id of this execution: the same after a crash and on resume."""
    write: Callable[[Any], None]
    """LangGraph's custom stream."""

    async def begin(self, task: Task) -> None:
        """Set the run's goal and open its book; a nested graph shares those of the whole."""
        if not self.place:
            await self.services.ledger.open(self.thread)
            await self.services.memory.decide(self.thread, MasterContext(goal=task.goal))

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
    return Here(
        services=_given(runtime.context),
        thread=info.thread_id or f"unsaved-{id(runtime.control):x}",
        place=info.checkpoint_ns.rpartition("|")[0],
        step=info.task_id,
        write=runtime.stream_writer,
    )


def _given(context: Services | None) -> Services:
    if context is not None:
        return context
    loop = asyncio.get_running_loop()
    if loop not in _defaults:
        _defaults[loop] = in_memory()
    return _defaults[loop]
