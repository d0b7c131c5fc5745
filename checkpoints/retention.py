"""What is forgotten and copied: whole threads, or checkpoints with all that only they need."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, delete, insert, literal, select

from kapelle.checkpoints.ids import version
from kapelle.checkpoints.marks import mark
from kapelle.checkpoints.reading import View
from kapelle.checkpoints.tables import asks, blobs, checkpoints, marks, payloads, writes
from kapelle.checkpoints.values import chunks
from kapelle.state.errors import BadId

THREADED: tuple[Table, ...] = (checkpoints, blobs, writes, payloads, asks)
"""Tables whose rows belong to a thread of the saver's."""


def forget(view: View, connection: Connection, *, threads: Sequence[str], strategy: str) -> None:
    """Forget threads, or all but the last checkpoint of each of their namespaces."""
    if strategy not in ("keep_latest", "delete"):
        raise BadId(what="strategy", value=strategy, why="it is neither keep_latest nor delete")
    for thread in threads:
        if strategy == "delete":
            _delete(connection, view.tenant, thread)
        else:
            _keep_latest(view, connection, thread)


def forget_runs(view: View, connection: Connection, *, runs: Sequence[str]) -> None:
    """Forget the checkpoints whose metadata name one of these runs."""
    wanted = [hashed for run in runs if (hashed := mark("run_id", run)) is not None]
    gone: list[RowMapping] = []
    for some in chunks(wanted):
        query = (
            select(checkpoints)
            .join(marks, (marks.c.tenant == view.tenant) & (marks.c.seq == checkpoints.c.seq))
            .where(checkpoints.c.tenant == view.tenant, marks.c.mark.in_(some))
        )
        gone += connection.execute(query).mappings().all()
    _drop(connection, gone)
    for thread in sorted({row["thread"] for row in gone}):
        _sweep(view, connection, thread)


def copy(view: View, connection: Connection, *, source: str, target: str) -> None:
    """Copy a thread to one that does not exist yet. What it asks is asked of the copy as well."""
    there = select(checkpoints.c.seq).where(_of(checkpoints, view.tenant, target)).limit(1)
    if connection.scalar(there) is not None:
        raise BadId(what="target thread", value=target, why="it exists already")
    for table in (blobs, writes, payloads, checkpoints):
        copied = [c for c in table.c if c.name != "seq"]
        names = [c.name for c in copied]
        shown = [literal(target).label("thread") if c.name == "thread" else c for c in copied]
        query = select(*shown).where(_of(table, view.tenant, source))
        if table is checkpoints:
            query = query.order_by(checkpoints.c.seq)
        connection.execute(insert(table).from_select(names, query))
    _copy_marks(view, connection, source, target)


def _copy_marks(view: View, connection: Connection, source: str, target: str) -> None:
    new, old = checkpoints.alias(), checkpoints.alias()
    twins = (new.c.id == old.c.id) & (new.c.place == old.c.place)
    query = (
        select(marks.c.tenant, new.c.seq, marks.c.mark)
        .join(old, (old.c.tenant == marks.c.tenant) & (old.c.seq == marks.c.seq))
        .join(new, (new.c.tenant == old.c.tenant) & twins)
        .where(marks.c.tenant == view.tenant, old.c.thread == source, new.c.thread == target)
    )
    connection.execute(insert(marks).from_select(["tenant", "seq", "mark"], query))


def _of(table: Table, tenant: str, thread: str) -> ColumnElement[bool]:
    return (table.c.tenant == tenant) & (table.c.thread == thread)


def _delete(connection: Connection, tenant: str, thread: str) -> None:
    its = select(checkpoints.c.seq).where(_of(checkpoints, tenant, thread))
    connection.execute(delete(marks).where(marks.c.tenant == tenant, marks.c.seq.in_(its)))
    for table in reversed(THREADED):
        connection.execute(delete(table).where(_of(table, tenant, thread)))


