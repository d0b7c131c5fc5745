"""The run book: what runs on each thread, how it stands, and who may advance it.

A run is `running` from before its first step until it has its own terminal mark; LangGraph's
`next == ()` is no such mark. Whoever advances a thread holds its lease, by the database's clock;
the fence grows with every lease, so that a holder that came too late can be told from the present
one. A lease ends when its time is over, and at once for processes of a host on which they see that
its holder has died (see `holder`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import uuid4

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, update
from sqlalchemy import RowMapping as Found

from kapelle.checkpoints import standing
from kapelle.checkpoints.access import Access
from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.holder import has_died
from kapelle.checkpoints.ids import exact, raw, text
from kapelle.checkpoints.inbox import having
from kapelle.checkpoints.plain import dump
from kapelle.checkpoints.secret import Secret
from kapelle.checkpoints.statements import keep_first
from kapelle.checkpoints.tables import asks, runs
from kapelle.state.errors import StillWaiting, ThreadBusy, Unfinished, UnknownThread
from kapelle.state.task import Result, Task

RunStatus = Literal["running", "waiting", "done", "partial", "failed", "refused"]
"""`running` until there is an outcome or something to ask."""

INSERT = keep_first(runs)


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One line of the run book."""

    thread: str
    run: str
    """Id of this execution; another task on the same thread has another."""
    graph: str
    """The graph's name."""
    target: JsonValue
    """How the command line finds the graph again."""
    task: Task
    status: RunStatus
    result: Result | None
    created_at: float
    """Unix time in seconds, by the database's clock; so are the others."""
    updated_at: float
    finished_at: float | None
    holder: str | None
    """Who advances it; None if nobody does."""
    lease_until: float | None
    fence: int
    """Grows with every lease."""


