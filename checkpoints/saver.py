"""LangGraph's checkpointer in SQL: one class, sync and async, for every LangGraph graph.

Every `put` and `put_writes` is one order to the desk: one transaction, shared with whatever others
order at the same time, and never visible before what was ordered earlier. The methods come in pairs
because LangGraph's contract does; what they order and look up is said once, below and in `reading`.
"""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Interrupt
from sqlalchemy import bindparam, select

from kapelle.checkpoints import inbox, reading, retention
from kapelle.checkpoints.access import Access
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.ids import exact, place, raw
from kapelle.checkpoints.marks import marks_of
from kapelle.checkpoints.statements import Row, Statement, keep_first, replace
from kapelle.checkpoints.tables import HASH, blobs, checkpoints, marks, writes
from kapelle.checkpoints.values import INSERT as INSERT_PAYLOADS
from kapelle.checkpoints.values import Key, columns, limited

CONTROL = frozenset((ERROR, "__error_source_node__", INTERRUPT, RESUME))
"""Channels that say what happened to a task, not what it wrote."""

INSERT_BLOBS = replace(blobs)
INSERT_WRITES = keep_first(writes)
REPLACE_WRITES = replace(writes)
_KEY = ("tenant", "thread", "id", "place")

INSERT_CHECKPOINT = replace(checkpoints, *_KEY)
INSERT_MARKS = keep_first(
    marks,
    select(checkpoints.c.tenant, checkpoints.c.seq, bindparam("mark", type_=HASH)).where(
        *(checkpoints.c[k] == bindparam(f"of_{k}") for k in _KEY)
    ),
)


