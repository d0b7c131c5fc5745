"""How asks stand: what is stored of them, and whether their run went on since.

No step of a run writes of asks: whoever looks sees that the task has written since, or that the
thread has a newer checkpoint. Only before that could be forgotten it is stored.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, or_, select, update

from kapelle.checkpoints.tables import asks, checkpoints, ordered, writes

OPEN = ("pending", "claimed")
"""It waits for an answer, or for its answer to be applied."""

settled = case(
    (asks.c.status == "pending", "superseded"),
    (asks.c.status == "claimed", "applied"),
    else_=asks.c.status,
)
"""How an ask stands once its run went on: what was claimed is applied, the rest superseded."""

_own, _later = checkpoints.alias("own"), checkpoints.alias("later")

_task_went_on = exists().where(
    *(writes.c[k] == asks.c[k] for k in ("tenant", "thread", "checkpoint", "task")),
    writes.c.place == b"",
    writes.c.idx >= 0,
)
"""The task has finished: what it wrote is there, beside what it had asked."""

_newest = (
    select(_later.c.id)
    .where(*(_later.c[k] == asks.c[k] for k in ("tenant", "thread")))
    .where(_later.c.place == b"", ordered(_later.c.seq))
    .order_by(_later.c.seq.desc())
    .limit(1)
    .scalar_subquery()
)

_thread_went_on = and_(
    _newest != asks.c.checkpoint,
    exists().where(
        *(_own.c[k] == asks.c[k] for k in ("tenant", "thread")),
        _own.c.place == b"",
        _own.c.id == asks.c.checkpoint,
    ),
)
"""There is a later checkpoint. An ask may be there before its own checkpoint is."""

_went_on = or_(_task_went_on, _thread_went_on)

status: ColumnElement[str] = case((_went_on, settled), else_=asks.c.status)
"""How an ask stands."""

STORED = {
    "pending": ("pending",),
    "claimed": ("claimed",),
    "applied": ("applied", "claimed"),
    "superseded": ("superseded", "pending"),
}
"""What may be stored of an ask that stands so."""


def as_they_stand() -> Select[Any]:
    """A query for asks."""
    return select(
        *(status.label("status") if column is asks.c.status else column for column in asks.c)
    )


def stands(*wanted: str) -> ColumnElement[bool]:
    """An ask stands in one of these ways."""
    stored = {each for one in wanted for each in STORED[one]}
    return and_(asks.c.status.in_(sorted(stored)), status.in_(wanted))


def settle(connection: Connection, *, tenant: str, thread: str) -> None:
    """Store how the asks of a thread stand, before what says so is forgotten."""
    its = (asks.c.tenant == tenant, asks.c.thread == thread)
    gone_on = (asks.c.status.in_(OPEN), _went_on)
    connection.execute(update(asks).where(*its, *gone_on).values(status=settled))