class RunBook:
    """All runs of a tenant."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tenant = access.tenant

    async def open(
        self,
        thread: str,
        *,
        graph: str,
        target: JsonValue,
        task: Task,
        holder: str,
        lease_seconds: float,
    ) -> RunRow:
        """Begin a run, on a new thread or one whose last run is finished, and hold its lease.

        `StillWaiting` if it has open asks, `ThreadBusy` if somebody advances it, `Unfinished` if
        its last run stopped in the middle.
        """
        exact("thread", thread)
        secret = self._access.source.secret
        row = {
            "tenant": self._tenant,
            "thread": thread,
            "run": uuid4().hex,
            "graph": raw(graph),
            "target": secret.hide(dump(target)),
            "task": secret.noun(task),
            "status": "running",
            "result": None,
            "finished_at": None,
            "holder": exact("holder", holder, 128),
        }
        return await self._access.awrite(partial(begin, row=row, seconds=lease_seconds))

    async def get(self, thread: str) -> RunRow:
        """The last run of a thread; `UnknownThread` if there was none."""
        return await self._access.aread(partial(find, tenant=self._tenant, thread=thread))

    async def list(self, limit: int = 100, status: RunStatus | None = None) -> Sequence[RunRow]:
        """The newest runs, newest first."""
        return await self._access.aread(
            partial(newest, tenant=self._tenant, limit=limit, status=status)
        )

    async def take(self, thread: str, holder: str, seconds: float) -> int:
        """Hold the lease of a thread nobody holds; its fence. `ThreadBusy` names the holder."""
        exact("holder", holder, 128)
        return await self._access.awrite(
            partial(take, tenant=self._tenant, thread=thread, holder=holder, seconds=seconds)
        )

    async def renew(self, thread: str, holder: str, fence: int, seconds: float) -> bool:
        """Hold it longer; False if it is no longer held under this fence."""
        mine = _held(self._tenant, thread, holder, fence)
        later = update(runs).where(mine).values(lease_until=db_now() + seconds, updated_at=db_now())
        return await self._access.awrite(lambda connection: connection.execute(later).rowcount == 1)

    async def mark(self, thread: str, status: RunStatus, result: Result | None = None) -> None:
        """Say how the run of a thread stands. `UnknownThread` if there is none."""
        await self._access.awrite(
            partial(mark, tenant=self._tenant, thread=thread, status=status, result=result)
        )

    async def release(
        self,
        thread: str,
        holder: str,
        fence: int,
        *,
        status: RunStatus,
        result: Result | None = None,
        unused: bool = False,
    ) -> bool:
        """Say how the run stands and give the lease back, in one transaction.

        False, and nothing is changed, if the lease is no longer held under this fence, or if an
        answer was claimed meanwhile that is not applied: the holder is to drive on. A holder that
        can't gives the lease back with status `running`, for others to find; one that tried and
        failed leaves the answer `unused`.
        """
        mine = _held(self._tenant, thread, holder, fence)
        return await self._access.awrite(
            partial(
                release,
                tenant=self._tenant,
                thread=thread,
                mine=mine,
                outcome=(status, result),
                unused=unused,
            )
        )

    async def abandoned(self) -> Sequence[RunRow]:
        """Runs that should be running, and whose lease has run out; oldest first."""
        return await self._access.awrite(partial(abandoned, tenant=self._tenant))


def begin(connection: Connection, *, row: Row, seconds: float) -> RunRow:
    """Write the line of a new run, over that of a finished one."""
    tenant, thread = row["tenant"], row["thread"]
    bury(connection, tenant=tenant, thread=thread)
    if waiting := having(connection, tenant=tenant, status=standing.OPEN, thread=thread):
        raise StillWaiting(thread=thread, asks=", ".join(ask.id for ask in waiting))
    blank = {"created_at": 0.0, "updated_at": 0.0, "fence": 0, "status": "new", "holder": None}
    INSERT.run(connection, [{**row, **blank}])
    over = and_(_here(tenant, thread), _unheld(), runs.c.status != "running")
    times = {"created_at": db_now(), "updated_at": db_now(), "lease_until": db_now() + seconds}
    begun = connection.execute(
        update(runs).where(over).values(**row, **times, fence=runs.c.fence + 1)
    )
    found = find(connection, tenant=tenant, thread=thread)
    if begun.rowcount != 1:
        raise _busy(connection, tenant, found)
    return found


def find(connection: Connection, *, tenant: str, thread: str) -> RunRow:
    """The line of a thread."""
    row = connection.execute(select(runs).where(_here(tenant, thread))).mappings().first()
    if row is None:
        raise UnknownThread(thread=thread)
    return _read(Secret.of(connection), row)


def newest(
    connection: Connection, *, tenant: str, limit: int, status: RunStatus | None
) -> list[RunRow]:
    """The newest lines first."""
    query = select(runs).where(runs.c.tenant == tenant)
    if status is not None:
        query = query.where(runs.c.status == status)
    query = query.order_by(runs.c.created_at.desc(), runs.c.thread).limit(limit)
    secret = Secret.of(connection)
    return [_read(secret, row) for row in connection.execute(query).mappings()]


def take(connection: Connection, *, tenant: str, thread: str, holder: str, seconds: float) -> int:
    """Take the lease by one conditional update."""
    bury(connection, tenant=tenant, thread=thread)
    taken = connection.execute(
        update(runs)
        .where(_here(tenant, thread), _unheld())
        .values(
            holder=holder,
            lease_until=db_now() + seconds,
            updated_at=db_now(),
            fence=runs.c.fence + 1,
        )
    )
    found = find(connection, tenant=tenant, thread=thread)
    if taken.rowcount != 1:
        raise ThreadBusy(thread=thread, holder=found.holder)
    return found.fence


def mark(
    connection: Connection, *, tenant: str, thread: str, status: RunStatus, result: Result | None
) -> None:
    """Set the status, whoever holds the lease."""
    stands = _outcome(Secret.of(connection), status, result)
    marked = connection.execute(update(runs).where(_here(tenant, thread)).values(stands))
    if marked.rowcount != 1:
        raise UnknownThread(thread=thread)


def release(
    connection: Connection,
    *,
    tenant: str,
    thread: str,
    mine: ColumnElement[bool],
    outcome: tuple[RunStatus, Result | None],
    unused: bool,
) -> bool:
    """Set the status and give the lease back, unless an answer still is to be applied."""
    its = (asks.c.tenant == tenant, asks.c.thread == thread)
    claimed = exists().where(*its, standing.stands("claimed"))
    may = mine if unused or outcome[0] == "running" else and_(mine, ~claimed)
    stands = _outcome(Secret.of(connection), *outcome)
    free = {"holder": None, "lease_until": None}
    released = connection.execute(update(runs).where(may).values({**stands, **free}))
    return released.rowcount == 1


def abandoned(connection: Connection, *, tenant: str) -> list[RunRow]:
    """Lines of runs nobody advances though somebody should."""
    bury(connection, tenant=tenant)
    query = select(runs).where(runs.c.tenant == tenant, runs.c.status == "running", _unheld())
    rows: Sequence[Found] = connection.execute(query.order_by(runs.c.created_at)).mappings().all()
    return [_read(Secret.of(connection), row) for row in rows]


def bury(connection: Connection, *, tenant: str, thread: str | None = None) -> None:
    """End the leases whose holders have died, of one thread, or of all."""
    held = and_(runs.c.tenant == tenant, runs.c.lease_until >= db_now())
    if thread is not None:
        held = and_(held, runs.c.thread == thread)
    leases = select(runs.c.thread, runs.c.holder, runs.c.fence).where(held)
    for lease in connection.execute(leases).all():
        if has_died(lease.holder):
            its = _held(tenant, lease.thread, lease.holder, lease.fence)
            connection.execute(update(runs).where(its).values(holder=None, lease_until=None))


def _here(tenant: str, thread: str) -> ColumnElement[bool]:
    return and_(runs.c.tenant == tenant, runs.c.thread == thread)


def _held(tenant: str, thread: str, holder: str, fence: int) -> ColumnElement[bool]:
    return and_(_here(tenant, thread), runs.c.holder == holder, runs.c.fence == fence)


def _unheld() -> ColumnElement[bool]:
    return or_(runs.c.holder.is_(None), runs.c.lease_until < db_now())


def _outcome(secret: Secret, status: RunStatus, result: Result | None) -> Row:
    over = status not in ("running", "waiting")
    return {
        "status": status,
        "result": None if result is None else secret.noun(result),
        "updated_at": db_now(),
        "finished_at": db_now() if over else None,
    }


def _busy(connection: Connection, tenant: str, found: RunRow) -> ThreadBusy | Unfinished:
    free = select(runs.c.thread).where(_here(tenant, found.thread), _unheld())
    if connection.scalar(free) is not None:
        return Unfinished(thread=found.thread)
    return ThreadBusy(thread=found.thread, holder=found.holder)


def _read(secret: Secret, row: Found) -> RunRow:
    thread, result = row["thread"], row["result"]
    return RunRow(
        thread=thread,
        run=row["run"],
        graph=text(row["graph"]),
        target=secret.shown_json(row["target"], thread),
        task=secret.shown_noun(Task, row["task"], thread),
        status=row["status"],
        result=None if result is None else secret.shown_noun(Result, result, thread),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        holder=row["holder"],
        lease_until=row["lease_until"],
        fence=row["fence"],
    )
