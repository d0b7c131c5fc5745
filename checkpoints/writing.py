"""What is ordered of the desk when LangGraph saves a checkpoint or the writes of a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Interrupt
from sqlalchemy import ColumnElement, Table, bindparam, exists, or_, select, union_all

from kapelle.checkpoints import inbox
from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.folding import fold
from kapelle.checkpoints.growth import Channel, Growth
from kapelle.checkpoints.ids import exact, place, raw, version
from kapelle.checkpoints.marks import marks_of
from kapelle.checkpoints.reading import BLOBS
from kapelle.checkpoints.reading import config as named
from kapelle.checkpoints.seal import Seal
from kapelle.checkpoints.statements import Statement, keep_first, locks, replace, replace_if
from kapelle.checkpoints.tables import HASH, blobs, checkpoints, marks, ordered, writes
from kapelle.checkpoints.tied import place as tied_to
from kapelle.checkpoints.tied import tie
from kapelle.checkpoints.values import INSERT as INSERT_PAYLOADS
from kapelle.checkpoints.values import Value, apart, columns, is_small
from kapelle.state.errors import PayloadTooLarge, ThreadBusy

Rows = list[tuple[Statement, Sequence[Row]]]
"""Statements with their rows."""

Write = tuple[int, str, Any]
"""What a task wrote: its number, the channel, and the value."""

FIRST = 0
"""The number of a task's first ordinary write; those that say what happened to it are below."""

CONTROL = frozenset((ERROR, "__error_source_node__", INTERRUPT, RESUME))
"""Channels that say what happened to a task, not what it wrote."""

BRANCHES = frozenset(("fork", "update"))
"""Sources of checkpoints that are meant to branch off, wherever their parent stands."""

KEY = ("tenant", "thread", "id", "place")
"""What names a checkpoint."""

_other, _base = checkpoints.alias("other"), blobs.alias("base")

_newest = (
    select(_other.c.id)
    .where(*(_other.c[k] == bindparam(f"of_{k}") for k in ("tenant", "thread", "place")))
    .where(ordered(_other.c.seq))
    .order_by(_other.c.seq.desc())
    .limit(1)
    .subquery("newest")
)

MAY_FOLLOW: ColumnElement[bool] = or_(
    bindparam("of_branch") == 1,
    ~exists().where(_newest.c.id != bindparam("of_parent"), _newest.c.id != bindparam("of_id")),
)
"""A checkpoint follows the newest one, or is meant to branch off."""

BASE_IS_THERE: ColumnElement[bool] = exists().where(
    *(_base.c[k] == bindparam(f"of_{k}") for k in ("tenant", "thread", "place", "channel")),
    _base.c.version == bindparam("of_base"),
)
"""The version a value begins with has not been forgotten meanwhile."""

INSERT_BLOBS = replace(blobs)
INSERT_RESTS = replace_if(blobs, BASE_IS_THERE)
LOCK_PARENT = locks(checkpoints, "tenant", "thread", "place", "id")
INSERT_CHECKPOINT = replace_if(checkpoints, MAY_FOLLOW, KEY, at=db_now())
INSERT_WRITES = keep_first(writes)
REPLACE_WRITES = replace(writes)


@cache
def insert_marks(many: int) -> Statement:
    """Index a checkpoint by so many hashes, `mark_0` and so on."""
    names = (bindparam(f"mark_{number}", type_=HASH) for number in range(many))
    its = union_all(*(select(name.label("mark")) for name in names)).subquery()
    here = (checkpoints.c[k] == bindparam(f"of_{k}") for k in KEY)
    return keep_first(
        marks, select(checkpoints.c.tenant, checkpoints.c.seq, its.c.mark).where(*here)
    )


@dataclass(frozen=True, slots=True)
class Spot:
    """A namespace of a thread of a tenant."""

    tenant: str
    thread: str
    namespace: str

    @classmethod
    def of(cls, tenant: str, config: RunnableConfig) -> "Spot":
        """What a config speaks of."""
        configurable = config["configurable"]
        thread = exact("thread", configurable["thread_id"])
        return cls(tenant, thread, configurable.get("checkpoint_ns", ""))

    @property
    def row(self) -> Row:
        """Its columns."""
        return {"tenant": self.tenant, "thread": self.thread, "place": place(self.namespace)}