class SqlSaver(BaseCheckpointSaver[str]):
    """Keeps the checkpoints of any LangGraph graph. `Database(...).saver` is one."""

    def __init__(self, access: Access, *, serde: SerializerProtocol, max_bytes: int) -> None:
        super().__init__(serde=serde)
        self._access = access
        self._most = max_bytes

    # -- writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; returns when it is durable."""
        self._access.desk.do(self._checkpoint(config, checkpoint, metadata, new_versions))
        return _config(config, checkpoint["id"])

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; returns when it is durable."""
        await self._access.desk.ado(self._checkpoint(config, checkpoint, metadata, new_versions))
        return _config(config, checkpoint["id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote; returns when it is durable."""
        self._access.desk.do(self._writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote; returns when it is durable."""
        await self._access.desk.ado(self._writes(config, writes, task_id, task_path))

    # -- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint by its id, or the last one of its thread and namespace."""
        return self._access.read(partial(reading.one, self._view(), config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint by its id, or the last one of its thread and namespace."""
        return await self._access.aread(partial(reading.one, self._view(), config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, page by page; nothing is held between pages."""
        pages = reading.Pages(config, filter, before, limit)
        while not pages.ended:
            yield from self._access.read(partial(pages.turn, self._view()))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, page by page; nothing is held between pages."""
        pages = reading.Pages(config, filter, before, limit)
        while not pages.ended:
            for found in await self._access.aread(partial(pages.turn, self._view())):
                yield found

    # -- forgetting

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread."""
        self._access.desk.do(self._forget([thread_id], "delete"))

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a thread."""
        await self._access.desk.ado(self._forget([thread_id], "delete"))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Forget all but the last checkpoint of each namespace, and what that one builds on."""
        self._access.desk.do(self._forget(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Forget all but the last checkpoint of each namespace, and what that one builds on."""
        await self._access.desk.ado(self._forget(thread_ids, strategy))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forget the checkpoints that these runs made."""
        self._access.desk.do(self._forget_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forget the checkpoints that these runs made."""
        await self._access.desk.ado(self._forget_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to one that does not exist yet."""
        self._access.desk.do(self._copy(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to one that does not exist yet."""
        await self._access.desk.ado(self._copy(source_thread_id, target_thread_id))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The next version of a channel: one number that grows, one that tells forks apart."""
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.random():016}"

    # -- what is ordered

    def _checkpoint(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Order[None]:
        thread, namespace = _place(config)
        key, at = Key(self._access.tenant, thread), place(namespace)
        here = {"tenant": key.tenant, "thread": thread, "place": at}
        described = get_checkpoint_metadata(config, metadata)
        bare = {k: v for k, v in checkpoint.items() if k != "channel_values"}
        stored: list[Row] = []
        changed = [
            {
                **here,
                "channel": exact("channel", channel),
                "version": reading.version(new_versions[channel]),
                "base": None,
                **columns(key, self._dump(f"channel {channel!r}", value), stored),
            }
            for channel, value in checkpoint["channel_values"].items()
            if channel in new_versions
        ]
        kind, body = self._dump("the checkpoint", bare)
        metadata_kind, metadata_body = self._dump("the metadata", described)
        row = {
            **here,
            "id": exact("checkpoint id", checkpoint["id"], 128),
            "namespace": raw(namespace),
            "parent": config["configurable"].get("checkpoint_id") or None,
            "type": kind,
            "body": body,
            "metadata_type": metadata_kind,
            "metadata": metadata_body,
        }
        found = [{"mark": m, **{f"of_{k}": row[k] for k in _KEY}} for m in marks_of(described)]
        rows: list[tuple[Statement, Sequence[Row]]] = [
            (INSERT_PAYLOADS, stored),
            (INSERT_BLOBS, changed),
            (INSERT_CHECKPOINT, [row]),
            (INSERT_MARKS, found),
        ]
        if not namespace:
            went_on = {"of_tenant": key.tenant, "of_thread": thread, "of_checkpoint": row["id"]}
            rows.append((inbox.THREAD_WENT_ON, [went_on]))
        return Order(rows)

    def _writes(
        self, config: RunnableConfig, written: Sequence[tuple[str, Any]], task: str, path: str
    ) -> Order[None]:
        thread, namespace = _place(config)
        key = Key(self._access.tenant, thread)
        here = {
            "tenant": key.tenant,
            "thread": thread,
            "place": place(namespace),
            "checkpoint": exact("checkpoint id", config["configurable"]["checkpoint_id"], 128),
            "task": exact("task id", task, 128),
            "path": raw(path),
        }
        stored: list[Row] = []
        rows = [
            {
                **here,
                "idx": WRITES_IDX_MAP.get(channel, position),
                "channel": exact("channel", channel),
                **columns(key, self._dump(f"a write to {channel!r}", value), stored),
            }
            for position, (channel, value) in enumerate(written)
        ]
        order: Order[None] = Order(
            [
                (INSERT_PAYLOADS, stored),
                (INSERT_WRITES, [row for row in rows if row["idx"] >= 0]),
                (REPLACE_WRITES, [row for row in rows if row["idx"] < 0]),
            ]
        )
        if not namespace:
            self._tell_inbox(order, here, written)
        return order

    def _tell_inbox(
        self, order: Order[None], here: Row, written: Sequence[tuple[str, Any]]
    ) -> None:
        if any(channel not in CONTROL for channel, _ in written):
            went_on = {f"of_{k}": here[k] for k in ("tenant", "thread", "task")}
            order.rows.append((inbox.TASK_WENT_ON, [went_on]))
        elif asked := [value for channel, value in written if channel == INTERRUPT]:
            context = {k: here[k] for k in ("tenant", "thread", "checkpoint", "task")}
            order.work = partial(inbox.asked, interrupts=_interrupts(asked), **context)

    def _forget(self, threads: Sequence[str], strategy: str) -> Order[None]:
        names = [exact("thread", thread) for thread in threads]
        return Order(work=partial(retention.forget, self._view(), threads=names, strategy=strategy))

    def _forget_runs(self, runs: Sequence[str]) -> Order[None]:
        return Order(work=partial(retention.forget_runs, self._view(), runs=runs))

    def _copy(self, source: str, target: str) -> Order[None]:
        exact("thread", source)
        exact("thread", target)
        return Order(work=partial(retention.copy, self._view(), source=source, target=target))

    def _dump(self, what: str, value: object) -> tuple[str, bytes]:
        return limited(what, self.serde.dumps_typed(value), self._most)

    def _view(self) -> reading.View:
        return reading.View(self._access.tenant, self.serde)


def _place(config: RunnableConfig) -> tuple[str, str]:
    """The thread and namespace a config speaks of."""
    configurable = config["configurable"]
    return exact("thread", configurable["thread_id"]), configurable.get("checkpoint_ns", "")


def _config(config: RunnableConfig, checkpoint: str) -> RunnableConfig:
    thread, namespace = _place(config)
    return reading.config(thread, namespace, checkpoint)


def _interrupts(values: Sequence[Any]) -> list[Interrupt[Any]]:
    """What was written to the channel of interrupts: several, one, none, or something else."""
    listed = (
        v for value in values for v in (value if isinstance(value, list | tuple) else [value])
    )
    return [value for value in listed if isinstance(value, Interrupt)]
