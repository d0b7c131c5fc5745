"""The desk: the one thread of a database that writes.

    callers ── order ──► queue ──► desk ── all that is queued, in one transaction ──► database
       ▲                                                │
       └───────────── told, after the commit ◄──────────┘

What was ordered first becomes durable first, or together. What nobody waits for is held back until
somebody orders what they do wait for, or for a moment: it costs no transaction of its own. What can
wait an instant does: the writes of a task, which its step's checkpoint nearly always follows. Rows
of the same statement in neighbouring orders go in one `executemany`. If a batch fails it is rolled
back and each order is tried alone, so that only the culprit gets the error; a server that is gone
for a moment is waited for (see `patience`).
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from kapelle.checkpoints.compiled import Row
from kapelle.checkpoints.door import door
from kapelle.checkpoints.patience import passing, pauses
from kapelle.checkpoints.sending import Sender, Unmet
from kapelle.checkpoints.statements import Statement, send
from kapelle.state.errors import DatabaseFailed, Refused

A = TypeVar("A")
T = TypeVar("T")

LINGER = 0.05
"""Seconds that an order nobody waits for is held back at most."""


Together = Callable[[Connection, Sequence[A]], Sequence[T]]
"""Does the parts of many orders at once; what comes of each, in the same order."""


INSTANT = 0.002
"""Seconds that an order which can wait is held back at most."""


@dataclass(slots=True)
class Order(Generic[T]):
    """What someone wants written: rows for statements, then `work`, all in one transaction."""

    rows: list[tuple[Statement, Sequence[Row]]] = field(default_factory=list)
    """Statements with their rows; orders of one batch share them, kept in the order given here."""
    work: Callable[[Connection], T] | None = None
    """What can't be said by rows. If it raises `Refused` it must not have written anything."""
    shared: "tuple[Together[Any, T], Any] | None" = None
    """What is done for all orders of a batch that share it, last of all, and this one's part."""
    otherwise: "Callable[[str], Order[T]] | None" = None
    """What to do instead where the condition for a row of a table is not met; it may raise."""
    again: bool = True
    """Whether it comes to the same if it is done twice."""
    can_wait: bool = False
    """Whether an instant is likely to bring an order that it can share a transaction with."""


@dataclass(slots=True)
class _Slip:
    """An order on its way, and who waits for it."""

    order: Order[Any]
    future: "Future[Any] | asyncio.Future[Any] | None"
    loop: asyncio.AbstractEventLoop | None = None
    outcome: Any = None
    error: BaseException | None = None


