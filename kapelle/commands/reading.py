"""`kapelle runs`, `show`, `inbox`, `graph`: how runs stand, what they ask, how a graph looks."""

import sys
from typing import Any, TextIO, get_args

import click

from kapelle import drawing, showing, story, targets
from kapelle.checkpoints.runbook import RunRow
from kapelle.commands.options import here, made_with, on_database, opened
from kapelle.nodes.door import wait
from kapelle.runs import Runs
from kapelle.terminal import Terminal


@click.command()
@click.option("--limit", "-n", default=30, show_default=True, help="The newest so many.")
@on_database
@here
def runs(terminal: Terminal, limit: int) -> None:
    """List the runs, the newest first."""
    with opened(terminal) as db:
        rows = wait(db.runs.list(limit))
    terminal.tell([_row(row) for row in rows], showing.shown_runs(rows))


@click.command()
@click.argument("thread")
@click.option("--events", is_flag=True, help="All that happened, not the decisions alone.")
@on_database
@here
def show(terminal: Terminal, thread: str, *, events: bool) -> None:
    """Tell of the run THREAD who did what, why, and at what cost."""
    with opened(terminal) as db:
        row = wait(db.runs.get(thread))
        now = wait(Runs(db, {}).read(thread))
        happened = story.present(row, wait(db.journal.read(thread)))
    if terminal.json:
        told = happened if events else story.decisions(happened)
        shares = {
            f"{by}s": [share.document(by) for share in story.shares(happened, by)]
            for by in get_args(story.By)
        }
        terminal.give({**_row(row), **now.document(), **shares, "events": told})
    else:
        terminal.show(*story.shown_story(row, now, happened, everything=events))


@click.command()
@click.argument("ask", required=False)
@on_database
@here
def inbox(terminal: Terminal, ask: str | None) -> None:
    """List what runs ask people; ASK alone is shown in full."""
    with opened(terminal) as db:
        asks = [wait(db.inbox.get(ask))] if ask else wait(db.inbox.pending())
    if terminal.json:
        terminal.give(asks)
    elif ask:
        terminal.show(showing.shown_ask(asks[0], most=sys.maxsize))
    else:
        terminal.show(showing.shown_inbox(asks))


@click.command()
@click.argument("target")
@click.option("--svg", type=click.File("w", encoding="utf-8"), help="Draw it; - is stdout.")
@click.option("--nested", is_flag=True, help="The graphs inside as well.")
@made_with
@on_database
@here
def graph(terminal: Terminal, target: str, svg: TextIO | None, *, nested: bool) -> None:
    """Draw TARGET: as Mermaid text, or as SVG."""
    name, found, _ = targets.load(target, terminal.settings)
    app = drawing.compiled(found)
    if svg is not None:
        svg.write(drawing.svg(app, nested=nested))
    elif terminal.json:
        terminal.give({"name": name, **drawing.document(app, nested=nested)})
    else:
        click.echo(app.get_graph(xray=nested).draw_mermaid(), nl=False)


def _row(row: RunRow) -> dict[str, Any]:
    return {
        "thread": row.thread,
        "graph": row.graph,
        "status": row.status,
        "task": row.task,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
        "holder": row.holder,
        "lease_until": row.lease_until,
    }
