"""How checkpoints are found and put together again: a few queries a page, never one a row."""

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, exists, or_, select

from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.folding import unfold
from kapelle.checkpoints.growth import Growth
from kapelle.checkpoints.ids import exact, place, text, version
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.statements import Query
from kapelle.checkpoints.tables import blobs, checkpoints, ordered, writes
from kapelle.checkpoints.tied import place as tied_to
from kapelle.checkpoints.tied import untie
from kapelle.checkpoints.values import Value, chunks, stored, with_payloads
from kapelle.state.errors import Unreadable

Version = tuple[str, bytes, str, str]
"""A channel's version: thread, key of the namespace, channel, version."""

NAMES = ("thread", "place", "channel", "version")
"""The columns of a `Version`."""


def _at(table: Table, *names: str) -> Iterator[ColumnElement[bool]]:
    return (table.c[name] == bindparam(f"of_{name}") for name in names)


PLACE = ("tenant", "thread", "place")

BLOBS = "blobs"
"""Where a checkpoint names the channels whose values are in `blobs`; up to version 0006 nowhere."""

_its_writes = exists().where(
    *(writes.c[name] == checkpoints.c[name] for name in PLACE),
    writes.c.checkpoint == checkpoints.c.id,
)

_HERE = select(checkpoints, _its_writes.label("written")).where(*_at(checkpoints, *PLACE))

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
        among(checkpoints.c.seq, "seqs"),
        or_(among(writes.c.channel, "channels"), writes.c.more.is_not(None)),
    )
)


@dataclass(frozen=True, slots=True)
class View:
    """Whose checkpoints, and how their values are read."""

    tenant: str
    serde: SerializerProtocol
    cipher: CipherProtocol | None
    seal: Seal

    def value(self, table: Table, row: Found) -> Value:
        """The value in a row that `with_payloads` found, or what of it is not in its base."""
        self.seal.check(table, row)
        value = stored(row)
        if self.cipher is None:
            return value
        kind, body = self._clear(table, row, (value.type, value.body))
        return Value(kind, value.head, body)

    def written(self, row: Found) -> Iterator[tuple[int, str, Any]]:
        """What a row of `writes` holds: the numbers, the channels, and the values."""
        yield row["idx"], row["channel"], self.load(row["thread"], self.value(writes, row).whole)
        yield from self.more(row)

    def more(self, row: Found) -> Sequence[tuple[int, str, Any]]:
        """The small writes in the row of another."""
        if row["more"] is None:
            return ()
        kind, _, data = bytes(row["more"]).partition(b"\x00")
        typed = self._clear(writes, row, (kind.decode(), data), "more")
        more: Sequence[tuple[int, str, Any]] = self.load(row["thread"], typed)
        return more

    def is_whole(self, row: Found) -> bool:
        """Whether a row of `checkpoints` is as it was written."""
        return self.seal.holds(checkpoints, row)

    def bare(self, row: Found) -> Checkpoint:
        """A checkpoint without its id and the values in `blobs`; `Unreadable` if it was changed."""
        self.seal.check(checkpoints, row)
        thread = row["thread"]
        bare: Checkpoint = self.load(thread, unfold(*self.column(row, "type", "body"), thread))
        return bare

    def metadata(self, row: Found) -> CheckpointMetadata:
        """The metadata of a checkpoint."""
        typed = self.column(row, "metadata_type", "metadata")
        metadata: CheckpointMetadata = self.load(row["thread"], typed)
        return metadata

    def column(self, row: Found, kind: str, data: str) -> tuple[str, bytes]:
        """What stands in a row of `checkpoints` itself."""
        return self._clear(checkpoints, row, (row[kind], bytes(row[data])), data)

    def _clear(
        self, table: Table, row: Found, typed: tuple[str, bytes], column: str = "body"
    ) -> tuple[str, bytes]:
        """What stands in a column of a row, without its cipher."""
        if self.cipher is None:
            return typed
        return untie(self.cipher, typed, tied_to(table, row, column), row["thread"])

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
    """A checkpoint by its id, or the last one of its thread and namespace.

    If its row is not all there is of it, it is looked for again, in a transaction with the rest.
    """
    query, where = _wanted(view, config)
    row = next(iter(query.at_once(connection, where)), None)
    if row is None:
        return None
    bare = view.bare(row)
    if not row["written"] and not _spoken(row, bare):
        return _tuple(view, row, bare, {}, [])
    found = query.rows(connection, where)
    return tuples(view, connection, found, growth)[0] if found else None


