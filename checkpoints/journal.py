"""The journal: one row an event. Recording never waits; reading sees all that was recorded."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

from sqlalchemy import Connection, select

from kapelle.checkpoints.access import Access
from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.ids import raw
from kapelle.checkpoints.secret import Secret
from kapelle.checkpoints.statements import keep_first
from kapelle.checkpoints.tables import events
from kapelle.state.event import Event

INSERT = keep_first(events)


class SqlJournal:
    """The port `kapelle.nodes.services.Journal`, in SQL."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def record(self, events: Sequence[Event]) -> None:
        """Keep events. Never waits; they are durable no later than the next checkpoint put."""
        if events:
            secret = self._access.source.secret
            rows = [_row(self._access.tenant, secret, event) for event in events]
            self._access.desk.leave(Order([(INSERT, rows)]))

    async def read(self, thread: str) -> list[Event]:
        """The events of a thread, in the order they became durable."""
        return await self._access.aread(partial(story, tenant=self._access.tenant, thread=thread))


def keep(connection: Connection, *, tenant: str, events: Sequence[Event]) -> None:
    """Insert events; one whose key is known already is the same event."""
    secret = Secret.of(connection)
    INSERT.run(connection, [_row(tenant, secret, event) for event in events])


def story(connection: Connection, *, tenant: str, thread: str) -> list[Event]:
    """All events of a thread, in order."""
    here = (events.c.tenant == tenant) & (events.c.thread == thread)
    rows = connection.scalars(select(events.c.data).where(here).order_by(events.c.seq))
    secret = Secret.of(connection)
    return [secret.shown_noun(Event, data, thread) for data in rows]


def _row(tenant: str, secret: Secret, event: Event) -> Row:
    """All that is known of an event is in `data`; what stands beside it is to look at in SQL."""
    beside = raw if secret.cipher is None else _nothing
    return {
        "tenant": tenant,
        "thread": event.thread,
        "key": sha256(raw(event.key)).digest() if event.key else None,
        "kind": event.kind,
        "what": beside(event.what),
        "task": beside(event.task),
        "agent": beside(event.agent),
        "at": event.at,
        "input_tokens": event.usage.input_tokens,
        "output_tokens": event.usage.output_tokens,
        "calls": event.usage.calls,
        "micro_usd": event.usage.micro_usd,
        "data": secret.noun(event),
    }


def _nothing(_text: str) -> bytes:
    return b""