@dataclass(frozen=True, slots=True)
class Pen:
    """How values are written."""

    serde: SerializerProtocol
    cipher: CipherProtocol | None
    most: int
    """Bytes of the largest value."""
    growth: Growth
    seal: Seal

    def sealed(self, table: Table, row: Row) -> Row:
        """A row with its seal."""
        return {**row, "seal": self.seal.on(table, row)}

    def typed(self, what: str, value: object) -> tuple[str, bytes]:
        """The type and the bytes of a value; `PayloadTooLarge` before anything is written."""
        kind, data = self.serde.dumps_typed(value)
        if len(data) > self.most:
            raise PayloadTooLarge(what=what, size=len(data), limit=self.most)
        return kind, data

    def value(self, what: str, value: object) -> Value:
        """The same, taken apart."""
        return apart(self.typed(what, value))

    def row(
        self, table: Table, row: Row, value: Value, long: list[Row], more: Sequence[Write] = ()
    ) -> Row:
        """A row with a value in it, and more writes; `long` gets a payload if it needs one."""
        row = {**row, "head": value.head}
        if table is writes:
            row["more"] = self._more(row, more) if more else None
        if self.cipher is not None:
            kind, body = tie(self.cipher, (value.type, value.body), tied_to(table, row))
            value = Value(kind, value.head, body)
        row |= columns(row["tenant"], row["thread"], value, long)
        return self.sealed(table, row)

    def _more(self, row: Row, more: Sequence[Write]) -> bytes:
        typed = self.typed("the writes of a task", more)
        kind, data = tie(self.cipher, typed, tied_to(writes, row, "more"))
        return kind.encode() + b"\x00" + data

    def column(self, row: Row, kind: str, data: str, typed: tuple[str, bytes]) -> Row:
        """Two columns of a row of `checkpoints`, which hold this."""
        type_, body = tie(self.cipher, typed, tied_to(checkpoints, row, data))
        return {kind: type_, data: body}


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint on its way to the desk."""

    order: Order[None]
    config: RunnableConfig
    """How LangGraph names it."""
    values: dict[Channel, tuple[str, Value]]
    """The changed channels: version and value."""

    def done(self, growth: Growth) -> RunnableConfig:
        """It is stored: what grows now grows from here."""
        for channel, (at, value) in self.values.items():
            growth.hold(channel, at, value)
        return self.config


def checkpoint(
    pen: Pen,
    spot: Spot,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    *,
    addressed: bool,
) -> Saved:
    """A checkpoint with the channels that changed. `addressed`: its run began at a named parent."""
    described = get_checkpoint_metadata(config, metadata)
    here = spot.row
    row = {
        **here,
        "id": exact("checkpoint id", checkpoint["id"], 128),
        "namespace": raw(spot.namespace),
        "parent": config["configurable"].get("checkpoint_id") or None,
    }
    values = checkpoint["channel_values"]
    small = {name: value for name, value in values.items() if is_small(value)}
    bare = {**checkpoint, "channel_values": small, BLOBS: sorted(values.keys() - small.keys())}
    row |= _bodies(pen, row, bare, described)
    changed = {
        (spot.thread, here["place"], exact("channel", name)): (
            version(new_versions[name]),
            pen.value(f"channel {name!r}", value),
        )
        for name, value in values.items()
        if name in new_versions and name not in small
    }
    source = described.get("source")
    free = addressed or source in BRANCHES or bool(spot.namespace)
    free = free or row["parent"] is None
    rows = _checkpoint_rows(pen.sealed(checkpoints, row), marks_of(described), free=free)
    order: Order[None] = Order(_values(pen, spot, changed, grown=True) + rows)
    whole = partial(_values, pen, spot, changed, grown=False)
    order.otherwise = lambda unmet: _otherwise(unmet, spot, whole, rows)
    return Saved(order, named(spot.thread, spot.namespace, row["id"]), changed)


def of_task(
    pen: Pen,
    spot: Spot,
    checkpoint_id: str,
    task: str,
    path: str,
    written: Sequence[tuple[str, Any]],
) -> Order[None]:
    """What a task wrote in a step."""
    here = {
        **spot.row,
        "checkpoint": exact("checkpoint id", checkpoint_id, 128),
        "task": exact("task id", task, 128),
        "path": raw(path),
    }
    long: list[Row] = []
    rows: list[Row] = []
    listed, more = _listed(written)
    for idx, channel, value in listed:
        its = pen.value(f"a write to {channel!r}", value)
        row = {**here, "idx": idx, "channel": channel}
        rows.append(pen.row(writes, row, its, long, more if idx == FIRST else ()))
    order: Order[None] = Order(
        [
            (INSERT_PAYLOADS, long),
            (INSERT_WRITES, [row for row in rows if row["idx"] >= 0]),
            (REPLACE_WRITES, [row for row in rows if row["idx"] < 0]),
        ],
        can_wait=True,
    )
    if not spot.namespace:
        _tell_inbox(order, here, written)
    return order


def _listed(written: Sequence[tuple[str, Any]]) -> tuple[list[Write], list[Write]]:
    """Writes with their numbers: those with a row each, and those in the row of the first."""
    listed = [
        (WRITES_IDX_MAP.get(channel, position), exact("channel", channel), value)
        for position, (channel, value) in enumerate(written)
    ]
    if not listed or listed[0][0] != FIRST:
        return listed, []
    here: list[Write] = []
    more: list[Write] = []
    for one in listed:
        (more if one[0] > FIRST and is_small(one[2]) else here).append(one)
    return here, more


def _bodies(pen: Pen, row: Row, checkpoint: dict[str, Any], described: CheckpointMetadata) -> Row:
    """What stands in the row of a checkpoint: all but its id, which has a column, and `blobs`."""
    bare = {key: value for key, value in checkpoint.items() if key != "id"}
    return {
        **pen.column(row, "type", "body", fold(*pen.typed("the checkpoint", bare))),
        **pen.column(row, "metadata_type", "metadata", pen.typed("the metadata", described)),
    }


def _values(pen: Pen, spot: Spot, values: dict[Channel, tuple[str, Value]], *, grown: bool) -> Rows:
    """The rows of channel versions: of what has grown the rest alone, if that is wanted."""
    long: list[Row] = []
    whole: list[Row] = []
    rests: list[Row] = []
    for channel, (at, value) in values.items():
        new, base = pen.growth.rest(channel, value) if grown else (value, None)
        row = {**spot.row, "channel": channel[2], "version": at, "base": base}
        (whole if base is None else rests).append(pen.row(blobs, row, new, long))
    keys = (*spot.row, "channel", "base")
    rests = [{**row, **{f"of_{k}": row[k] for k in keys}} for row in rests]
    return [(INSERT_PAYLOADS, long), (INSERT_BLOBS, whole), (INSERT_RESTS, rests)]


def _checkpoint_rows(row: Row, hashes: Sequence[bytes], *, free: bool) -> Rows:
    of = {f"of_{k}": row[k] for k in KEY}
    follows = {**row, **of, "of_parent": row["parent"] or "", "of_branch": int(free)}
    parent = {k: row[k] for k in ("tenant", "thread", "place")} | {"id": row["parent"]}
    rows: Rows = [
        (LOCK_PARENT, [] if free else [parent]),
        (INSERT_CHECKPOINT, [follows]),
    ]
    if hashes:
        marked = {f"mark_{number}": hashed for number, hashed in enumerate(hashes)}
        rows.append((insert_marks(len(hashes)), [{**marked, **of}]))
    return rows


def _otherwise(unmet: str, spot: Spot, whole: Any, rows: Rows) -> Order[None]:
    """A base is gone: store all. The thread went on without us: say so."""
    if unmet == blobs.name:
        return Order(whole() + rows, otherwise=lambda _: _otherwise(_, spot, whole, rows))
    raise ThreadBusy(thread=spot.thread, holder="another run, which is ahead")


def _tell_inbox(order: Order[None], here: Row, written: Sequence[tuple[str, Any]]) -> None:
    asked = [value for channel, value in written if channel == INTERRUPT]
    if asked and all(channel in CONTROL for channel, _ in written):
        context = {k: here[k] for k in ("tenant", "thread", "checkpoint", "task")}
        order.work = partial(inbox.asked, interrupts=_interrupts(asked), **context)


def _interrupts(values: Sequence[Any]) -> list[Interrupt[Any]]:
    """What was written to the channel of interrupts: several, one, none, or something else."""
    listed = (
        v for value in values for v in (value if isinstance(value, list | tuple) else [value])
    )
    return [value for value in listed if isinstance(value, Interrupt)]
