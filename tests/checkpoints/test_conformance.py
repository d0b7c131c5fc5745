"""LangGraph's own conformance suite, all capabilities, async and sync."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate

from kapelle.checkpoints import Database

pytestmark = pytest.mark.anyio


class ThroughSync(BaseCheckpointSaver[str]):
    """The async methods of a saver, each answered by its sync twin."""

    def __init__(self, saver: BaseCheckpointSaver[str]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver

    async def aput(self, *args: Any, **named: Any) -> RunnableConfig:
        """`put`, in a thread."""
        return await asyncio.to_thread(self._saver.put, *args, **named)

    async def aput_writes(self, *args: Any, **named: Any) -> None:
        """`put_writes`, in a thread."""
        await asyncio.to_thread(self._saver.put_writes, *args, **named)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`, in a thread."""
        return await asyncio.to_thread(self._saver.get_tuple, config)

    async def alist(
        self, config: RunnableConfig | None, **named: Any
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, in a thread."""
        for found in await asyncio.to_thread(lambda: list(self._saver.list(config, **named))):
            yield found

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, in a thread."""
        await asyncio.to_thread(self._saver.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs`, in a thread."""
        await asyncio.to_thread(self._saver.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread`, in a thread."""
        await asyncio.to_thread(self._saver.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune`, in a thread."""
        await asyncio.to_thread(self._saver.prune, thread_ids, strategy=strategy)


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_all_capabilities_conform(database: Database, mode: str) -> None:
    @checkpointer_test(name="SqlSaver")
    async def saver() -> AsyncIterator[BaseCheckpointSaver[str]]:
        yield database.saver if mode == "async" else ThroughSync(database.saver)

    report = await validate(saver)
    results = report.to_dict()["results"]
    assert [failure for result in results.values() for failure in result["failures"]] == []
    assert [result["passed"] for result in results.values()] == [True] * 8
