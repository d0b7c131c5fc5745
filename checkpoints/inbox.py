"""The inbox: what all runs ask people, indexed as it happens; answers are claimed before use.

    pending ──claim──► claimed ──the task goes on──► applied
       └──the run went on without it──► superseded

`SqlSaver` calls `asked` when a task of the root graph is interrupted; `standing` sees whether the
task or the thread went on. What was claimed and is not applied is to be driven again, never asked
again. The functions take a connection, so that they can be part of any transaction.
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from langgraph.types import Interrupt
from pydantic import JsonValue
from sqlalchemy import ColumnElement, Connection, and_, select, update
from sqlalchemy import RowMapping as Found

from kapelle.checkpoints import standing
from kapelle.checkpoints.access import Access
from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.ids import raw, text
from kapelle.checkpoints.journal import keep
from kapelle.checkpoints.plain import brief, dump, plain
from kapelle.checkpoints.secret import Secret
from kapelle.checkpoints.tables import asks, ordered, runs
from kapelle.state.approval import CHOICES, Approval, Ask, Escalation
from kapelle.state.errors import AlreadyAnswered, NotAllowed, Outdated, UnknownAsk
from kapelle.state.event import Event
from kapelle.state.shortage import alike, shared, together

SHORT = 12
"""Hexadecimal digits of an ask's id that people see."""


