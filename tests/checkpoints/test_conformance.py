"""LangGraph's own conformance suite, all capabilities, through the async and through the sync methods."""

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

    async def aput(self, *args: Any) -> RunnableConfig:
        return await asyncio.to_thread(self._saver.put, *args)

    async def aput_writes(self, *args: Any, **named: Any) -> None:
        await asyncio.to_thread(self._saver.put_writes, *args, **named)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await asyncio.to_thread(self._saver.get_tuple, config)

    async def alist(
        self, config: RunnableConfig | None, **named: Any
    ) -> AsyncIterator[CheckpointTuple]:
        for found in await asyncio.to_thread(lambda: list(self._saver.list(config, **named))):
            yield found

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self._saver.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self._saver.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self._saver.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(self._saver.prune, thread_ids, strategy=strategy)


@pytest.mark.parametrize("through_sync", [False, True], ids=["async", "sync"])
async def test_all_capabilities_conform(database: Database, through_sync: bool) -> None:
    @checkpointer_test(name="SqlSaver")
    async def saver() -> AsyncIterator[BaseCheckpointSaver[str]]:
        yield ThroughSync(database.saver) if through_sync else database.saver

    report = await validate(saver)
    results = report.to_dict()["results"]
    assert {name: result["failures"] for name, result in results.items()} == dict.fromkeys(
        results, []
    )
    assert all(result["detected"] and result["passed"] for result in results.values())
    assert len(results) == 8
