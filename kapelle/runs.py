"""Runs: start, answer, resume and read what runs on a database; the one place that wires."""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command
from pydantic import JsonValue, ValidationError

from kapelle.checkpoints.database import Database
from kapelle.checkpoints.runbook import RunRow
from kapelle.nodes.board import close_all
from kapelle.nodes.door import each, wait
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval, Ask, Choice
from kapelle.state.budget import Usage
from kapelle.state.context import MasterContext
from kapelle.state.errors import (
    BadTask,
    EmptyTask,
    Failed,
    KapelleError,
    Misbuilt,
    ThreadBusy,
    UnknownTarget,
    UnknownThread,
)
from kapelle.state.event import Event
from kapelle.state.task import Failure, Result, Task

Graph = StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any]
Listener = Callable[[Event], None]
"""Told each event as it happens."""

LEASE = 30.0
"""Seconds a process that died keeps its thread."""
ENDED = ("done", "partial", "failed", "refused")

log = logging.getLogger("kapelle")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution: how it stands, what left it, what it asks."""

    thread: str
    graph: str
    status: str
    """`running`, `waiting`, `done`, `partial`, `failed` or `refused`."""
    task: Task
    result: Result | None = None
    """What left the run; None while it runs or waits."""
    asks: tuple["OpenAsk", ...] = ()
    """What waits for a person, oldest first."""

    @property
    def usage(self) -> Usage:
        """What the run used, as far as its result says."""
        return self.result.usage if self.result else Usage()

    def document(self) -> dict[str, JsonValue]:
        """The run as plain JSON."""
        return {
            "thread": self.thread,
            "graph": self.graph,
            "status": self.status,
            "task": self.task.model_dump(mode="json"),
            "result": self.result.model_dump(mode="json") if self.result else None,
            "asks": [each.ask.model_dump(mode="json") for each in self.asks],
        }


@dataclass(frozen=True)
class OpenAsk:
    """An ask of a run, with the ways to answer it; each returns the run as it then stands."""

    ask: Ask
    runs: "Runs" = field(repr=False)

    @property
    def id(self) -> str:
        """What the command line and `Runs.answer` know it by."""
        return self.ask.id

    @property
    def question(self) -> str:
        """What a person is to decide."""
        return self.ask.question

    @property
    def reason(self) -> str:
        """Why nobody else could decide it."""
        return self.ask.reason

    @property
    def evidence(self) -> JsonValue:
        """What is shown; approved, it becomes the output."""
        return self.ask.evidence

    @property
    def offers(self) -> tuple[Choice, ...]:
        """The answers that make sense."""
        return self.ask.offers

    def approve(self, *, by: str) -> Run:
        """Accept what is shown."""
        return self._answer("approve", by)

    def edit(self, value: JsonValue, *, by: str) -> Run:
        """Replace what is shown."""
        return self._answer("edit", by, value=value)

    def reject(self, reason: str = "", *, by: str) -> Run:
        """Refuse it."""
        return self._answer("reject", by, reason=reason)

    def respond(self, value: JsonValue, *, by: str) -> Run:
        """Say something and have it done again."""
        return self._answer("respond", by, value=value)

    def _answer(self, decision: Choice, by: str, value: JsonValue = None, reason: str = "") -> Run:
        answer = Approval(decision=decision, by=by, value=value, reason=reason)
        return self.runs.sync.answer(self.ask.id, answer)


class Runs:
    """Runs of named graphs on one database. Async; `runs.sync` has the same for sync callers.

    Args:
        db: Where everything is kept.
        graphs: Graphs by name: `{"task": …}` in, `{"result": …}` out, as all patterns are.
        services: What the nodes may call; by default `db.services()`.
    """

    def __init__(
        self, db: Database, graphs: Mapping[str, Graph], *, services: Services | None = None
    ) -> None:
        self.db = db
        self.sync = SyncRuns(self)
        self._graphs = dict(graphs)
        self._services = services or db.services()
        self._apps: dict[str, CompiledStateGraph[Any, Any, Any, Any]] = {}
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"

    async def start(
        self,
        graph: str,
        task: Task | str,
        *,
        thread: str | None = None,
        target: Mapping[str, JsonValue] | None = None,
        listen: Listener | None = None,
    ) -> Run:
        """Start a run and drive it until it ends or waits for a person.

        Args:
            graph: The name it was given to `Runs` under.
            task: What is to be done.
            thread: Where its state is kept; by default a new one. A thread whose run has ended
                may be used again.
            target: How a later process finds the graph again; only the command line needs it.
            listen: Told each event as it happens.

        Raises:
            EmptyTask: there is nothing to do.
            StillWaiting: the thread has open asks.
            ThreadBusy: another process advances the thread.
        """
        row = await self._opened(graph, task, thread, target)
        return await self._drive(row, row.fence, listen)

    async def begin(
        self,
        graph: str,
        task: Task | str,
        *,
        thread: str | None = None,
        target: Mapping[str, JsonValue] | None = None,
    ) -> Run:
        """Write a run down without driving it; `resume` or `recover` does, here or elsewhere.

        For a service that answers at once. Arguments and errors are those of `start`.
        """
        row = await self._opened(graph, task, thread, target)
        await self.db.runs.release(row.thread, self._holder, row.fence, status="running")
        return await self.read(row.thread)

    async def answer(self, ask: str, approval: Approval, *, listen: Listener | None = None) -> Run:
        """Answer one ask, by its id, and drive its run on.

        The answer is claimed before anything resumes: whoever comes second is refused. If another
        process advances the thread, that one applies the answer.

        Raises:
            UnknownAsk: there is no such ask.
            AlreadyAnswered: with who and when.
            NotAllowed: the ask does not offer this answer.
        """
        claimed = await self.db.inbox.claim(ask, approval)
        return await self.resume(claimed.thread, listen=listen)

    async def resume(self, thread: str, *, listen: Listener | None = None) -> Run:
        """Go on with a run that was interrupted, killed, answered, or crashed; else read it.

        A run that crashed on an error in the code goes on from where it was, once that is mended.

        Raises:
            UnknownThread: there is no run on it.
        """
        row = await self.db.runs.get(thread)
        if row.status in ENDED and not _crashed_before(row):
            return await self.read(thread)
        if row.status == "waiting" and not await self.db.inbox.claimed(thread):
            return await self.read(thread)
        self._app(row.graph)
        try:
            fence = await self.db.runs.take(thread, self._holder, LEASE)
        except ThreadBusy:
            if await self.db.inbox.claimed(thread):  # whoever has the lease applies it
                return await self.read(thread)
            raise
        await self.db.runs.mark(thread, "running")  # so that `recover` finds it if we die
        return await self._drive(row, fence, listen)

    async def read(self, thread: str) -> Run:
        """How a run stands, from the database.

        Raises:
            UnknownThread: there is no run on it.
        """
        row = await self.db.runs.get(thread)
        asks = await self.db.inbox.pending(thread)
        return Run(
            thread=thread,
            graph=row.graph,
            status=row.status,
            task=row.task,
            result=row.result,
            asks=tuple(OpenAsk(ask, self) for ask in asks),
        )

    async def stream(
        self, graph: str, task: Task | str, *, thread: str | None = None
    ) -> AsyncIterator[Event]:
        """Start a run and yield what happens, nested agents included, until it ends or waits.

        `read` tells how it stands then. Left before its end, the run stops and can be resumed.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        run = asyncio.ensure_future(
            self.start(graph, task, thread=thread, listen=events.put_nowait)
        )
        run.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await run
        finally:
            run.cancel()

    async def asks(self) -> list[Ask]:
        """What waits for a person, in all runs, oldest first."""
        return await self.db.inbox.pending()

    async def events(self, thread: str) -> list[Event]:
        """What happened in a run, in order.

        Raises:
            UnknownThread: there is no run on it.
        """
        await self.db.runs.get(thread)
        return await self.db.journal.read(thread)

    async def recover(self) -> list[Run]:
        """Go on with every run whose process died, or died before it used the answer it was given.

        What another process is faster with is left to it; a run that can't go on is logged.
        """
        died = [row.thread for row in await self.db.runs.abandoned()]
        answered = [ask.thread for ask in await self.db.inbox.claimed()]
        gone_on = []
        for thread in dict.fromkeys([*died, *answered]):
            try:
                if (await self.db.runs.get(thread)).graph in self._graphs:
                    gone_on.append(await self.resume(thread))
            except (ThreadBusy, UnknownThread):
                continue  # somebody else's: another process's, or a graph's that runs without us
            except KapelleError:
                log.exception("the run on thread %s can't go on", thread)
        return [run for run in gone_on if run.status != "running"]

    async def _opened(
        self,
        graph: str,
        task: Task | str,
        thread: str | None,
        target: Mapping[str, JsonValue] | None,
    ) -> RunRow:
        work = as_task(task)
        self._app(graph)
        return await self.db.runs.open(
            thread or f"{graph}-{uuid.uuid4().hex[:8]}",
            graph=graph,
            target=dict(target or {}),
            task=work,
            holder=self._holder,
            lease_seconds=LEASE,
        )

    async def _drive(self, row: RunRow, fence: int, listen: Listener | None) -> Run:
        app, thread = self._app(row.graph), row.thread
        async with self._lease(thread, fence):
            driven: set[str] = set()
            await self._remember(row)
            given = await self._first(row)
            self._tell(row, "resumed" if fence > row.fence else "started", fence, listen)
            while True:
                result = await self._advance(app, row, given, listen)
                if await self._let_go(row, fence, result):
                    return await self.read(thread)
                claimed = await self.db.inbox.claimed(thread)  # answered while we were at work
                if driven.issuperset(ask.id for ask in claimed):
                    raise Failed(f"an answer to thread {thread!r} was claimed but can't be applied")
                driven.update(ask.id for ask in claimed)
                given = _answers(claimed)

    async def _remember(self, row: RunRow) -> None:
        """Give agents the goal again where another process began the run."""
        memory = self._services.memory
        if not (await memory.context(row.thread)).goal:
            await memory.decide(row.thread, MasterContext(goal=row.task.goal))

    def _tell(self, row: RunRow, what: str, fence: int, listen: Listener | None) -> None:
        event = Event(
            kind="run",
            what=what,
            thread=row.thread,
            task=row.task.id,
            agent=self._holder,
            at=self._services.clock.now(),
            key=f"{row.run}/{fence}",
        )
        self._services.journal.record([event])
        if listen is not None:
            listen(event)

    async def _let_go(self, row: RunRow, fence: int, result: Result | None) -> bool:
        """Mark how the run stands and give the lease back, unless an answer waits to be used."""
        waits = bool(await self.db.inbox.pending(row.thread))
        left = None if waits else result or _lost(row)
        return await self.db.runs.release(
            row.thread, self._holder, fence, status=left.status if left else "waiting", result=left
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
                context=self._services,
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
            return _crashed(row, error)
        finally:
            close_all(control)
        result = state.values.get("result")
        return result if isinstance(result, Result) else None

    @asynccontextmanager
    async def _lease(self, thread: str, fence: int) -> AsyncIterator[None]:
        driving = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(LEASE / 3)
                if not await self.db.runs.renew(thread, self._holder, fence, LEASE):
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
            await self.db.runs.release(thread, self._holder, fence, status="running")
            raise
        except BaseException:
            await self.db.runs.release(thread, self._holder, fence, status="running")
            raise
        finally:
            heart.cancel()

    def _app(self, name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
        if name not in self._graphs:
            known = ", ".join(sorted(self._graphs)) or "none"
            raise UnknownTarget(f"there is no graph {name!r} here; there are: {known}")
        if name not in self._apps:
            graph = self._graphs[name]
            builder = graph.builder if isinstance(graph, CompiledStateGraph) else graph
            _fits(name, builder)
            self._apps[name] = builder.compile(
                checkpointer=self.db.saver, store=self.db.store, name=name
            )
        return self._apps[name]


class SyncRuns:
    """`Runs` for sync callers; works inside a running event loop, as in a notebook, as well."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def start(
        self,
        graph: str,
        task: Task | str,
        *,
        thread: str | None = None,
        target: Mapping[str, JsonValue] | None = None,
        listen: Listener | None = None,
    ) -> Run:
        """See `Runs.start`."""
        return wait(self._runs.start(graph, task, thread=thread, target=target, listen=listen))

    def answer(self, ask: str, approval: Approval, *, listen: Listener | None = None) -> Run:
        """See `Runs.answer`."""
        return wait(self._runs.answer(ask, approval, listen=listen))

    def resume(self, thread: str, *, listen: Listener | None = None) -> Run:
        """See `Runs.resume`."""
        return wait(self._runs.resume(thread, listen=listen))

    def read(self, thread: str) -> Run:
        """See `Runs.read`."""
        return wait(self._runs.read(thread))

    def stream(self, graph: str, task: Task | str, *, thread: str | None = None) -> Iterator[Event]:
        """See `Runs.stream`."""
        return each(self._runs.stream(graph, task, thread=thread))

    def begin(
        self,
        graph: str,
        task: Task | str,
        *,
        thread: str | None = None,
        target: Mapping[str, JsonValue] | None = None,
    ) -> Run:
        """See `Runs.begin`."""
        return wait(self._runs.begin(graph, task, thread=thread, target=target))

    def asks(self) -> list[Ask]:
        """See `Runs.asks`."""
        return wait(self._runs.asks())

    def events(self, thread: str) -> list[Event]:
        """See `Runs.events`."""
        return wait(self._runs.events(thread))

    def recover(self) -> list[Run]:
        """See `Runs.recover`."""
        return wait(self._runs.recover())


async def arun(
    graph: Graph,
    task: Task | str,
    *,
    db: Database | str = "kapelle.db",
    thread: str | None = None,
    listen: Listener | None = None,
) -> Run:
    """Run a graph until it ends or waits for a person.

    Args:
        graph: A pattern, or any LangGraph graph with `{"task": …}` in and `{"result": …}` out.
        task: What is to be done.
        db: A `Database`, a path or a SQLAlchemy URL.
        thread: Where its state is kept; by default a new one.
        listen: Told each event as it happens.
    """
    runs = Runs(db if isinstance(db, Database) else _opened(db), {"run": graph})
    return await runs.start("run", task, thread=thread, listen=listen)


def run(
    graph: Graph,
    task: Task | str,
    *,
    db: Database | str = "kapelle.db",
    thread: str | None = None,
    listen: Listener | None = None,
) -> Run:
    """`arun` for sync callers; works in a notebook as well."""
    return wait(arun(graph, task, db=db, thread=thread, listen=listen))


def as_task(task: Task | str) -> Task:
    """A task, from its goal if need be.

    Raises:
        EmptyTask: the goal is blank.
        BadTask: it is no text that can be kept.
    """
    goal = task.goal if isinstance(task, Task) else task
    if not goal.strip():
        raise EmptyTask
    try:
        return task if isinstance(task, Task) else Task(goal=goal)
    except ValidationError as error:
        raise BadTask(why=error.errors()[0]["msg"]) from None


@cache
def _opened(url: str) -> Database:
    return Database(url)


def _answers(asks: list[Ask]) -> Command[Any]:
    given = {
        ask.interrupt: ask.answer.model_copy(update={"ask": ask.id}).model_dump(mode="json")
        for ask in asks
        if ask.answer
    }
    return Command(resume=given)


def _fits(name: str, graph: StateGraph[Any, Any, Any, Any]) -> None:
    for schema, key in ((graph.input_schema, "task"), (graph.output_schema, "result")):
        if key not in graph.schemas[schema]:
            raise Misbuilt(
                f"graph {name!r} has no {key!r} in its {'input' if key == 'task' else 'output'}; "
                'Runs drives graphs with {"task": …} in and {"result": …} out'
            )


def _crashed(row: RunRow, error: Exception) -> Result:
    failure = Failure(kind="crashed", message=f"{type(error).__name__}: {error}")
    return Result(task=row.task.id, status="failed", failure=failure)


def _crashed_before(row: RunRow) -> bool:
    failure = row.result.failure if row.result else None
    return failure is not None and failure.kind == "crashed"


def _lost(row: RunRow) -> Result:
    failure = Failure(kind="crashed", message="the graph ended without a result")
    return Result(task=row.task.id, status="failed", failure=failure)
