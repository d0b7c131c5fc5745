"""Runs: start, answer, resume and read what runs on a database; the one place that wires."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue, ValidationError

from kapelle.advancing import Driver, Listener
from kapelle.checkpoints.database import Database
from kapelle.checkpoints.holder import holder
from kapelle.checkpoints.runbook import RunRow
from kapelle.checkpoints.secret import aes
from kapelle.execution import OpenAsk, Run
from kapelle.nodes.door import each, wait
from kapelle.nodes.registry import InstalledRegistry
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval, Ask
from kapelle.state.errors import (
    BadTask,
    EmptyTask,
    KapelleError,
    Misbuilt,
    ThreadBusy,
    UnknownTarget,
    UnknownThread,
)
from kapelle.state.event import Event
from kapelle.state.task import Task

Graph = StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any]
LEASE = 30.0
"""Seconds a thread is kept from others after its process was last heard of, or seen to be dead."""
RECOVER = 16
"""Runs that `recover` drives at once."""
ENDED = ("done", "partial", "failed", "refused")

log = logging.getLogger("kapelle")


class Runs:
    """Runs of named graphs on one database. Async; `runs.sync` has the same for sync callers.

    Args:
        db: Where everything is kept.
        graphs: Graphs by name: `{"task": …}` in, `{"result": …}` out, as all patterns are.
        services: What the nodes may call; by default `db.services()`, with the agents of
            installed packages.
        lease: Seconds a thread is kept from others after this process was last heard of.
    """

    def __init__(
        self,
        db: Database,
        graphs: Mapping[str, Graph],
        *,
        services: Services | None = None,
        lease: float = LEASE,
    ) -> None:
        self.db = db
        self.sync = SyncRuns(self)
        self._graphs = dict(graphs)
        self._apps: dict[str, CompiledStateGraph[Any, Any, Any, Any]] = {}
        self._driver = Driver(
            db=db, services=services or _services(db), holder=holder(), lease=lease
        )

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
        await self.db.runs.release(row.thread, self._driver.holder, row.fence, status="running")
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
            fence = await self.db.runs.take(thread, self._driver.holder, self._driver.lease)
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
        answered = await self.db.inbox.answered(thread, since=row.created_at)
        return Run(
            thread=thread,
            graph=row.graph,
            status=row.status,
            task=row.task,
            result=row.result,
            asks=tuple(OpenAsk(ask, self.answer) for ask in asks),
            approvals=tuple(_stamped(ask, ask.answer) for ask in answered if ask.answer),
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

        `RECOVER` of them at once. What another process is faster with is left to it; a run that
        can't go on is logged.
        """
        found = [row for row in await self.db.runs.abandoned() if row.graph in self._graphs]
        at_once = asyncio.Semaphore(RECOVER)

        async def go_on(thread: str) -> Run | None:
            async with at_once:
                return await self._gone_on(thread)

        runs = await asyncio.gather(*(go_on(row.thread) for row in found))
        return [run for run in runs if run is not None and run.status != "running"]

    async def _gone_on(self, thread: str) -> Run | None:
        try:
            return await self.resume(thread)
        except (ThreadBusy, UnknownThread):
            return None  # another process was faster
        except KapelleError:
            log.exception("the run on thread %s can't go on", thread)
            return None

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
            holder=self._driver.holder,
            lease_seconds=self._driver.lease,
        )

    async def _drive(self, row: RunRow, fence: int, listen: Listener | None) -> Run:
        await self._driver.drive(self._app(row.graph), row, fence, listen)
        return await self.read(row.thread)

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
    name: str = "run",
    lease: float = LEASE,
) -> Run:
    """Run a graph until it ends or waits for a person.

    Args:
        graph: A pattern, or any LangGraph graph with `{"task": …}` in and `{"result": …}` out.
        task: What is to be done.
        db: A `Database`, a path or a SQLAlchemy URL.
        thread: Where its state is kept; by default a new one.
        listen: Told each event as it happens.
        name: What the graph is called; `Runs(db, {name: graph})` goes on with it elsewhere.
        lease: Seconds the thread is kept from others after this process was last heard of.
    """
    opened = db if isinstance(db, Database) else _opened(db)
    runs = Runs(opened, {name: graph}, lease=lease)
    return await runs.start(name, task, thread=thread, listen=listen)


def run(
    graph: Graph,
    task: Task | str,
    *,
    db: Database | str = "kapelle.db",
    thread: str | None = None,
    listen: Listener | None = None,
    name: str = "run",
    lease: float = LEASE,
) -> Run:
    """`arun` for sync callers; works in a notebook as well."""
    doing = arun(graph, task, db=db, thread=thread, listen=listen, name=name, lease=lease)
    return wait(doing)


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


def _services(db: Database) -> Services:
    return replace(db.services(), registry=InstalledRegistry())


@cache
def _opened(url: str) -> Database:
    return Database(url, cipher=aes())


def _stamped(ask: Ask, answer: Approval) -> Approval:
    return answer.model_copy(update={"ask": ask.id})


def _fits(name: str, graph: object) -> None:
    if not isinstance(graph, StateGraph):
        raise Misbuilt(
            f"{name!r} is {type(graph).__name__}, not a graph; "
            "put an agent into a pattern, like pipeline([it])"
        )
    for schema, key in ((graph.input_schema, "task"), (graph.output_schema, "result")):
        if key not in graph.schemas[schema]:
            raise Misbuilt(
                f"graph {name!r} has no {key!r} in its {'input' if key == 'task' else 'output'}; "
                'Runs drives graphs with {"task": …} in and {"result": …} out'
            )


def _crashed_before(row: RunRow) -> bool:
    failure = row.result.failure if row.result else None
    return failure is not None and failure.kind == "crashed"
