"""`kapelle approve`, `edit`, `reject`, `respond`: answer what a run asks, and drive it on."""

from typing import TextIO

import click
from pydantic import JsonValue

from kapelle.checkpoints.database import Database
from kapelle.checkpoints.runbook import RunRow
from kapelle.commands.options import as_someone, here, on_database, opened
from kapelle.commands.stopping import left, runs_of
from kapelle.driving import answering, drive
from kapelle.nodes.door import wait
from kapelle.state.approval import Approval
from kapelle.state.errors import UnknownThread
from kapelle.terminal import Terminal, value_of


@click.command()
@click.argument("ask")
@click.option("--add-tokens", type=click.IntRange(min=1), metavar="N", help="To the budget.")
@click.option("--add-calls", type=click.IntRange(min=1), metavar="N", help="To the budget.")
@click.option("--add-usd", type=click.FloatRange(min=0), metavar="X", help="To the budget.")
@as_someone
@on_database
@here
def approve(
    terminal: Terminal,
    ask: str,
    add_tokens: int | None,
    add_calls: int | None,
    add_usd: float | None,
    by: str,
) -> int:
    """Accept what ASK shows; of an ask for a larger budget, what it shows or what you add."""
    given = {"tokens": add_tokens, "calls": add_calls, "usd": add_usd}
    add: dict[str, JsonValue] = {unit: more for unit, more in given.items() if more is not None}
    value: JsonValue = {"add": add} if add else None
    approval = Approval(decision="approve", by=by, value=value)
    return _answer(terminal, ask, approval, adds=bool(add))


@click.command()
@click.argument("ask")
@click.argument("value", required=False)
@click.option("--file", type=click.File(encoding="utf-8"), help="Read VALUE from here; - is stdin.")
@as_someone
@on_database
@here
def edit(terminal: Terminal, ask: str, value: str | None, file: TextIO | None, by: str) -> int:
    """Put VALUE, JSON or text, in place of what ASK shows."""
    if (value is None) == (file is None):
        raise click.UsageError("Give either VALUE or --file.")
    text = file.read() if file else value
    return _answer(terminal, ask, Approval(decision="edit", by=by, value=value_of(text or "")))


@click.command()
@click.argument("ask")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@as_someone
@on_database
@here
def reject(terminal: Terminal, ask: str, reason: str, by: str) -> int:
    """Refuse what ASK shows.

    A run that ends refused is what was wished for: the exit code is 0.
    """
    return _answer(terminal, ask, Approval(decision="reject", by=by, reason=reason))


@click.command()
@click.argument("ask")
@click.argument("text")
@as_someone
@on_database
@here
def respond(terminal: Terminal, ask: str, text: str, by: str) -> int:
    """Say TEXT to who made ASK, and have it done again."""
    return _answer(terminal, ask, Approval(decision="respond", by=by, value=text))


def _answer(terminal: Terminal, ask: str, approval: Approval, *, adds: bool = False) -> int:
    with opened(terminal) as db:
        asked = wait(db.inbox.get(ask))
        if adds and asked.about not in ("budget", "estimate"):
            raise click.UsageError(f"Ask {asked.id} is not about a budget: nothing to add to.")
        row = _row_of(db, asked.thread)
        if asked.answer is not None or row is None or not row.target:
            return _claimed(terminal, db, ask, approval)
        runs = runs_of(db, row)
        step = answering(terminal, runs, ask, approval)
        run = drive(terminal, runs, row.thread, step, by=approval.by)
        code = left(terminal, run)
        wished = approval.decision == "reject" and run.status == "refused"
        return 0 if wished else code


def _claimed(terminal: Terminal, db: Database, ask: str, approval: Approval) -> int:
    """Record an answer to a run that only the process that started it can go on with."""
    claimed = wait(db.inbox.claim(ask, approval))
    terminal.tell(
        claimed,
        f"{approval.decision} is recorded for ask {claimed.id}.",
        f"The run was started from Python; there, runs.resume({claimed.thread!r})",
    )
    return 0


def _row_of(db: Database, thread: str) -> RunRow | None:
    try:
        return wait(db.runs.get(thread))
    except UnknownThread:
        return None
