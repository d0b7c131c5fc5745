"""LangGraph's checkpointer in SQL: one class, sync and async, for every LangGraph graph.

Every `put` and `put_writes` is one order to the desk: one transaction, shared with whatever others
order at the same time, and never visible before what was ordered earlier. The methods come in pairs
because LangGraph's contract does; what they order and look up is said once, in `writing`, `reading`
and `retention`.
"""

import copy
import random
from base64 import urlsafe_b64encode
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import Connection

from kapelle.checkpoints import copying, delta, listing, reading, retention, writing
from kapelle.checkpoints.access import Access, Source
from kapelle.checkpoints.closing import Closing
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.engine import Address, Place
from kapelle.checkpoints.growth import Growth
from kapelle.checkpoints.ids import exact
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.secret import Cipher, Secret
from kapelle.checkpoints.serde import SealedSerializer, parted, serializer

ADDRESSED = 10_000
"""Checkpoints that were asked for by id, so that a run may branch off them, remembered at most."""


class SqlSaver(Closing, BaseCheckpointSaver[str]):
    """Keeps the checkpoints of any LangGraph graph. `Database(...).saver` is one."""

    def __init__(
        self, access: Access, *, serde: SerializerProtocol, max_bytes: int, seal: Seal
    ) -> None:
        self._seal = seal
        self._access = access
        self.max_bytes = max_bytes
        self._growth = Growth()
        self._addressed: dict[tuple[str, str | None], bool] = {}
        super().__init__(serde=serde)

    @classmethod
    def from_url(
        cls,
        url: Place,
        *,
        tenant: str = "default",
        allow: Iterable[type] = (),
        max_bytes: int = 8_000_000,
        cipher: Cipher | None = None,
    ) -> "SqlSaver":
        """A saver alone, for those who want nothing else. Close it, or use it in a `with`.

        The arguments are those of `Database`, which can do more.
        """
        secret = Secret.by(cipher)
        source = Source(Address.of(url), max_bytes=max_bytes, secret=secret)
        serde = serializer(allow, secret.cipher)
        return cls(Access(source, tenant=tenant), serde=serde, max_bytes=max_bytes, seal=Seal())

    @property
    def serde(self) -> SerializerProtocol:
        """What turns values into bytes and back."""
        return self._serde

    @serde.setter
    def serde(self, serde: SerializerProtocol) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._serde = serde
        plain, cipher = parted(serde)
        self._pen = writing.Pen(plain, cipher, self.max_bytes, self._growth, self._seal)
        self.view = reading.View(self._access.tenant, plain, cipher, self._seal)
        """Whose checkpoints these are, and how they are read."""

    # -- writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; returns when it is durable."""
        saved = self._saved(config, checkpoint, metadata, new_versions)
        self._access.desk.do(saved.order)
        return saved.done(self._growth)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; returns when it is durable."""
        saved = self._saved(config, checkpoint, metadata, new_versions)
        await self._access.desk.ado(saved.order)
        return saved.done(self._growth)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote; returns when it is durable."""
        self._access.desk.do(self._task(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote; returns when it is durable."""
        await self._access.desk.ado(self._task(config, writes, task_id, task_path))

    # -- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint by its id, or the last one of its thread and namespace."""
        return self._access.read(self._one(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint by its id, or the last one of its thread and namespace."""
        return await self._access.aread(self._one(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, page by page; nothing is held between pages."""
        pages = listing.Pages(config, filter, before, limit)
        while not pages.ended:
            yield from self._access.read(partial(pages.turn, self.view))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, page by page; nothing is held between pages."""
        pages = listing.Pages(config, filter, before, limit)
        while not pages.ended:
            for found in await self._access.aread(partial(pages.turn, self.view)):
                yield found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are put together from."""
        return self._access.read(partial(delta.history, self.view, config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are put together from."""
        return await self._access.aread(partial(delta.history, self.view, config, channels))

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

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> "SqlSaver":
        """The same saver, which may make objects of more types."""
        serde = self.serde
        if isinstance(serde, SealedSerializer) and isinstance(serde.serde, JsonPlusSerializer):
            inner = serde.serde.with_msgpack_allowlist(extra_allowlist)
            wider: SerializerProtocol = SealedSerializer(serde.cipher, inner)
        elif isinstance(serde, JsonPlusSerializer):
            wider = serde.with_msgpack_allowlist(extra_allowlist)
        else:
            return self
        clone = copy.copy(self)
        clone.serde = wider
        return clone

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The next version of a channel: a number that grows, and lots that tell forks apart.

        Versions are compared as texts. Short ones come after the official savers', which have 32
        digits and begin with zeros, so that a thread of theirs goes on.
        """
        number = 0 if current is None else int(str(current).split(".")[0])
        lots = urlsafe_b64encode(random.randbytes(6)).decode()
        return f"{number + 1:010}.{lots}"

    def _forget(self, threads: Sequence[str], strategy: str) -> Order[None]:
        names = [exact("thread", thread) for thread in threads]
        return Order(work=partial(retention.forget, self.view, threads=names, strategy=strategy))

    def _forget_runs(self, runs: Sequence[str]) -> Order[None]:
        return Order(work=partial(retention.forget_runs, self.view, ids=runs))

    def _copy(self, source: str, target: str) -> Order[None]:
        exact("thread", source)
        exact("thread", target)
        work = partial(copying.copy, self.view, self._pen, source=source, target=target)
        return Order(work=work)

    def _saved(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> writing.Saved:
        spot = writing.Spot.of(self._access.tenant, config)
        parent = config["configurable"].get("checkpoint_id")
        return writing.checkpoint(
            self._pen,
            spot,
            config,
            checkpoint,
            metadata,
            new_versions,
            addressed=self._addressed.pop((spot.thread, parent), False),
        )

    def _task(
        self, config: RunnableConfig, written: Sequence[tuple[str, Any]], task: str, path: str
    ) -> Order[None]:
        spot = writing.Spot.of(self._access.tenant, config)
        checkpoint = config["configurable"]["checkpoint_id"]
        return writing.of_task(self._pen, spot, checkpoint, task, path, written)

    def _one(self, config: RunnableConfig) -> Callable[[Connection], CheckpointTuple | None]:
        configurable = config["configurable"]
        if checkpoint := configurable.get("checkpoint_id"):
            self._addressed[configurable["thread_id"], checkpoint] = True
            if len(self._addressed) > ADDRESSED:
                self._addressed.pop(next(iter(self._addressed)))
        return partial(reading.one, self.view, self._growth, config)
