"""The board: who waits for whom within one super-step.

All due subtasks start in the same step; each awaits the cells of those it needs. After a crash or
an interrupt the board is filled again from what the step had already written.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.runtime import Runtime

from kapelle.nodes.services import Services
from kapelle.state.task import Result

PARKED = None
"""In a cell: this one waits for a person, and so must whoever needs it."""

Key = tuple[str | None, str, str, object]


class Board:
    """Cells of one super-step of one graph: a future for each subtask's outcome."""

    def __init__(self, finished: Mapping[str, Result], parallel: int) -> None:
        self._cells: dict[str, asyncio.Future[Result | None]] = {}
        self.limit = asyncio.Semaphore(parallel)
        for task, result in finished.items():
            self.post(task, result)

    async def outcome(self, task: str) -> Result | None:
        """Wait for a subtask's result; `PARKED` if a person must act first."""
        cell = self._cell(task)
        return cell.result() if cell.done() else await asyncio.shield(cell)

    def post(self, task: str, result: Result | None) -> None:
        """Tell whoever waits. Posted again after an interrupt, the newer one counts."""
        if self._cell(task).done():
            del self._cells[task]
        self._cell(task).set_result(result)

    def _cell(self, task: str) -> asyncio.Future[Result | None]:
        if task not in self._cells:
            self._cells[task] = asyncio.get_running_loop().create_future()
        return self._cells[task]


_boards: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Key, asyncio.Future[Board]]] = (
    WeakKeyDictionary()
)


async def board(runtime: Runtime[Services], parallel: int) -> Board:
    """The board of the step this node runs in; `parallel` agents of it work at once."""
    boards = _boards.setdefault(asyncio.get_running_loop(), {})
    key = _key(runtime)
    if key not in boards:
        boards[key] = asyncio.ensure_future(_filled(get_config(), key, parallel))
    made = boards[key]
    return made.result() if made.done() else await asyncio.shield(made)


def close_boards(runtime: Runtime[Services]) -> None:
    """Forget the boards of this graph's finished steps."""
    thread, place, _, control = _key(runtime)
    _forget(lambda key: key[0] == thread and key[1] == place and key[3] is control)


def close_all(control: object) -> None:
    """Forget every board of one invocation, however it ended."""
    _forget(lambda key: key[3] is control)


def _forget(which: Any) -> None:
    boards = _boards.get(asyncio.get_running_loop(), {})
    for key in [key for key in boards if which(key)]:
        del boards[key]


def _key(runtime: Runtime[Services]) -> Key:
    info = runtime.execution_info
    assert info is not None, "a node has execution info"
    place = info.checkpoint_ns.rpartition("|")[0]
    return info.thread_id, place, info.checkpoint_id, runtime.control


async def _filled(config: RunnableConfig, key: Key, parallel: int) -> Board:
    saver = config["configurable"].get("__pregel_checkpointer")
    finished: dict[str, Result] = {}
    if saver and key[0] is not None:
        where = {"thread_id": key[0], "checkpoint_ns": key[1], "checkpoint_id": key[2]}
        kept = await saver.aget_tuple({"configurable": where})
        for _, channel, value in (kept.pending_writes or ()) if kept else ():
            if channel == "results":
                finished |= value
    return Board(finished, parallel)
