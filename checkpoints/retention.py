"""What is forgotten: whole threads, or checkpoints with all that only they need.

A damaged checkpoint needs not be understood to be forgotten. Where one is kept, all that it may
need is kept, and where it would be the newest, so is the newest that is whole.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Found
from kapelle.checkpoints.ids import version
from kapelle.checkpoints.marks import mark
from kapelle.checkpoints.reading import View, apart_of, small_of
from kapelle.checkpoints.standing import settle
from kapelle.checkpoints.tables import (
    accounts,
    asks,
    blobs,
    checkpoints,
    effects,
    events,
    marks,
    payloads,
    runs,
    spends,
    writes,
)
from kapelle.checkpoints.values import chunks
from kapelle.state.errors import BadId, Unreadable

THREADED: tuple[Table, ...] = (checkpoints, blobs, writes, payloads, asks)
"""Tables whose rows belong to a thread of the saver's."""

Held = tuple[bytes, str, str]
"""A channel's version: the key of the namespace, channel, version."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What of a thread is kept; what the kept ones build on is kept as well."""

    newest: int = 1
    """Checkpoints of each namespace, damaged ones not counted."""
    seconds: float | None = None
    """Checkpoints younger than this, by the database's clock."""


def forget(view: View, connection: Connection, *, threads: Sequence[str], strategy: str) -> None:
    """Forget threads, or all but the last checkpoint of each of their namespaces."""
    if strategy not in ("keep_latest", "delete"):
        raise BadId(what="strategy", value=strategy, why="it is neither keep_latest nor delete")
    for thread in threads:
        if strategy == "delete":
            delete_thread(connection, view.tenant, thread)
        else:
            prune(view, connection, thread=thread, keep=Keep())


def delete_thread(connection: Connection, tenant: str, thread: str) -> None:
    """Forget all that the saver holds of a thread."""
    its = select(checkpoints.c.seq).where(of(checkpoints, tenant, thread))
    connection.execute(delete(marks).where(marks.c.tenant == tenant, marks.c.seq.in_(its)))
    for table in reversed(THREADED):
        connection.execute(delete(table).where(of(table, tenant, thread)))


def forget_all(connection: Connection, *, tenant: str, thread: str) -> None:
    """Forget a thread with its run, its journal, its book and what its agents did."""
    delete_thread(connection, tenant, thread)
    for table in (runs, events, effects, accounts, spends):
        connection.execute(delete(table).where(of(table, tenant, thread)))


def forget_runs(view: View, connection: Connection, *, ids: Sequence[str]) -> None:
    """Forget the checkpoints whose metadata name one of these runs."""
    wanted = [hashed for run in ids if (hashed := mark("run_id", run)) is not None]
    gone: list[Found] = []
    for some in chunks(wanted):
        query = (
            select(checkpoints)
            .join(marks, (marks.c.tenant == view.tenant) & (marks.c.seq == checkpoints.c.seq))
            .where(checkpoints.c.tenant == view.tenant, marks.c.mark.in_(some))
        )
        gone += connection.execute(query).mappings()
    _drop(connection, gone)
    for thread in sorted({row["thread"] for row in gone}):
        _sweep(view, connection, thread)


def prune(view: View, connection: Connection, *, thread: str, keep: Keep) -> int:
    """Forget all of a thread that is not to be kept; how many checkpoints that were.

    `Unreadable` if what a delta channel is put together from is damaged: then nothing is forgotten.
    """
    young = db_now() - keep.seconds if keep.seconds is not None else None
    is_young = (checkpoints.c.at >= young) if young is not None else None
    columns = [checkpoints] if is_young is None else [checkpoints, is_young.label("young")]
    query = select(*columns).where(of(checkpoints, view.tenant, thread))
    rows = connection.execute(query.order_by(checkpoints.c.seq.desc())).mappings().all()
    kept = {row["seq"]: row for row in rows if is_young is not None and row["young"]}
    kept |= {row["seq"]: row for row in _newest(view, rows, keep.newest)}
    needed = {seq for row in kept.values() for seq in _built_on(view, connection, row, rows)}
    gone = [row for row in rows if row["seq"] not in kept and row["seq"] not in needed]
    if gone:
        _drop(connection, gone)
        _sweep(view, connection, thread)
    return len(gone)


def idle(connection: Connection, *, tenant: str, seconds: float) -> list[str]:
    """Threads without a checkpoint younger than this, and without a run that is not finished."""
    open_ = select(runs.c.thread).where(
        runs.c.tenant == tenant, runs.c.status.in_(("running", "waiting"))
    )
    query = (
        select(checkpoints.c.thread)
        .where(checkpoints.c.tenant == tenant, checkpoints.c.thread.not_in(open_))
        .group_by(checkpoints.c.thread)
        .having(func.max(checkpoints.c.at) < db_now() - seconds)
    )
    return list(connection.scalars(query.order_by(checkpoints.c.thread)))


