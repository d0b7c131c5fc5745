"""LangGraph's store in SQL: items with time to live, found by filters and by meaning."""

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)
from sqlalchemy import Connection

from kapelle.checkpoints import items
from kapelle.checkpoints.access import Access
from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.items import Shelf
from kapelle.checkpoints.matching import Namespace
from kapelle.checkpoints.statements import Statement
from kapelle.checkpoints.vectors import Index, cosines, pack
from kapelle.state.errors import DatabaseFailed

SWEEP = 5.0
"""Minutes between sweeps, unless something else is said."""

log = logging.getLogger("kapelle")


class SqlStore(BaseStore):
    """Keeps items for any LangGraph graph. `Database(...).store` is one.

    The reads of a batch see what was there before its puts; the puts are one transaction, and of
    two puts of the same item the last counts.
    """

    supports_ttl = True

    def __init__(
        self,
        access: Access,
        *,
        serde: SerializerProtocol,
        max_bytes: int,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        self._access = access
        self._index = Index(index) if index else None
        self.index_config = index
        self.ttl_config = ttl
        omit = bool(ttl and ttl.get("omit_expired"))
        self._shelf = Shelf(access.tenant, serde, max_bytes, omit, cosines, access.source.secret)
        self._sweeping: threading.Event | None = None

    @property
    def embeddings(self) -> Embeddings | None:
        """Who embeds what is searched by meaning."""
        return self._index.embeddings if self._index else None

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several things at once."""
        batch = _Batch(ops, self._index)
        if self._index is not None:
            embed = self._index.embeddings
            batch.near = {text: embed.embed_query(text) for text in batch.queries}
            batch.embedded = embed.embed_documents(batch.texts) if batch.texts else []
        look = partial(batch.look, self._shelf)
        results = self._access.read(look) if batch.reads else batch.nothing
        if batch.puts:
            self._access.desk.do(batch.order(self._shelf))
        self._refresh(batch, results)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several things at once."""
        batch = _Batch(ops, self._index)
        if self._index is not None:
            embed = self._index.embeddings
            batch.near = {text: await embed.aembed_query(text) for text in batch.queries}
            batch.embedded = await embed.aembed_documents(batch.texts) if batch.texts else []
        look = partial(batch.look, self._shelf)
        results = await self._access.aread(look) if batch.reads else batch.nothing
        if batch.puts:
            await self._access.desk.ado(batch.order(self._shelf))
        self._refresh(batch, results)
        return results

    async def aswap(
        self,
        namespace: Namespace,
        key: str,
        expected: Mapping[str, Any] | None,
        puts: Sequence[PutOp],
    ) -> bool:
        """Do the puts if an item still has this value (None: is not there); whether that was so.

        Look and puts are one transaction, and those of one namespace come one after the other, in
        whatever process they are.
        """
        batch = _Batch(puts, self._index)
        if self._index is not None and batch.texts:
            batch.embedded = await self._index.embeddings.aembed_documents(batch.texts)
        work = partial(
            items.swap, self._shelf, GetOp(namespace, key), expected, batch.rows(self._shelf)
        )
        return await self._access.desk.ado(Order(work=work))

    def sweep_ttl(self) -> int:
        """Forget items whose time is over; how many."""
        return self._access.desk.do(Order(work=self._sweep()))

    async def asweep_ttl(self) -> int:
        """Forget items whose time is over; how many."""
        return await self._access.desk.ado(Order(work=self._sweep()))

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep every so many minutes, until it is stopped or nobody uses the store any more."""
        if self._sweeping is not None:
            return
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        seconds = 60 * float(sweep_interval_minutes or configured or SWEEP)
        self._sweeping = threading.Event()
        weakref.finalize(self, self._sweeping.set)
        work = (weakref.ref(self), self._sweeping, seconds)
        threading.Thread(target=_sweep, args=work, name="kapelle-sweep", daemon=True).start()

    def stop_ttl_sweeper(self) -> None:
        """Sweep no more."""
        if self._sweeping is not None:
            self._sweeping.set()
            self._sweeping = None

    def _sweeps_on(self) -> bool:
        """Sweep; whether there is anything to sweep later. What fails may work the next time."""
        try:
            self.sweep_ttl()
        except DatabaseFailed as error:
            if self._access.desk.closed:
                return False
            log.warning("items whose time is over could not be forgotten: %s", error)
        return True

    def _sweep(self) -> Callable[[Connection], int]:
        return partial(items.sweep, tenant=self._access.tenant)

    def _refresh(self, batch: "_Batch", results: Sequence[Result]) -> None:
        rows = items.refreshed(self._shelf, batch.to_refresh(results))
        if rows:
            self._access.desk.leave(Order([(items.REFRESH, rows)]))


class _Batch:
    """Operations that are done together."""

    def __init__(self, ops: Iterable[Op], index: Index | None) -> None:
        self._ops = list(ops)
        for op in self._ops:
            validate_op_namespace(op)
        last = {(op.namespace, op.key): op for op in self._ops if isinstance(op, PutOp)}
        self.puts = list(last.values())
        self.reads = any(not isinstance(op, PutOp) for op in self._ops)
        self.nothing: list[Result] = [None] * len(self._ops)
        self._texts = [index.texts(put) if index is not None else [] for put in self.puts]
        self.texts = [text for texts in self._texts for text in texts]
        """What is to be embedded, of all puts."""
        self.embedded: Sequence[Sequence[float]] = []
        searches = [op for op in self._ops if isinstance(op, SearchOp)]
        self.queries = {op.query for op in searches if op.query} if index is not None else set()
        self.near: dict[str, list[float]] = {}
        """The vectors of the queries."""

    def look(self, shelf: Shelf, connection: Connection) -> list[Result]:
        """What the operations find."""
        return [self._one(shelf, connection, op) for op in self._ops]

    def order(self, shelf: Shelf) -> Order[None]:
        """What the puts write."""
        return Order(work=partial(items.change, rows=self.rows(shelf)))

    def rows(self, shelf: Shelf) -> list[tuple[Statement, list[Row]]]:
        """The rows that the puts come to."""
        vectors = iter(self.embedded)
        packed = {
            number: [pack(next(vectors)) for _ in texts] for number, texts in enumerate(self._texts)
        }
        return items.changes(shelf, self.puts, packed)

    def to_refresh(self, results: Sequence[Result]) -> list[Item]:
        """The items that were read and are to have their full time again."""
        seen: list[Item] = []
        for op, result in zip(self._ops, results, strict=True):
            if isinstance(op, GetOp | SearchOp) and op.refresh_ttl and result:
                found: Any = result if isinstance(result, list) else [result]
                seen += found
        return seen

    def _one(self, shelf: Shelf, connection: Connection, op: Op) -> Result:
        if isinstance(op, GetOp):
            return items.get(shelf, connection, op)
        if isinstance(op, SearchOp):
            return items.search(shelf, connection, op, self.near.get(op.query or ""))
        if isinstance(op, ListNamespacesOp):
            return items.namespaces(shelf, connection, op)
        return None


def _sweep(of: "weakref.ref[SqlStore]", stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        store = of()
        if store is None or not store._sweeps_on():  # noqa: SLF001  its own thread
            return
        del store