class Desk:
    """Takes orders from any thread and any event loop."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        url: str,
        batch: int = 1_000,
        unwaited: int = 50_000,
    ) -> None:
        """At most `batch` orders share a transaction; nobody waits for at most `unwaited`."""
        self._connect = connect
        self._url = url
        self._batch = batch
        self._queue: SimpleQueue[list[_Slip] | None] = SimpleQueue()
        self._later: list[_Slip] = []
        self._lock = threading.Lock()
        self._open = 0
        self._closed = self._ended = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._known = self._passes = self._in_doubt = False
        self._unwaited = threading.BoundedSemaphore(unwaited)

    def do(self, order: Order[T]) -> T:
        """Have an order done; returns when it is committed."""
        future: Future[T] = Future()
        self._take(_Slip(order, future))
        return future.result()

    async def ado(self, order: Order[T]) -> T:
        """Have an order done; goes on when it is committed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._take(_Slip(order, future, loop))
        return await future

    def leave(self, order: Order[Any]) -> None:
        """Leave an order without waiting. It is done before whatever is ordered later."""
        self._unwaited.acquire()
        try:
            self._take(_Slip(order, None))
        except BaseException:
            self._unwaited.release()
            raise

    @property
    def idle(self) -> bool:
        """Whether everything ordered so far is committed."""
        return self._open == 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be ordered any more."""
        return self._closed

    def close(self) -> None:
        """Do what was ordered, then stop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(self._with_later([]))
            self._queue.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _take(self, slip: _Slip) -> None:
        with self._lock:
            if self._closed:
                raise DatabaseFailed(url=self._url, why="it is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="kapelle-desk", daemon=True
                )
                self._thread.start()
            self._open += 1
            if slip.future is not None:
                self._queue.put(self._with_later([slip]))
                return
            self._later.append(slip)
            if len(self._later) == 1:
                self._queue.put([])  # wakes the desk, which then waits a moment for more

    def _with_later(self, slips: list[_Slip]) -> list[_Slip]:
        held, self._later = self._later, []
        return held + slips

    def _serve(self) -> None:
        while not self._ended:
            self._settle(self._gather())
        self._hang_up()

    def _gather(self) -> list[_Slip]:
        """All that is queued; what nobody waits for comes with it, or in a moment by itself."""
        more = self._next(None)
        if not more and not self._ended:
            more = self._next(LINGER)
        gathered: list[_Slip] = []
        can_wait = True
        while more is not None or not gathered:
            more = more or self._left()
            gathered += more
            can_wait = can_wait and all(slip.order.can_wait for slip in more)
            if self._ended or len(gathered) >= self._batch:
                break
            more = self._next(INSTANT if can_wait else 0)
        return gathered

    def _next(self, patience: float | None) -> list[_Slip] | None:
        """What comes next, in so many seconds; empty if somebody left something or none comes."""
        try:
            slips = self._queue.get(patience != 0, patience)
        except Empty:
            return None
        self._ended = slips is None
        return slips or []

    def _left(self) -> list[_Slip]:
        with self._lock:
            return self._with_later([])

    def _settle(self, slips: list[_Slip]) -> None:
        if not slips:
            return
        if not self._patiently(slips) and not self._passes and len(slips) > 1:
            for slip in slips:
                self._patiently([slip])
        with self._lock:
            self._open -= len(slips)
        self._tell(slips)

    def _patiently(self, slips: list[_Slip]) -> bool:
        """Try, and again while the server is to blame, unless that could do something twice."""
        for pause in pauses():
            if self._try(slips):
                return True
            if not self._passes or (self._in_doubt and not all(s.order.again for s in slips)):
                return False
            time.sleep(pause)
        return False

    def _try(self, slips: list[_Slip]) -> bool:
        self._passes = self._in_doubt = False
        try:
            with door(self._url):
                sender = Sender(self._connected())
                with _transaction(sender, slips):
                    _write(sender, slips)
                    self._in_doubt = True
        except Unmet as unmet:
            return len(slips) == 1 and self._otherwise(slips[0], unmet)
        except BaseException as error:  # noqa: BLE001  # whoever waits is told
            self._passes = self._known and passing(error)
            self._hang_up()
            for slip in slips:
                slip.error = error
            return False
        return True

    def _otherwise(self, slip: _Slip, unmet: Unmet) -> bool:
        slip.error = unmet
        if slip.order.otherwise is None:
            return False
        try:
            slip.order = slip.order.otherwise(unmet.table)
        except Refused as refusal:
            slip.error = refusal
            return False
        return self._try([slip])

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._known = True
        return self._connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _tell(self, slips: list[_Slip]) -> None:
        waiting: dict[asyncio.AbstractEventLoop, list[_Slip]] = defaultdict(list)
        for slip in slips:
            if slip.loop is not None:
                waiting[slip.loop].append(slip)
            elif slip.future is None:
                self._unwaited.release()
            else:
                _answer(slip)
        for loop, those in waiting.items():
            _call(loop, those)


@contextmanager
def _transaction(sender: Sender, slips: list[_Slip]) -> Iterator[None]:
    """Around all that is written; SQLAlchemy's where somebody works with its connection."""
    if all(slip.order.work is None and slip.order.shared is None for slip in slips):
        with sender.transaction():
            yield
        return
    with sender.connection.begin():
        yield
        sender.settle(committed=True)


def _write(sender: Sender, slips: list[_Slip]) -> None:
    rows: dict[Statement, list[Row]] = {}
    for slip in slips:
        slip.error = None
        for statement, more in slip.order.rows:
            if more:
                rows.setdefault(statement, []).extend(more)
        if slip.order.work is not None:
            _flush(sender, rows)
            sender.settle()
            try:
                slip.outcome = slip.order.work(sender.connection)
            except Refused as refusal:
                slip.error = refusal
    _flush(sender, rows)
    _do_together(sender, slips)


def _do_together(sender: Sender, slips: list[_Slip]) -> None:
    shared: dict[Together[Any, Any], list[_Slip]] = {}
    for slip in slips:
        if slip.order.shared is not None:
            shared.setdefault(slip.order.shared[0], []).append(slip)
    if shared:
        sender.settle()
    for work, those in shared.items():
        parts = [slip.order.shared[1] for slip in those if slip.order.shared is not None]
        for slip, outcome in zip(those, work(sender.connection, parts), strict=True):
            slip.outcome = outcome


def _flush(sender: Sender, rows: dict[Statement, list[Row]]) -> None:
    send(sender, rows)
    rows.clear()


def _call(loop: asyncio.AbstractEventLoop, slips: list[_Slip]) -> None:
    try:
        loop.call_soon_threadsafe(_answer_all, slips)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _answer_all(slips: list[_Slip]) -> None:
    for slip in slips:
        _answer(slip)


def _answer(slip: _Slip) -> None:
    if slip.future is None or slip.future.done():
        return
    if slip.error is None:
        slip.future.set_result(slip.outcome)
    else:
        slip.future.set_exception(slip.error)
