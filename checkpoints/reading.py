"""How checkpoints are found and put together again: a few queries a page, never one a row."""

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, or_, select

from kapelle.checkpoints.growth import Growth
from kapelle.checkpoints.ids import exact, place, text, version
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.statements import Found, Query
from kapelle.checkpoints.tables import blobs, checkpoints, ordered, writes
from kapelle.checkpoints.values import Value, chunks, stored, with_payloads
from kapelle.state.errors import Unreadable

Version = tuple[str, bytes, str, str]
"""A channel's version: thread, key of the namespace, channel, version."""

NAMES = ("thread", "place", "channel", "version")
"""The columns of a `Version`."""


def _at(table: Table, *names: str) -> Iterator[ColumnElement[bool]]:
    return (table.c[name] == bindparam(f"of_{name}") for name in names)


PLACE = ("tenant", "thread", "place")

_HERE = select(checkpoints).where(*_at(checkpoints, *PLACE))

LAST = Query(
    lambda _: _HERE.where(ordered(checkpoints.c.seq)).order_by(checkpoints.c.seq.desc()).limit(1)
)
"""The last checkpoint of a place."""

NAMED = Query(lambda _: _HERE.where(*_at(checkpoints, "id")))

ROWS = Query(
    lambda among: with_payloads(blobs).where(
        *_at(blobs, "tenant"),
        among(blobs.c.thread, "threads"),
        among(blobs.c.place, "places"),
        among(blobs.c.version, "versions"),
    )
)

_WRITTEN = with_payloads(writes, checkpoints.c.seq).join(
    checkpoints,
    and_(
        writes.c.tenant == checkpoints.c.tenant,
        writes.c.thread == checkpoints.c.thread,
        writes.c.place == checkpoints.c.place,
        writes.c.checkpoint == checkpoints.c.id,
    ),
)

WRITTEN = Query(lambda among: _WRITTEN.where(among(checkpoints.c.seq, "seqs")))

WRITTEN_TO = Query(
    lambda among: _WRITTEN.where(
        among(checkpoints.c.seq, "seqs"), among(writes.c.channel, "channels")
    )
)


@dataclass(frozen=True, slots=True)
class View:
    """Whose checkpoints, and how their values are read."""

    tenant: str
    serde: SerializerProtocol
    seal: Seal

    def load(self, thread: str, value: tuple[str, bytes]) -> Any:
        """A value; `Unreadable` names the thread if it is damaged."""
        try:
            return self.serde.loads_typed(value)
        except Exception as error:
            why = error.why if isinstance(error, Unreadable) else str(error) or type(error).__name__
            raise Unreadable(thread=thread, why=why) from error


def one(
    view: View, growth: Growth, config: RunnableConfig, connection: Connection
) -> CheckpointTuple | None:
    """A checkpoint by its id, or the last one of its thread and namespace."""
    row = last(view, config, connection)
    return None if row is None else tuples(view, connection, [row], growth)[0]


def last(view: View, config: RunnableConfig, connection: Connection) -> Found | None:
    """The row of a checkpoint by its id, or of the last one of its thread and namespace."""
    configurable = config["configurable"]
    where = {
        "of_tenant": view.tenant,
        "of_thread": exact("thread", configurable["thread_id"]),
        "of_place": place(configurable.get("checkpoint_ns", "")),
    }
    if wanted := configurable.get("checkpoint_id"):
        where["of_id"] = exact("checkpoint id", wanted, 128)
    return next(iter((NAMED if wanted else LAST).rows(connection, where)), None)


def tuples(
    view: View, connection: Connection, rows: Sequence[Found], growth: Growth | None = None
) -> list[CheckpointTuple]:
    """Rows of `checkpoints` with their channel values and pending writes."""
    if not rows:
        return []
    bare = [bare_of(view, row) for row in rows]
    spoken = [list(_spoken(row, of)) for row, of in zip(rows, bare, strict=True)]
    stored_ = values(view, connection, {version for some in spoken for version in some})
    pending = written(view, connection, rows)
    if growth is not None:
        for key, value in stored_.items():
            growth.hold(key[:3], key[3], value)
    loaded = {key: view.load(key[0], value.whole) for key, value in stored_.items()}
    return [
        _tuple(view, row, of, {v[2]: loaded[v] for v in some if v in loaded}, pending[row["seq"]])
        for row, of, some in zip(rows, bare, spoken, strict=True)
    ]


