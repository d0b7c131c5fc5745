"""A service that starts runs, lists what waits for people, and takes their answers.

    uvicorn examples.service:app        keeps its runs in kapelle.db, or where KAPELLE_DB says

    POST /runs {"task": "…"}            starts a run; answers within a second, ended or not
    GET  /runs/THREAD                   how it stands: status, result, asks
    GET  /runs/THREAD/events?after=N    what happened, without the first N events
    GET  /asks                          what waits for people, in all runs
    POST /asks/ASK                      takes an answer: {"decision": "approve", "by": "ann"}

An answer is claimed in the database before anything goes on, so a second one is refused, with who
and when. A run outlives the process that drives it: whoever serves the same database goes on with
it. Who may ask and who may answer is not decided here; put the service behind something that knows
your users.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse

from kapelle import Approval, Database, Escalation, Run, Runs, Task, agent
from kapelle.graphs import pipeline
from kapelle.state.approval import CHOICES, Choice
from kapelle.state.errors import (
    AlreadyAnswered,
    Outdated,
    Refused,
    ThreadBusy,
    UnknownAsk,
    UnknownThread,
)
from kapelle.state.task import Brief

PATIENCE = 1.0
"""Seconds a request waits for a run; one that takes longer goes on without it."""
EVERY = 5.0
"""Seconds between two looks for runs that nobody drives any more."""
CODES = {UnknownAsk: 404, UnknownThread: 404, AlreadyAnswered: 409, Outdated: 409}
"""Status codes of what Kapelle refuses; 422 for all else."""


def service(runs: Runs, graph: str) -> FastAPI:
    """Serve one graph of `runs`."""
    background = Background(runs)
    app = FastAPI(title="Kapelle", lifespan=background.lifespan)

    @app.post("/runs", status_code=202)
    async def start(task: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        run = await runs.begin(graph, task)
        return await background.soon(run.thread)

    @app.get("/runs/{thread}")
    async def read(thread: str) -> dict[str, Any]:
        return (await runs.read(thread)).document()

    @app.get("/runs/{thread}/events")
    async def events(thread: str, after: Annotated[int, Query(ge=0)] = 0) -> list[dict[str, Any]]:
        return [event.document() for event in (await runs.events(thread))[after:]]

    @app.get("/asks")
    async def asks() -> list[dict[str, Any]]:
        return [ask.document() for ask in await runs.asks()]

    @app.post("/asks/{ask}")
    async def answer(ask: str, approval: Approval) -> dict[str, Any]:
        claimed = await runs.db.inbox.claim(ask, approval)
        return await background.soon(claimed.thread)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"error": str(error), **error.fields}, CODES.get(type(error), 422))

    return app


class Background:
    """Runs that go on when their requests have been answered."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._driven: set[asyncio.Task[Any]] = set()

    async def soon(self, thread: str) -> dict[str, Any]:
        """Drive a run; how it stands when it stops, or else in a second."""
        driven = self._drive(self._go_on(thread))
        await asyncio.wait({driven}, timeout=PATIENCE)
        run = driven.result() if driven.done() else await self._runs.read(thread)
        return run.document()

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Look after all runs; let go of them at the end, so that others can go on with them."""
        self._drive(self._look_after())
        yield
        for task in self._driven:
            task.cancel()
        await asyncio.gather(*self._driven, return_exceptions=True)

    async def _go_on(self, thread: str) -> Run:
        try:
            return await self._runs.resume(thread)
        except ThreadBusy:  # another process was faster, or our own look for runs
            return await self._runs.read(thread)

    async def _look_after(self) -> None:
        while True:
            self._drive(self._runs.recover())
            await asyncio.sleep(EVERY)

    def _drive(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._driven.add(task)  # asyncio itself holds a task only weakly
        task.add_done_callback(self._driven.discard)
        return task


@agent
def check(task: Task) -> object:
    """Say what is to be paid back, for a task like `Refund order A-17: 240`."""
    order, eur = task.goal.split(":")
    refund = {"order": order, "eur": int(eur)}
    if int(eur) <= 100:
        return refund
    offers: tuple[Choice, ...] = CHOICES if int(eur) < 10_000 else ("approve", "reject")
    return Escalation(question="Pay this back?", evidence=refund, offers=offers)


@agent
def pay(task: Task, brief: Brief) -> object:
    """Pay what was checked, and approved where it had to be."""
    return {"paid": brief.results["check"].output}


app = service(
    Runs(Database(os.environ.get("KAPELLE_DB", "kapelle.db")), {"refund": pipeline([check, pay])}),
    "refund",
)
