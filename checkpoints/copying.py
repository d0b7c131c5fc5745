"""A thread copied to another name, with all that the saver holds of it."""

from sqlalchemy import Connection, Table, insert, select

from kapelle.checkpoints import inbox
from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.reading import View
from kapelle.checkpoints.retention import of
from kapelle.checkpoints.tables import blobs, checkpoints, marks, writes
from kapelle.checkpoints.values import INSERT as INSERT_PAYLOADS
from kapelle.checkpoints.values import with_payloads
from kapelle.checkpoints.writing import Pen
from kapelle.state.errors import BadId


def copy(view: View, pen: Pen, connection: Connection, *, source: str, target: str) -> None:
    """Copy a thread to one that does not exist yet. What it asks is asked of the copy as well.

    Each row is read, so that what was changed is not taken for what was written, and written
    anew, since a row is sealed, and its value encrypted, for the thread it belongs to.
    """
    there = select(checkpoints.c.seq).where(of(checkpoints, view.tenant, target)).limit(1)
    if connection.scalar(there) is not None:
        raise BadId(what="target thread", value=target, why="it exists already")
    for table in (blobs, writes):
        query = with_payloads(table).where(of(table, view.tenant, source))
        for row in connection.execute(query).mappings().all():
            long: list[Row] = []
            at = _renamed(table, row, target)
            more = view.more(row) if table is writes else ()
            new = pen.row(table, at, view.value(table, row), long, more)
            connection.execute(insert(table), new)
            if long:
                INSERT_PAYLOADS.run(connection, long)
    query = select(checkpoints).where(of(checkpoints, view.tenant, source))
    for row in connection.execute(query.order_by(checkpoints.c.seq)).mappings().all():
        connection.execute(insert(checkpoints), _checkpoint(view, pen, row, target))
    _copy_marks(view, connection, source, target)
    inbox.copy(connection, tenant=view.tenant, source=source, target=target)


def _renamed(table: Table, row: Found, target: str) -> Row:
    return {column.name: row[column.name] for column in table.c} | {"thread": target}


def _checkpoint(view: View, pen: Pen, row: Found, target: str) -> Row:
    view.seal.check(checkpoints, row)
    new = _renamed(checkpoints, row, target)
    del new["seq"]
    for kind, data in (("type", "body"), ("metadata_type", "metadata")):
        new |= pen.column(new, kind, data, view.column(row, kind, data))
    return pen.sealed(checkpoints, new)


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
