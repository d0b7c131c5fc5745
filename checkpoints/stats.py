"""How much is kept: rows and bytes of each table, bytes of the largest threads."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    String,
    Table,
    func,
    select,
    union_all,
)

from kapelle.checkpoints.tables import metadata


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What one tenant keeps."""

    rows: dict[str, int]
    """By table."""
    bytes: dict[str, int]
    """By table: texts and values, without what the database adds for itself."""
    threads: dict[str, int]
    """Bytes of the largest threads, the largest first."""


def measure(connection: Connection, *, tenant: str, largest: int) -> Stats:
    """Count and add up. It looks at every row."""
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for table in metadata.sorted_tables:
        query = select(func.count(), _size(table)).where(table.c.tenant == tenant)
        title = table.name.removeprefix("kapelle_")
        rows[title], sizes[title] = map(int, connection.execute(query).one())
    return Stats(rows=rows, bytes=sizes, threads=dict(_threads(connection, tenant, largest)))


def _threads(connection: Connection, tenant: str, largest: int) -> Iterable[tuple[str, int]]:
    parts = [
        select(table.c.thread, _size(table).label("size"))
        .where(table.c.tenant == tenant)
        .group_by(table.c.thread)
        for table in metadata.sorted_tables
        if "thread" in table.c
    ]
    all_ = union_all(*parts).subquery()
    total = func.sum(all_.c.size)
    query = select(all_.c.thread, total).group_by(all_.c.thread)
    query = query.order_by(total.desc(), all_.c.thread).limit(largest)
    return ((thread, int(size)) for thread, size in connection.execute(query))


def _size(table: Table) -> ColumnElement[int]:
    held = [column for column in table.c if isinstance(column.type, String | LargeBinary)]
    sizes = [func.coalesce(func.sum(func.length(column)), 0) for column in held]
    return sum(sizes[1:], start=sizes[0])
