"""The book of effects: one row an effect, durable before it is begun and after it has ended."""

from functools import partial
from hashlib import sha256

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Connection, select, update

from kapelle.checkpoints.access import Access
from kapelle.checkpoints.ids import raw
from kapelle.checkpoints.secret import Secret
from kapelle.checkpoints.statements import keep_first
from kapelle.checkpoints.tables import effects
from kapelle.state.effect import Effect, EffectStatus, began, settled_by

INSERT = keep_first(effects)


class SqlEffects:
    """The port `kapelle.nodes.services.Effects`, in SQL."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def begin(self, book: str, wanted: Effect) -> Effect:
        """Write down that an effect begins; how it is recorded then. Of two who begin, one does."""
        work = partial(begin, tenant=self._access.tenant, thread=book, wanted=wanted)
        return await self._access.awrite(work)

    async def settle(
        self, book: str, key: str, holder: str, status: EffectStatus, output: JsonValue = None
    ) -> None:
        """Write down how an effect ended."""

        def work(connection: Connection) -> None:
            known = _known(connection, self._access.tenant, book, key)
            after = settled_by(known, holder, status, output)
            _keep(connection, self._access.tenant, book, after)

        await self._access.awrite(work)

    async def in_doubt(self) -> list[tuple[str, Effect]]:
        """What was begun and not finished, by thread: at work just now, or nobody knows."""
        query = select(effects.c.thread, effects.c.data).where(
            effects.c.tenant == self._access.tenant, effects.c.status == "begun"
        )
        rows = await self._access.aread(lambda connection: connection.execute(query).all())
        shown = self._access.source.secret.shown_noun
        return [(thread, shown(Effect, data, thread)) for thread, data in rows]


def begin(connection: Connection, *, tenant: str, thread: str, wanted: Effect) -> Effect:
    """Insert an effect unless it is there; begin it again if it surely was not done."""
    row = {"tenant": tenant, "thread": thread, "key": _digest(wanted.key)}
    data = Secret.of(connection).noun(wanted)
    INSERT.run(connection, [{**row, "status": "begun", "data": data}])
    known = _known(connection, tenant, thread, wanted.key)
    after = began(known, wanted)
    if after is not known:
        _keep(connection, tenant, thread, after)
    return after


def _known(connection: Connection, tenant: str, thread: str, key: str) -> Effect:
    """The effect as it is recorded; its row is locked until the transaction ends."""
    query = select(effects.c.data).where(_is(tenant, thread, key)).with_for_update()
    return Secret.of(connection).shown_noun(Effect, connection.scalars(query).one(), thread)


def _keep(connection: Connection, tenant: str, thread: str, effect: Effect) -> None:
    change = {"status": effect.status, "data": Secret.of(connection).noun(effect)}
    connection.execute(update(effects).where(_is(tenant, thread, effect.key)).values(change))


def _is(tenant: str, thread: str, key: str) -> ColumnElement[bool]:
    return (
        (effects.c.tenant == tenant)
        & (effects.c.thread == thread)
        & (effects.c.key == _digest(key))
    )


def _digest(key: str) -> bytes:
    return sha256(raw(key)).digest()
