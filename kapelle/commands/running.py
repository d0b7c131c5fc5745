"""`kapelle run`, `resume`: start runs and go on with them."""

from uuid import uuid4

import click
from pydantic import JsonValue

from kapelle import showing, targets
from kapelle.advancing import Listener
from kapelle.commands.options import here, made_with, on_database, opened, pairs
from kapelle.commands.stopping import left, runs_of
from kapelle.driving import drive, resuming
from kapelle.execution import Run
from kapelle.nodes import estimating
from kapelle.nodes.door import wait
from kapelle.runs import Runs
from kapelle.state.errors import EmptyTask, Refused
from kapelle.state.estimate import Estimate
from kapelle.state.task import Task
from kapelle.terminal import Terminal, user


@click.command()
@click.argument("target")
@click.option("--task", "-t", default="", metavar="TEXT", help="What is to be done.")
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    callback=pairs,
    metavar="KEY=VALUE",
    help="What the work needs to know; VALUE is JSON or text.",
)
@click.option("--thread", metavar="NAME", help="What the run is called.  [default: a new name]")
@click.option("--estimate", is_flag=True, help="Say what it will use, and do nothing.")
@made_with
@on_database
@here
def run(
    terminal: Terminal,
    target: str,
    task: str,
    inputs: dict[str, JsonValue],
    thread: str | None,
    *,
    estimate: bool,
) -> int:
    """Start a run of TARGET, until it ends or waits for a person.

    TARGET is a name in langgraph.json or path.py:NAME.
    """
    if not task.strip():
        raise EmptyTask
    name, graph, spec = targets.load(target, terminal.settings)
    work, called = Task(goal=task, inputs=inputs), thread or f"{name}-{uuid4().hex[:8]}"
    if estimate:
        return _estimated(terminal, estimating.estimate(graph, work))
    with opened(terminal, create=True) as db:
        runs = Runs(db, {name: graph})

        async def start(listen: Listener) -> Run:
            return await runs.start(name, work, thread=called, target=spec, listen=listen)

        return left(terminal, drive(terminal, runs, called, start, by=user()))


@click.command()
@click.argument("thread")
@on_database
@here
def resume(terminal: Terminal, thread: str) -> int:
    """Go on with the run THREAD where it was stopped or killed."""
    with opened(terminal) as db:
        row = wait(db.runs.get(thread))
        if not row.target and row.status in ("running", "waiting"):
            raise Refused(f"run {thread} was started from Python; there, runs.resume({thread!r})")
        runs = runs_of(db, row)
        step = resuming(terminal, runs, thread)
        return left(terminal, drive(terminal, runs, thread, step, by=user()))


def _estimated(terminal: Terminal, found: Estimate) -> int:
    terminal.tell(found, showing.shown_estimate(found))
    return 0
