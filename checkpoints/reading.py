"""How checkpoints are found and put together again: a few queries a page, never one a row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, func, select

from kapelle.checkpoints.ids import exact, place, text
from kapelle.checkpoints.marks import mark
from kapelle.checkpoints.tables import blobs, checkpoints, marks, writes
from kapelle.checkpoints.values import chunks, fetch, typed
from kapelle.state.errors import BadId, Unreadable

PAGE = 50
"""Checkpoints that are read at once."""

Spot = tuple[str, bytes]
"""A thread and the key of a namespace."""


@dataclass(frozen=True, slots=True)
class View:
    """Whose checkpoints, and how their values are read."""

    tenant: str
    serde: SerializerProtocol

    def load(self, thread: str, value: tuple[str, bytes]) -> Any:
        """A value; `Unreadable` names the thread if it is damaged."""
        try:
            return self.serde.loads_typed(value)
        except Exception as error:
            why = error.why if isinstance(error, Unreadable) else str(error) or type(error).__name__
            raise Unreadable(thread=thread, why=why) from error


def one(view: View, config: RunnableConfig, connection: Connection) -> CheckpointTuple | None:
    """A checkpoint by its id, or the last one of its thread and namespace."""
    configurable = config["configurable"]
    where = [
        checkpoints.c.tenant == view.tenant,
        checkpoints.c.thread == exact("thread", configurable["thread_id"]),
        checkpoints.c.place == place(configurable.get("checkpoint_ns", "")),
    ]
    if wanted := configurable.get("checkpoint_id"):
        where.append(checkpoints.c.id == exact("checkpoint id", wanted, 128))
    query = select(checkpoints).where(*where).order_by(checkpoints.c.seq.desc()).limit(1)
    found = tuples(view, connection, connection.execute(query).mappings().all())
    return found[0] if found else None


class Pages:
    """The checkpoints that match, newest first, a page at a turn."""

    def __init__(
        self,
        config: RunnableConfig | None,
        matching: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._wanted = config["configurable"] if config else {}
        self._matching = dict(matching or {})
        self._before = before["configurable"].get("checkpoint_id") if before else None
        self._left = _whole(limit)
        self._last: int | None = None
        self.ended = self._left == 0

    def turn(self, view: View, connection: Connection) -> list[CheckpointTuple]:
        """The next page."""
        size = PAGE if self._left is None else min(PAGE, self._left)
        query = self._query(view.tenant)
        rows = [] if query is None else connection.execute(query.limit(size)).mappings().all()
        if self._left is not None:
            self._left -= len(rows)
        self._last = rows[-1]["seq"] if rows else None
        self.ended = len(rows) < size or self._left == 0
        return tuples(view, connection, rows)

    def _query(self, tenant: str) -> Select[Any] | None:
        query = select(checkpoints).where(*self._conditions(tenant))
        for key, value in self._matching.items():
            hashed = mark(key, value)
            if hashed is None:
                return None
            index = marks.alias()
            same = and_(index.c.tenant == tenant, index.c.mark == hashed)
            query = query.join(index, and_(same, index.c.seq == checkpoints.c.seq))
        return query.order_by(checkpoints.c.seq.desc())

    def _conditions(self, tenant: str) -> Iterable[ColumnElement[bool]]:
        yield checkpoints.c.tenant == tenant
        if "thread_id" in self._wanted:
            yield checkpoints.c.thread == exact("thread", self._wanted["thread_id"])
        if (namespace := self._wanted.get("checkpoint_ns")) is not None:
            yield checkpoints.c.place == place(namespace)
        if wanted := self._wanted.get("checkpoint_id"):
            yield checkpoints.c.id == exact("checkpoint id", wanted, 128)
        if self._last is not None:
            yield checkpoints.c.seq < self._last
        if self._before:
            yield self._earlier(tenant)

    def _earlier(self, tenant: str) -> ColumnElement[bool]:
        """Before a checkpoint that may lie in another namespace, or not be kept at all."""
        other = checkpoints.alias()
        that = [other.c.tenant == tenant, other.c.id == exact("checkpoint id", self._before, 128)]
        if "thread_id" in self._wanted:
            that.append(other.c.thread == self._wanted["thread_id"])
        seq = select(func.max(other.c.seq)).where(*that).scalar_subquery()
        unknown = and_(seq.is_(None), checkpoints.c.id < self._before)
        return (checkpoints.c.seq < seq) | unknown


def tuples(view: View, connection: Connection, rows: Sequence[RowMapping]) -> list[CheckpointTuple]:
    """Rows of `checkpoints` with their channel values and pending writes."""
    if not rows:
        return []
    bare = [view.load(row["thread"], (row["type"], bytes(row["body"]))) for row in rows]
    values = _values(view, connection, rows, bare)
    written = _written(view, connection, rows)
    return [
        _tuple(view, row, checkpoint, values, written[row["seq"]])
        for row, checkpoint in zip(rows, bare, strict=True)
    ]


def version(value: str | float) -> str:
    """A channel's version as text; `1` and `"1"` are two."""
    if isinstance(value, str):
        return exact("version", value, 63)
    return f"{type(value).__name__[0]}:{value}"


