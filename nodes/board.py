"""The board: who waits for whom within one super-step.

All due subtasks start in the same step; each awaits the cells of those it needs. After a crash or
an interrupt the board is filled again from what the step had already written; a step that follows
another of the same invocation had written nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.runtime import Runtime

from kapelle.nodes.here import Here, whole_of
from kapelle.nodes.services import Services
from kapelle.nodes.turns import Turns
from kapelle.state.context import MasterContext
from kapelle.state.task import Result, merge_results

PARKED = None
"""In a cell: this one waits for a person, and so must whoever needs it."""

Key = tuple[str | None, str, str, object]
"""Thread, graph, checkpoint, invocation."""

Graph = tuple[str | None, str, object]
"""Thread, graph, invocation."""

Written = tuple[str, str, Any]
"""What a node had written of the step already: LangGraph's id of its execution, channel, value."""

T = TypeVar("T")


class Board:
    """Cells of one super-step of one graph: a future for each subtask's outcome."""

    def __init__(self, written: Sequence[Written], limit: Turns) -> None:
        self._cells: dict[str, asyncio.Future[Result | None]] = {}
        self.written = written
        self.limit = limit
        self._context: asyncio.Future[MasterContext] | None = None
        self._shared: Any = None
        for task, result in self.results().items():
            self.post(task, result)

    def results(self) -> dict[str, Result]:
        """Those that had been written before an interrupt or a crash."""
        values = [value for _, channel, value in self.written if channel == "results"]
        return reduce(merge_results, values, {})

    def shared(self, make: Callable[[], T]) -> T:
        """What all who work in the step have in common; the first makes it."""
        if self._shared is None:
            self._shared = make()
        made: T = self._shared
        return made

    async def outcome(self, task: str) -> Result | None:
        """Wait for a subtask's result; `PARKED` if a person must act first."""
        cell = self._cell(task)
        return cell.result() if cell.done() else await asyncio.shield(cell)

    async def context(self, place: Here) -> MasterContext:
        """The master context, read once for all who work in the step."""
        if self._context is None:
            read = place.services.memory.context(place.thread)
            self._context = asyncio.ensure_future(read)
        return await asyncio.shield(self._context)

    def post(self, task: str, result: Result | None) -> None:
        """Tell whoever waits. Posted again after an interrupt, the newer one counts."""
        if self._cell(task).done():
            del self._cells[task]
        self._cell(task).set_result(result)

    def _cell(self, task: str) -> asyncio.Future[Result | None]:
        if task not in self._cells:
            self._cells[task] = asyncio.get_running_loop().create_future()
        return self._cells[task]


class _Room:
    """All boards of one event loop."""

    def __init__(self) -> None:
        self.boards: dict[Key, asyncio.Future[Board]] = {}
        self.stepped: set[Graph] = set()
        """Graphs whose next step is a new one."""


_limit: ContextVar[Turns | None] = ContextVar("_limit", default=None)
"""On who works at once, in a step that parts are run in."""

_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = WeakKeyDictionary()


async def board(runtime: Runtime[Services], parallel: int) -> Board:
    """The board of the step this node runs in; `parallel` agents of it work at once."""
    room, key = _room(), _key(runtime)
    if key not in room.boards:
        fresh = _graph(key) in room.stepped
        shared = _limit.get() if whole_of(key[1]) != key[1] else None
        limit = shared or Turns(parallel)
        filled = _fresh(limit) if fresh else _filled(get_config(), key, limit)
        room.boards[key] = asyncio.ensure_future(filled)
    made = room.boards[key]
    return made.result() if made.done() else await asyncio.shield(made)


@contextmanager
def one_limit(desk: Board) -> Iterator[None]:
    """Parts that are run in this context share the limit of the step they are part of."""
    token = _limit.set(desk.limit)
    try:
        yield
    finally:
        _limit.reset(token)


def close_boards(runtime: Runtime[Services]) -> None:
    """Forget the boards of this graph's finished steps; the next step will be a new one."""
    graph = _graph(_key(runtime))
    _forget(lambda other: other == graph)
    _room().stepped.add(graph)


def close_all(control: object) -> None:
    """Forget every board of one invocation, however it ended."""
    _forget(lambda graph: graph[2] is control)


def _forget(which: Callable[[Graph], bool]) -> None:
    room = _room()
    room.boards = {key: board for key, board in room.boards.items() if not which(_graph(key))}
    room.stepped = {graph for graph in room.stepped if not which(graph)}


def _room() -> _Room:
    return _rooms.setdefault(asyncio.get_running_loop(), _Room())


def _key(runtime: Runtime[Services]) -> Key:
    info = runtime.execution_info
    assert info is not None, "a node has execution info"
    place = info.checkpoint_ns.rpartition("|")[0]
    return info.thread_id, place, info.checkpoint_id, runtime.control


def _graph(key: Key) -> Graph:
    thread, place, _, control = key
    return thread, place, control


async def _fresh(limit: Turns) -> Board:
    return Board((), limit)


async def _filled(config: RunnableConfig, key: Key, limit: Turns) -> Board:
    saver = config["configurable"].get("__pregel_checkpointer")
    written: Sequence[Written] = ()
    if saver and key[0] is not None:
        where = {"thread_id": key[0], "checkpoint_ns": key[1], "checkpoint_id": key[2]}
        kept = await saver.aget_tuple({"configurable": where})
        written = (kept.pending_writes or ()) if kept else ()
    return Board(written, limit)