class Inbox:
    """All asks of all threads of a tenant."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tenant = access.tenant

    async def pending(self, thread: str | None = None) -> list[Ask]:
        """What waits for a person, oldest first; of one thread, if one is named.

        Graphs of one run that lack room in the same budget ask as one.
        """
        found = await self._access.aread(
            partial(having, tenant=self._tenant, status=("pending",), thread=thread)
        )
        return together(found)

    async def claimed(self, thread: str | None = None) -> list[Ask]:
        """What was answered and is not applied yet: to be driven again."""
        return await self._access.aread(
            partial(having, tenant=self._tenant, status=("claimed",), thread=thread)
        )

    async def answered(self, thread: str, *, since: float = 0.0) -> list[Ask]:
        """What people answered of what a thread asked at Unix time `since` or later, in order."""
        found = await self._access.aread(
            partial(having, tenant=self._tenant, status=("claimed", "applied"), thread=thread)
        )
        return [ask for ask in found if ask.asked_at >= since]

    async def get(self, ask: str) -> Ask:
        """One ask by its id or the beginning of it; `UnknownAsk` if there is not exactly one."""
        return await self._access.aread(partial(find, tenant=self._tenant, ask=ask))

    async def claim(self, ask: str, approval: Approval) -> Ask:
        """Make this the answer, once and for all.

        `AlreadyAnswered` says by whom, `NotAllowed` what is offered, `Outdated` that the run went
        on without an answer, `UnknownAsk` that there is no such ask.
        """
        return await self._access.awrite(
            partial(claim, tenant=self._tenant, ask=ask, approval=approval)
        )


def asked(
    connection: Connection,
    *,
    tenant: str,
    thread: str,
    checkpoint: str,
    task: str,
    interrupts: Sequence[Interrupt],
) -> None:
    """The open asks of a task are now exactly these.

    A task within a task lists what it asks, and the outer one lists it as well: it is one ask, of
    the inner task, which listed it first.
    """
    listed = {row["id"]: row for row in (_row(tenant, thread, i) for i in interrupts)}
    at = {"checkpoint": checkpoint, "task": task}
    known = _known(connection, (asks.c.tenant == tenant) & asks.c.id.in_(listed))
    its_own = (asks.c.thread == thread) & (asks.c.task == task)
    before = _known(connection, (asks.c.tenant == tenant) & its_own)
    for row in known.values():
        _again(connection, tenant, row, checkpoint)
    _settle(connection, tenant, before.keys() - listed.keys())
    standing.settle(connection, tenant=tenant, thread=thread)
    hide = Secret.of(connection).hide
    fresh = [
        {**row, **at, "proposal": hide(row["proposal"])}
        for key, row in listed.items()
        if key not in known
    ]
    if fresh:
        connection.execute(asks.insert().values(asked_at=db_now()), fresh)


def copy(connection: Connection, *, tenant: str, source: str, target: str) -> None:
    """What a thread asks is asked of its copy as well, and of that is not answered yet."""
    its = (asks.c.tenant == tenant, asks.c.thread == source)
    query = select(asks).where(*its, standing.stands(*standing.OPEN))
    fresh = [
        {
            **{name: row[name] for name in ("tenant", "interrupt", "task", "checkpoint")},
            **{name: row[name] for name in ("proposal", "sha256", "asked_at")},
            "id": _id(tenant, target, row["interrupt"], row["sha256"]),
            "thread": target,
            "status": "pending",
        }
        for row in connection.execute(query).mappings()
    ]
    if fresh:
        connection.execute(asks.insert(), fresh)


def having(
    connection: Connection, *, tenant: str, status: Iterable[str], thread: str | None = None
) -> list[Ask]:
    """The asks with one of these statuses, oldest first."""
    query = standing.as_they_stand().where(asks.c.tenant == tenant, standing.stands(*status))
    its = ordered(asks.c.asked_at) if thread is None else asks.c.thread == thread
    query = query.where(its)
    rows = connection.execute(query.order_by(asks.c.asked_at, asks.c.id)).mappings()
    return [_ask(Secret.of(connection), row) for row in rows]


def find(connection: Connection, *, tenant: str, ask: str) -> Ask:
    """One ask by the beginning of its id; with those that are shown as one with it."""
    row = _find(connection, tenant, ask)
    shown = _ask(Secret.of(connection), row)
    others = _alike(connection, tenant, shown) if row["status"] == "pending" else []
    return together([shown, *others])[0]


def _alike(connection: Connection, tenant: str, shown: Ask) -> list[Ask]:
    """The open asks that a person answers with this one."""
    if shown.about != "budget":
        return []
    found = having(connection, tenant=tenant, status=("pending",), thread=shown.thread)
    return [one for one in found if one.id != shown.id and alike(shown, one)]


def claim(connection: Connection, *, tenant: str, ask: str, approval: Approval) -> Ask:
    """Claim an ask, write it in the journal, and have its run go on.

    Those that are shown as one with it are answered with it.
    """
    secret = Secret.of(connection)
    row = _find(connection, tenant, ask)
    shown = _ask(secret, row)
    if approval.decision not in shown.offers:
        raise NotAllowed(ask=shown.id, decision=approval.decision, offered=", ".join(shown.offers))
    others = _alike(connection, tenant, shown)
    first, *more = shared(approval, [shown, *others]) if others else [approval]
    if not _claim(connection, tenant, row["id"], first):
        raise _lost(secret, _find(connection, tenant, row["id"]))
    claimed = _ask(secret, _find(connection, tenant, row["id"]))
    events = [_event(claimed, first)]
    for one, answer in zip(others, more, strict=True):
        if _claim(connection, tenant, _find(connection, tenant, one.id)["id"], answer):
            events.append(_event(one, answer))
    waits = and_(runs.c.tenant == tenant, runs.c.thread == claimed.thread)
    connection.execute(  # so that whoever looks for runs to go on with finds it
        update(runs)
        .where(waits, runs.c.status == "waiting")
        .values(status="running", updated_at=db_now())
    )
    keep(connection, tenant=tenant, events=events)
    return claimed


def _claim(connection: Connection, tenant: str, key: str, approval: Approval) -> bool:
    """Claim one ask by one conditional update; whether that won."""
    secret = Secret.of(connection)
    won = connection.execute(
        update(asks)
        .where(_is(tenant, key), standing.stands("pending"))
        .values(
            status="claimed",
            decision=approval.decision,
            by=secret.hide(raw(approval.by)),
            answer=secret.noun(approval),
            answered_at=db_now(),
        )
    )
    return won.rowcount == 1


def _lost(secret: Secret, row: Found) -> AlreadyAnswered | Outdated:
    ask = row["id"][:SHORT]
    if row["answer"] is None:
        return Outdated(ask=ask)
    by = text(secret.show(row["by"], row["thread"]))
    return AlreadyAnswered(ask=ask, decision=row["decision"], by=by, at=row["answered_at"])


def _event(ask: Ask, approval: Approval) -> Event:
    return Event(
        kind="approval",
        what=approval.decision,
        thread=ask.thread,
        task=ask.task,
        agent=approval.by,
        at=ask.answered_at or 0.0,
        key=f"approval:{ask.id}",
        why=approval.reason,
        data={"ask": ask.id, "question": ask.question, "value": approval.value},
    )


def _is(tenant: str, key: str) -> ColumnElement[bool]:
    return and_(asks.c.tenant == tenant, asks.c.id == key)


def _find(connection: Connection, tenant: str, ask: str) -> Found:
    if not ask or not set(ask) <= set("0123456789abcdef"):
        raise UnknownAsk(ask=ask)
    query = standing.as_they_stand().where(asks.c.tenant == tenant)
    query = query.where(asks.c.id >= ask, asks.c.id < ask + "g")
    rows = connection.execute(query.limit(2)).mappings().all()
    if len(rows) != 1:
        raise UnknownAsk(ask=ask)
    return rows[0]


def _known(connection: Connection, where: ColumnElement[bool]) -> dict[str, Found]:
    rows = connection.execute(select(asks).where(where)).mappings()
    return {row["id"]: row for row in rows}


def _again(connection: Connection, tenant: str, row: Found, checkpoint: str) -> None:
    """Listed again: what was answered stays answered, what was superseded is open again."""
    status = {"applied": "claimed", "superseded": "pending"}.get(row["status"], row["status"])
    connection.execute(
        update(asks).where(_is(tenant, row["id"])).values(status=status, checkpoint=checkpoint)
    )


def _settle(connection: Connection, tenant: str, keys: Iterable[str]) -> None:
    for key in keys:
        connection.execute(update(asks).where(_is(tenant, key)).values(status=standing.settled))


def _row(tenant: str, thread: str, interrupt: Interrupt[Any]) -> Row:
    shown = _shown(interrupt.value)
    digest = sha256(dump(shown)).hexdigest()
    return {
        "tenant": tenant,
        "id": _id(tenant, thread, interrupt.id, digest),
        "thread": thread,
        "interrupt": interrupt.id,
        "proposal": dump(shown, in_order=True),
        "sha256": digest,
        "status": "pending",
    }


def _id(tenant: str, thread: str, interrupt: str, shown: str) -> str:
    return sha256(json.dumps([tenant, thread, interrupt, shown]).encode()).hexdigest()


def _shown(value: object) -> JsonValue:
    """What a person is shown of an interrupt's value; our own gates show an `Escalation`."""
    if isinstance(value, Escalation):
        return value.model_dump(mode="json")
    return {"question": brief(value), "evidence": plain(value)}


def _ask(secret: Secret, row: Found) -> Ask:
    thread, answer = row["thread"], row["answer"]
    shown = secret.shown_json(row["proposal"], thread)
    return Ask(
        id=row["id"][:SHORT],
        thread=thread,
        question=shown["question"],
        reason=shown.get("reason", ""),
        evidence=shown.get("evidence"),
        about=shown.get("about", "task"),
        task=shown.get("task", ""),
        by=shown.get("by", ""),
        offers=tuple(shown.get("offers", CHOICES)),
        asked_at=row["asked_at"],
        interrupt=row["interrupt"],
        answer=None if answer is None else secret.shown_noun(Approval, answer, thread),
        answered_at=row["answered_at"],
    )