def last(view: View, config: RunnableConfig, connection: Connection) -> Found | None:
    """The row of a checkpoint by its id, or of the last one of its thread and namespace."""
    query, where = _wanted(view, config)
    return next(iter(query.rows(connection, where)), None)


def _wanted(view: View, config: RunnableConfig) -> tuple[Query, Row]:
    configurable = config["configurable"]
    where = {
        "of_tenant": view.tenant,
        "of_thread": exact("thread", configurable["thread_id"]),
        "of_place": place(configurable.get("checkpoint_ns", "")),
    }
    if wanted := configurable.get("checkpoint_id"):
        where["of_id"] = exact("checkpoint id", wanted, 128)
    return (NAMED if wanted else LAST), where


def tuples(
    view: View, connection: Connection, rows: Sequence[Found], growth: Growth | None = None
) -> list[CheckpointTuple]:
    """Rows of `checkpoints` with their channel values and pending writes."""
    if not rows:
        return []
    bare = [view.bare(row) for row in rows]
    spoken = [_spoken(row, of) for row, of in zip(rows, bare, strict=True)]
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
    checkpoint: Any = bare
    checkpoint["id"] = row["id"]
    checkpoint["channel_values"] = {**small_of(bare), **values}
    checkpoint.pop(BLOBS, None)
    return CheckpointTuple(
        config(thread, namespace, row["id"]),
        checkpoint,
        view.metadata(row),
        config(thread, namespace, row["parent"]) if row["parent"] else None,
        written,
    )


def _spoken(row: Found, bare: Checkpoint) -> list[Version]:
    """The channel versions whose values a checkpoint doesn't hold itself."""
    names = apart_of(bare)
    if not names:
        return []
    thread, at, versions = row["thread"], bytes(row["place"]), bare["channel_versions"]
    return [(thread, at, name, version(versions[name])) for name in names]


def apart_of(bare: Checkpoint) -> Collection[str]:
    """The channels whose values may be in `blobs`."""
    its: Any = bare
    versions = bare["channel_versions"]
    if BLOBS in its:
        return [name for name in its[BLOBS] if name in versions]
    return versions.keys() - small_of(bare).keys()


def small_of(bare: Checkpoint) -> dict[str, Any]:
    """The values that stand in a checkpoint itself; before version 0006 there were none."""
    return bare.get("channel_values") or {}


def values(view: View, connection: Connection, spoken: Collection[Version]) -> dict[Version, Value]:
    """The values of channel versions, put together from the versions they begin with."""
    found = {_version(row): row for row in _rows(connection, view.tenant, spoken)}
    here = [key for key in spoken if key in found]
    begun = [key for key in here if found[key]["base"] is not None]
    found |= {_version(row): row for row in _bases(connection, view.tenant, begun)}
    pieces = {key: view.value(blobs, row) for key, row in found.items()}
    return {key: _joined(found, pieces, key) for key in here}


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


def _joined(found: Mapping[Version, Found], pieces: Mapping[Version, Value], key: Version) -> Value:
    """A value put together: the rests of all versions it begins with, then its own."""
    last = pieces[key]
    base = found[key]["base"]
    if base is None:
        return last
    bodies = [last.body]
    while base is not None:
        beginning = (*key[:3], base)
        if beginning not in found or len(bodies) > len(found):
            raise Unreadable(thread=key[0], why=f"the beginning of channel {key[2]!r} is missing")
        bodies.append(pieces[beginning].body)
        base = found[beginning]["base"]
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
    seqs = [row["seq"] for row in rows if row.get("written", True)]
    if channels is None:
        found = WRITTEN.rows(connection, {}, seqs=seqs)
    else:
        found = WRITTEN_TO.rows(connection, {}, seqs=seqs, channels=list(channels))
    pending: dict[int, dict[Any, PendingWrite]] = {row["seq"]: {} for row in rows}
    for row in sorted(found, key=itemgetter("idx")):
        its, path, task = pending[row["seq"]], text(row["path"]), row["task"]
        for idx, channel, value in view.written(row):
            if channels is None or channel in channels:
                its.setdefault(writes_sort_key(path, task, idx), (task, channel, value))
    return {seq: [its[order] for order in sorted(its)] for seq, its in pending.items()}
