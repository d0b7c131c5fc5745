"""How a run is advanced: held by a lease, driven from where it is, let go with how it stands."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command

from kapelle.checkpoints.database import Database
from kapelle.checkpoints.runbook import RunRow
from kapelle.nodes.board import close_all
from kapelle.nodes.services import Services
from kapelle.state.approval import Ask
from kapelle.state.errors import DatabaseFailed, KapelleError, ThreadBusy
from kapelle.state.event import Event
from kapelle.state.task import Failure, Result

App = CompiledStateGraph[Any, Any, Any, Any]
Listener = Callable[[Event], None]
"""Told each event as it happens."""

log = logging.getLogger("kapelle")


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Who advances runs of one database."""

    db: Database
    services: Services
    holder: str
    """The name it holds leases by."""
    lease: float
    """Seconds a thread is kept from others after it was last heard of."""

    async def drive(self, app: App, row: RunRow, fence: int, listen: Listener | None) -> None:
        """Advance a run whose lease is held under `fence`, until it ends or waits for a person."""
        thread = row.thread
        async with self._held(thread, fence):
            driven: set[str] = set()
            if fence > row.fence:  # whoever drove it before is dead, and can't settle any more
                await self.services.ledger.charge(thread)
            given = await self._first(row)
            self._tell(row, "resumed" if fence > row.fence else "started", fence, listen)
            while True:
                result = await self._advance(app, row, given, listen)
                if await self._let_go(row, fence, result):
                    return
                claimed = await self.db.inbox.claimed(thread)  # answered while we were at work
                if driven.issuperset(ask.id for ask in claimed):
                    await self._give_up(row, fence, claimed, result)
                    return
                driven.update(ask.id for ask in claimed)
                given = _answers(claimed)

    def _tell(self, row: RunRow, what: str, fence: int, listen: Listener | None) -> None:
        event = Event(
            kind="run",
            what=what,
            thread=row.thread,
            task=row.task.id,
            agent=self.holder,
            at=self.services.clock.now(),
            key=f"{row.run}/{fence}",
        )
        self.services.journal.record([event])
        if listen is not None:
            listen(event)

    async def _let_go(self, row: RunRow, fence: int, result: Result | None) -> bool:
        """Mark how the run stands and give the lease back, unless an answer waits to be used."""
        waits = bool(await self.db.inbox.pending(row.thread))
        left = None if waits else result or _lost(row)
        status = left.status if left else "waiting"
        return await self.db.runs.release(
            row.thread, self.holder, fence, status=status, result=left
        )

    async def _give_up(
        self, row: RunRow, fence: int, claimed: list[Ask], result: Result | None
    ) -> None:
        """End a run that can't use an answer. `resume` tries again, once it is mended."""
        asks = ", ".join(ask.id for ask in claimed)
        left = (
            result
            if result and _has_crashed(result)
            else _crashed(row, f"it can't use the answer to {asks}")
        )
        log.error("the run on thread %s can't use the answer to %s", row.thread, asks)
        await self.db.runs.release(
            row.thread, self.holder, fence, status="failed", result=left, unused=True
        )

    async def _first(self, row: RunRow) -> Any:
        """What a run is driven with first: its task, an answer that was claimed, or nothing."""
        claimed = await self.db.inbox.claimed(row.thread)
        if claimed:
            return _answers(claimed)
        kept = await self.db.saver.aget_tuple({"configurable": {"thread_id": row.thread}})
        begun = kept is not None and kept.metadata.get("run_id") == row.run
        return None if begun else {"task": row.task}

    async def _advance(
        self, app: Any, row: RunRow, given: Any, listen: Listener | None
    ) -> Result | None:
        control = RunControl()
        config = {"configurable": {"thread_id": row.thread}, "metadata": {"run_id": row.run}}
        try:
            async for _, mode, chunk in app.astream(
                given,
                config,
                context=self.services,
                stream_mode=["custom"],
                subgraphs=True,
                durability="sync",
                control=control,
            ):
                if listen is not None and mode == "custom" and isinstance(chunk, Event):
                    listen(chunk)
            state = await app.aget_state(config)
        except KapelleError:
            raise
        except Exception as error:
            log.exception("run on thread %s crashed", row.thread)
            return _crashed(row, f"{type(error).__name__}: {error}")
        finally:
            close_all(control)
        result = state.values.get("result")
        return result if isinstance(result, Result) else None

    @asynccontextmanager
    async def _held(self, thread: str, fence: int) -> AsyncIterator[None]:
        driving = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(self.lease / 3)
                if not await self._renewed(thread, fence):
                    lost = True
                    if driving is not None:
                        driving.cancel()
                    return

        heart = asyncio.ensure_future(renew())
        try:
            yield
        except asyncio.CancelledError:
            if lost:
                raise ThreadBusy(thread=thread, holder="another process") from None
            await self.db.runs.release(thread, self.holder, fence, status="running")
            raise
        except BaseException:
            await self.db.runs.release(thread, self.holder, fence, status="running")
            raise
        finally:
            heart.cancel()

    async def _renewed(self, thread: str, fence: int) -> bool:
        """Renew the lease; False once it is another's. It may fail and be ours: try again then."""
        try:
            return await self.db.runs.renew(thread, self.holder, fence, self.lease)
        except DatabaseFailed as error:
            log.warning("the lease of thread %s could not be renewed: %s", thread, error)
            return True


def _answers(asks: list[Ask]) -> Command[Any]:
    given = {
        ask.interrupt: ask.answer.model_copy(update={"ask": ask.id}).model_dump(mode="json")
        for ask in asks
        if ask.answer
    }
    return Command(resume=given)


def _crashed(row: RunRow, why: str) -> Result:
    return Result(task=row.task.id, status="failed", failure=Failure(kind="crashed", message=why))


def _lost(row: RunRow) -> Result:
    return _crashed(row, "the graph ended without a result")


def _has_crashed(result: Result) -> bool:
    return result.failure is not None and result.failure.kind == "crashed"