def _keep_latest(view: View, connection: Connection, thread: str) -> None:
    query = select(checkpoints).where(_of(checkpoints, view.tenant, thread))
    rows = connection.execute(query.order_by(checkpoints.c.seq)).mappings().all()
    latest = {bytes(row["place"]): row for row in rows}
    kept = {row["seq"] for row in latest.values()}
    for row in latest.values():
        kept |= _built_on(view, connection, row, rows)
    _drop(connection, [row for row in rows if row["seq"] not in kept])
    _sweep(view, connection, thread)


def _built_on(
    view: View, connection: Connection, row: RowMapping, rows: Sequence[RowMapping]
) -> set[int]:
    """The ancestors whose writes a checkpoint's delta channels are put together from."""
    metadata = view.load(row["thread"], (row["metadata_type"], bytes(row["metadata"])))
    missing = set(metadata.get("counters_since_delta_snapshot", ()))
    here = {r["id"]: r for r in rows if bytes(r["place"]) == bytes(row["place"])}
    found: set[int] = set()
    parent = here.get(row["parent"] or "")
    while missing and parent is not None:
        found.add(parent["seq"])
        missing -= _snapshots(view, connection, parent)
        parent = here.get(parent["parent"] or "")
    return found


def _snapshots(view: View, connection: Connection, row: RowMapping) -> set[str]:
    """The channels whose value is stored at a checkpoint."""
    bare = view.load(row["thread"], (row["type"], bytes(row["body"])))
    versions = {channel: version(v) for channel, v in bare["channel_versions"].items()}
    query = select(blobs.c.channel, blobs.c.version).where(
        _of(blobs, view.tenant, row["thread"]),
        blobs.c.place == row["place"],
        blobs.c.version.in_(set(versions.values())),
    )
    return {r.channel for r in connection.execute(query) if versions.get(r.channel) == r.version}


def _drop(connection: Connection, rows: Sequence[RowMapping]) -> None:
    """Delete checkpoints with their marks and writes."""
    for row in rows:
        of_it = (writes.c.tenant == row["tenant"]) & (writes.c.thread == row["thread"])
        at_it = (writes.c.place == row["place"]) & (writes.c.checkpoint == row["id"])
        connection.execute(delete(writes).where(of_it, at_it))
        connection.execute(
            delete(marks).where(marks.c.tenant == row["tenant"], marks.c.seq == row["seq"])
        )
        connection.execute(delete(checkpoints).where(checkpoints.c.seq == row["seq"]))


def _sweep(view: View, connection: Connection, thread: str) -> None:
    """Delete the channel versions and payloads of a thread that nothing points to any more."""
    left = connection.execute(
        select(checkpoints.c.place, checkpoints.c.type, checkpoints.c.body).where(
            _of(checkpoints, view.tenant, thread)
        )
    )
    used: set[tuple[bytes, str, str]] = set()
    for row in left:
        bare = view.load(thread, (row.type, bytes(row.body)))
        used |= {(bytes(row.place), c, version(v)) for c, v in bare["channel_versions"].items()}
    there = connection.execute(
        select(blobs.c.place, blobs.c.channel, blobs.c.version).where(
            _of(blobs, view.tenant, thread)
        )
    ).all()
    for place, channel, at in there:
        if (bytes(place), channel, at) not in used:
            connection.execute(
                delete(blobs).where(
                    _of(blobs, view.tenant, thread),
                    blobs.c.place == place,
                    blobs.c.channel == channel,
                    blobs.c.version == at,
                )
            )
    _sweep_payloads(connection, view.tenant, thread)


def _sweep_payloads(connection: Connection, tenant: str, thread: str) -> None:
    pointed = [
        select(table.c.payload).where(_of(table, tenant, thread), table.c.payload.is_not(None))
        for table in (blobs, writes)
    ]
    unused = [payloads.c.hash.not_in(query) for query in pointed]
    connection.execute(delete(payloads).where(_of(payloads, tenant, thread), *unused))