def config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    """How LangGraph names a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint,
        }
    }


def _tuple(
    view: View,
    row: RowMapping,
    bare: Checkpoint,
    values: Mapping[tuple[Spot, str, str], Any],
    written: list[PendingWrite],
) -> CheckpointTuple:
    thread, namespace = row["thread"], text(row["namespace"])
    spot = (thread, bytes(row["place"]))
    of_channels = ((c, (spot, c, version(v))) for c, v in bare["channel_versions"].items())
    checkpoint: Any = {
        **bare,
        "channel_values": {channel: values[key] for channel, key in of_channels if key in values},
    }
    return CheckpointTuple(
        config=config(thread, namespace, row["id"]),
        checkpoint=checkpoint,
        metadata=view.load(thread, (row["metadata_type"], bytes(row["metadata"]))),
        parent_config=config(thread, namespace, row["parent"]) if row["parent"] else None,
        pending_writes=written,
    )


def _values(
    view: View, connection: Connection, rows: Sequence[RowMapping], bare: Sequence[Checkpoint]
) -> dict[tuple[Spot, str, str], Any]:
    """The values of all channel versions that checkpoints speak of."""
    threads = sorted({row["thread"] for row in rows})
    places = sorted({bytes(row["place"]) for row in rows})
    versions = sorted({version(v) for c in bare for v in c["channel_versions"].values()})
    found: list[RowMapping] = []
    for some in chunks(versions):
        query = select(blobs).where(
            blobs.c.tenant == view.tenant,
            blobs.c.thread.in_(threads),
            blobs.c.place.in_(places),
            blobs.c.version.in_(some),
        )
        found += connection.execute(query).mappings().all()
    spoken = {
        (row["thread"], bytes(row["place"]), channel, version(v))
        for row, c in zip(rows, bare, strict=True)
        for channel, v in c["channel_versions"].items()
    }
    found = [
        b for b in found if (b["thread"], bytes(b["place"]), b["channel"], b["version"]) in spoken
    ]
    long = fetch(connection, view.tenant, found)
    return {
        ((b["thread"], bytes(b["place"])), b["channel"], b["version"]): view.load(
            b["thread"], typed(b, long)
        )
        for b in found
    }


def _written(
    view: View, connection: Connection, rows: Sequence[RowMapping]
) -> dict[int, list[PendingWrite]]:
    """The pending writes of checkpoints, by `seq`, in the order LangGraph applies them."""
    its_own = and_(
        writes.c.tenant == checkpoints.c.tenant,
        writes.c.thread == checkpoints.c.thread,
        writes.c.place == checkpoints.c.place,
        writes.c.checkpoint == checkpoints.c.id,
    )
    query = (
        select(checkpoints.c.seq, writes)
        .join(writes, its_own)
        .where(checkpoints.c.seq.in_([row["seq"] for row in rows]))
    )
    found = connection.execute(query).mappings().all()
    long = fetch(connection, view.tenant, found)
    ordered = sorted(
        found, key=lambda w: (w["seq"], writes_sort_key(text(w["path"]), w["task"], w["idx"]))
    )
    pending: dict[int, list[PendingWrite]] = {row["seq"]: [] for row in rows}
    for write in ordered:
        value = view.load(write["thread"], typed(write, long))
        pending[write["seq"]].append((write["task"], write["channel"], value))
    return pending


def _whole(limit: object) -> int | None:
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise BadId(what="limit", value=limit, why="it is no whole number")
    return max(limit, 0)