def threads(connection: Connection, *, tenant: str) -> list[str]:
    """All threads with checkpoints."""
    query = select(checkpoints.c.thread).where(checkpoints.c.tenant == tenant).distinct()
    return list(connection.scalars(query.order_by(checkpoints.c.thread)))


def of(table: Table, tenant: str, thread: str) -> ColumnElement[bool]:
    """Rows of one thread."""
    return (table.c.tenant == tenant) & (table.c.thread == thread)


def _newest(view: View, rows: Iterable[Found], most: int) -> Iterator[Found]:
    """The first so many of each namespace that are whole, and the damaged ones before the last."""
    whole: Counter[bytes] = Counter()
    for row in rows:
        place = bytes(row["place"])
        if whole[place] < most:
            yield row
            whole[place] += view.is_whole(row)


def _built_on(
    view: View, connection: Connection, row: Found, rows: Sequence[Found]
) -> Iterator[int]:
    """The ancestors whose writes a checkpoint's delta channels are put together from."""
    if not view.is_whole(row):
        return
    counters: Any = view.metadata(row).get("counters_since_delta_snapshot", ())
    missing = set(counters)
    if not missing:
        return
    here = {r["id"]: r for r in rows if bytes(r["place"]) == bytes(row["place"])}
    parent = here.get(row["parent"] or "")
    while missing and parent is not None:
        yield parent["seq"]
        missing -= _snapshots(view, connection, parent)
        parent = here.get(parent["parent"] or "")


def _snapshots(view: View, connection: Connection, row: Found) -> set[str]:
    """The channels whose value is stored at a checkpoint."""
    if not view.is_whole(row):
        raise Unreadable(
            thread=row["thread"],
            why=f"checkpoint {row['id']}, which later ones are put together from, was changed; "
            "restore a backup, or forget the whole thread",
        )
    bare = view.bare(row)
    versions = {channel: version(bare["channel_versions"][channel]) for channel in apart_of(bare)}
    query = select(blobs.c.channel, blobs.c.version).where(
        of(blobs, view.tenant, row["thread"]),
        blobs.c.place == row["place"],
        blobs.c.version.in_(set(versions.values())),
    )
    found = {r.channel for r in connection.execute(query) if versions.get(r.channel) == r.version}
    return found | small_of(bare).keys()


def _drop(connection: Connection, rows: Sequence[Found]) -> None:
    """Delete checkpoints with their marks and writes; how asks stand was to be seen of them."""
    for tenant, thread in sorted({(row["tenant"], row["thread"]) for row in rows}):
        settle(connection, tenant=tenant, thread=thread)
    for row in rows:
        of_it = of(writes, row["tenant"], row["thread"]) & (writes.c.checkpoint == row["id"])
        connection.execute(delete(writes).where(of_it, writes.c.place == row["place"]))
        of_its = (marks.c.tenant == row["tenant"]) & (marks.c.seq == row["seq"])
        connection.execute(delete(marks).where(of_its))
        connection.execute(delete(checkpoints).where(checkpoints.c.seq == row["seq"]))


def _sweep(view: View, connection: Connection, thread: str) -> None:
    """Delete the channel versions and payloads of a thread that nothing points to any more."""
    its = of(blobs, view.tenant, thread)
    query = select(blobs.c.place, blobs.c.channel, blobs.c.version, blobs.c.base).where(its)
    bases: dict[Held, str | None] = {
        (bytes(place), channel, at): base for place, channel, at, base in connection.execute(query)
    }
    for place, channel, at in bases.keys() - _used(view, connection, thread, bases):
        here = (blobs.c.place == place) & (blobs.c.channel == channel) & (blobs.c.version == at)
        connection.execute(delete(blobs).where(its, here))
    pointed = [
        select(table.c.payload).where(of(table, view.tenant, thread), table.c.payload.is_not(None))
        for table in (blobs, writes)
    ]
    unused = [payloads.c.hash.not_in(query) for query in pointed]
    connection.execute(delete(payloads).where(of(payloads, view.tenant, thread), *unused))


def _used(
    view: View, connection: Connection, thread: str, bases: dict[Held, str | None]
) -> Collection[Held]:
    """The channel versions that checkpoints speak of, and those that they begin with."""
    used: set[Held] = set()
    left = select(checkpoints).where(of(checkpoints, view.tenant, thread))
    for row in connection.execute(left).mappings():
        if not view.is_whole(row):
            used |= {held for held in bases if held[0] == bytes(row["place"])}
            continue
        for channel, at in view.bare(row)["channel_versions"].items():
            held: Held | None = (bytes(row["place"]), channel, version(at))
            while held is not None and held not in used:
                used.add(held)
                base = bases.get(held)
                held = None if base is None else (held[0], channel, base)
    return used
