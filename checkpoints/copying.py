"""A thread copied to another name, with all that the saver holds of it."""

from sqlalchemy import Connection, Table, insert, select

from kapelle.checkpoints import inbox
from kapelle.checkpoints.reading import View
from kapelle.checkpoints.retention import of
from kapelle.checkpoints.statements import Row
from kapelle.checkpoints.tables import blobs, checkpoints, marks, payloads, writes
from kapelle.state.errors import BadId


def copy(view: View, connection: Connection, *, source: str, target: str) -> None:
    """Copy a thread to one that does not exist yet. What it asks is asked of the copy as well."""
    there = select(checkpoints.c.seq).where(of(checkpoints, view.tenant, target)).limit(1)
    if connection.scalar(there) is not None:
        raise BadId(what="target thread", value=target, why="it exists already")
    for table in (payloads, blobs, writes, checkpoints):
        query = select(table).where(of(table, view.tenant, source))
        if table is checkpoints:
            query = query.order_by(checkpoints.c.seq)
        for row in connection.execute(query).mappings().all():
            connection.execute(insert(table), _renamed(view, table, dict(row), target))
    _copy_marks(view, connection, source, target)
    inbox.copy(connection, tenant=view.tenant, source=source, target=target)


def _renamed(view: View, table: Table, row: Row, target: str) -> Row:
    row = {name: value for name, value in row.items() if name != "seq"} | {"thread": target}
    return row if table is payloads else {**row, "seal": view.seal.on(table, row)}


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