def bare_of(view: View, row: Found) -> Checkpoint:
    """A checkpoint without its channel values and id; `Unreadable` if the row was changed."""
    view.seal.check(checkpoints, row)
    bare: Checkpoint = view.load(row["thread"], (row["type"], bytes(row["body"])))
    return bare


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
    row: Found,
    bare: Checkpoint,
    values: dict[str, Any],
    written: list[PendingWrite],
) -> CheckpointTuple:
    thread, namespace = row["thread"], text(row["namespace"])
    checkpoint: Any = {**bare, "id": row["id"], "channel_values": values}
    return CheckpointTuple(
        config=config(thread, namespace, row["id"]),
        checkpoint=checkpoint,
        metadata=view.load(thread, (row["metadata_type"], bytes(row["metadata"]))),
        parent_config=config(thread, namespace, row["parent"]) if row["parent"] else None,
        pending_writes=written,
    )


def _spoken(row: Found, bare: Checkpoint) -> Iterable[Version]:
    """The channel versions a checkpoint speaks of."""
    thread, at = row["thread"], bytes(row["place"])
    spoken = bare["channel_versions"].items()
    return ((thread, at, n, v if isinstance(v, str) else version(v)) for n, v in spoken)


def values(view: View, connection: Connection, spoken: Collection[Version]) -> dict[Version, Value]:
    """The values of channel versions, put together from the versions they begin with."""
    found = {_version(row): row for row in _rows(connection, view.tenant, spoken)}
    here = [key for key in spoken if key in found]
    begun = [key for key in here if found[key]["base"] is not None]
    found |= {_version(row): row for row in _bases(connection, view.tenant, begun)}
    for row in found.values():
        view.seal.check(blobs, row)
    return {key: _joined(found, key) for key in here}


def _rows(connection: Connection, tenant: str, spoken: Collection[Version]) -> list[Found]:
    """The rows of channel versions. A version is drawn by lot: it alone finds hardly any others."""
    lists: dict[str, Sequence[Any]] = {
        "threads": sorted({key[0] for key in spoken}),
        "places": sorted({key[1] for key in spoken}),
    }
    found: list[Found] = []
    for some in chunks(sorted({key[3] for key in spoken})):
        found += ROWS.rows(connection, {"of_tenant": tenant}, versions=some, **lists)
    return found


def _bases(connection: Connection, tenant: str, begun: Sequence[Version]) -> list[Found]:
    """The rows of the versions that versions begin with, and what those begin with, and so on."""
    names = [blobs.c[name] for name in (*NAMES, "base")]
    found: list[Found] = []
    for some in chunks(begun, 50):
        wanted = or_(*(and_(*map(operator.eq, names, key)) for key in some))
        chain = select(*names).where(blobs.c.tenant == tenant, wanted).cte("chain", recursive=True)
        its_base = and_(*map(operator.eq, names[:3], chain.c), blobs.c.version == chain.c.base)
        more = select(*names).join(chain, its_base).where(blobs.c.tenant == tenant)
        chain = chain.union(more)
        it = and_(*map(operator.eq, names[:4], chain.c))
        query = with_payloads(blobs).join(chain, it).where(blobs.c.tenant == tenant)
        found += connection.execute(query).mappings()
    return found


def _joined(found: Mapping[Version, Found], key: Version) -> Value:
    """A value put together: the rests of all versions it begins with, then its own."""
    last = stored(found[key])
    base = found[key]["base"]
    if base is None:
        return last
    bodies = [last.body]
    while base is not None:
        row = found.get((*key[:3], base))
        if row is None or len(bodies) > len(found):
            raise Unreadable(thread=key[0], why=f"the beginning of channel {key[2]!r} is missing")
        bodies.append(stored(row).body)
        base = row["base"]
    return Value(last.type, last.head, b"".join(reversed(bodies)))


def _version(row: Found) -> Version:
    return row["thread"], bytes(row["place"]), row["channel"], row["version"]


def written(
    view: View,
    connection: Connection,
    rows: Sequence[Found],
    channels: Collection[str] | None = None,
) -> dict[int, list[PendingWrite]]:
    """The writes at checkpoints, by `seq`, in the order LangGraph applies them."""
    seqs = [row["seq"] for row in rows]
    if channels is None:
        found = WRITTEN.rows(connection, {}, seqs=seqs)
    else:
        found = WRITTEN_TO.rows(connection, {}, seqs=seqs, channels=list(channels))
    pending: dict[int, list[PendingWrite]] = {row["seq"]: [] for row in rows}
    for write in sorted(found, key=_write_order):
        view.seal.check(writes, write)
        value = view.load(write["thread"], stored(write).whole)
        pending[write["seq"]].append((write["task"], write["channel"], value))
    return pending


def _write_order(write: Found) -> tuple[str, str, int]:
    return writes_sort_key(text(write["path"]), write["task"], write["idx"])
