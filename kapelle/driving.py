"""Drive a run from the command line until it ends or waits: show progress, ask who sits there."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import click

from kapelle.advancing import Listener
from kapelle.checkpoints.database import Database
from kapelle.checkpoints.holder import has_died
from kapelle.checkpoints.runbook import RunRow
from kapelle.execution import Run
from kapelle.nodes.door import wait
from kapelle.progress import Progress
from kapelle.runs import Runs
from kapelle.showing import in_short
from kapelle.state.approval import Approval
from kapelle.state.errors import AlreadyAnswered, Outdated, ThreadBusy, UnknownThread
from kapelle.story import present
from kapelle.terminal import Terminal

Step = Callable[[Listener], Coroutine[Any, Any, Run]]
"""One stretch of a run: to its end, or to where it waits."""


class Stopped(Exception):
    """The run was interrupted from the keyboard; says which command goes on with it."""


def drive(terminal: Terminal, runs: Runs, thread: str, step: Step, *, by: str) -> Run:
    """Take a step; ask whoever sits here what the run then asks, and go on with each answer."""
    try:
        run = _watched(terminal, runs, thread, step)
        later: set[str] = set()
        while ask := next((a.ask for a in run.asks if a.ask.id not in later), None):
            approval = terminal.ask(ask, by) if terminal.interactive else None
            if approval is None:
                later.add(ask.id)
            else:
                run = _answered(terminal, runs, ask.id, approval, thread)
    except (KeyboardInterrupt, click.Abort) as stop:
        if isinstance(stop, click.Abort):  # the prompt's line is still open
            terminal.show("")
        raise Stopped(terminal.command("resume", thread)) from None
    return run


def answering(terminal: Terminal, runs: Runs, ask: str, approval: Approval) -> Step:
    """The step that answers an ask. Where a process died on the run, this one takes over."""

    async def step(listen: Listener) -> Run:
        run = await runs.answer(ask, approval, listen=listen)
        if run.status != "running":
            return run
        try:
            return await resuming(terminal, runs, run.thread)(listen)
        except ThreadBusy:  # it lives, and applies the answer
            return await runs.read(run.thread)

    return step


def resuming(terminal: Terminal, runs: Runs, thread: str) -> Step:
    """The step that goes on with a run, as soon as the lease of a process that died is over."""

    async def step(listen: Listener) -> Run:
        await _let_go(terminal, runs.db, thread)
        return await runs.resume(thread, listen=listen)

    return step


def _answered(terminal: Terminal, runs: Runs, ask: str, approval: Approval, thread: str) -> Run:
    try:
        return _watched(terminal, runs, thread, answering(terminal, runs, ask, approval))
    except (AlreadyAnswered, Outdated) as refused:  # somebody else was faster
        terminal.note(str(refused))
        return wait(runs.read(thread))


def _watched(terminal: Terminal, runs: Runs, thread: str, step: Step) -> Run:
    progress = wait(_progress(runs.db, thread))
    with terminal.watching(progress) as listen:
        return wait(step(listen))


async def _progress(db: Database, thread: str) -> Progress:
    """What the present run of a thread has done so far."""
    progress = Progress(in_short(thread))
    try:
        row = await db.runs.get(thread)
    except UnknownThread:
        return progress
    if row.status in ("running", "waiting"):
        progress.fold_all(present(row, await db.journal.read(thread)))
    return progress


async def _let_go(terminal: Terminal, db: Database, thread: str) -> None:
    """Wait until nobody holds a thread; `ThreadBusy` if who holds it gives a sign of life."""
    first = row = await db.runs.get(thread)
    if _is_held(row):
        terminal.note(
            f"{row.holder} holds {thread}: waiting for its lease to end, or a sign of life"
        )
    while _is_held(row):
        if (row.holder, row.lease_until) != (first.holder, first.lease_until):
            raise ThreadBusy(thread=thread, holder=row.holder)
        await asyncio.sleep(0.2)
        row = await db.runs.get(thread)


def _is_held(row: RunRow) -> bool:
    until = row.lease_until
    return until is not None and until > time.time() and not has_died(row.holder)
