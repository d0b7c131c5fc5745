"""The command line: start runs, see how they stand, answer what they ask, go on with them."""

import logging
import sys
from typing import Any, NoReturn, TextIO, get_args
from uuid import uuid4

import click
from pydantic import JsonValue, ValidationError

from kapelle import drawing, showing, story, targets
from kapelle.advancing import Listener
from kapelle.checkpoints.database import Database
from kapelle.checkpoints.runbook import RunRow
from kapelle.commands import database
from kapelle.commands.agents import agents
from kapelle.commands.options import as_someone, here, made_with, on_database, opened, pairs
from kapelle.driving import Stopped, answering, drive, resuming
from kapelle.nodes import estimating
from kapelle.nodes.door import wait
from kapelle.runs import Run, Runs
from kapelle.state.approval import Approval, Ask
from kapelle.state.errors import EmptyTask, KapelleError, Refused, UnknownThread
from kapelle.state.estimate import Estimate
from kapelle.state.task import Task
from kapelle.terminal import Terminal, user, value_of

BAD = ("failed", "refused")
"""Ends of a run for which the exit code is 1."""


class OneDoor(click.Group):
    """Commands with one door for what goes wrong: one line on stderr, exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and exit."""
        sys.exit(self.call(*args, **kwargs))

    def call(self, *args: Any, **kwargs: Any) -> int:
        """Run a command; its exit code."""
        try:
            return int(super().main(*args, **{**kwargs, "standalone_mode": False}) or 0)
        except click.ClickException as error:
            return _fail(_usage(error))
        except KapelleError as error:
            return _fail(str(error))
        except ValidationError as error:
            return _fail("; ".join(f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()))
        except Stopped as stopped:
            return _fail(f"stopped; `{stopped}` goes on", code=130)
        except (KeyboardInterrupt, click.Abort):
            return _fail("stopped", code=130)


def main() -> NoReturn:
    """What `kapelle` runs."""
    cli.main()


# ── the commands ──────────────────────────────────────────────────────────────────────────────


@click.group(
    name="kapelle",
    cls=OneDoor,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--verbose", "-v", is_flag=True, help="Say on stderr what goes on inside.")
@click.version_option(package_name="kapelle")
@click.pass_context
def cli(context: click.Context, *, verbose: bool) -> None:
    """Conduct many agents toward one goal."""
    if verbose:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.getLogger("kapelle").addHandler(logging.NullHandler())
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
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

        return _left(terminal, drive(terminal, runs, called, start, by=user()))


@cli.command()
@click.argument("thread")
@on_database
@here
def resume(terminal: Terminal, thread: str) -> int:
    """Go on with the run THREAD where it was stopped or killed."""
    with opened(terminal) as db:
        row = wait(db.runs.get(thread))
        if not row.target and row.status in ("running", "waiting"):
            raise Refused(f"run {thread} was started from Python; there, runs.resume({thread!r})")
        runs = _runs(db, row)
        step = resuming(terminal, runs, thread)
        return _left(terminal, drive(terminal, runs, thread, step, by=user()))


@cli.command()
@click.option("--limit", "-n", default=30, show_default=True, help="The newest so many.")
@on_database
@here
def runs(terminal: Terminal, limit: int) -> None:
    """List the runs, the newest first."""
    with opened(terminal) as db:
        rows = wait(db.runs.list(limit))
    terminal.tell([_row(row) for row in rows], showing.shown_runs(rows))


@cli.command()
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


@cli.command()
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


@cli.command()
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
    return _answer(terminal, ask, Approval(decision="approve", by=by, value=value))


@cli.command()
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


@cli.command()
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


@cli.command()
@click.argument("ask")
@click.argument("text")
@as_someone
@on_database
@here
def respond(terminal: Terminal, ask: str, text: str, by: str) -> int:
    """Say TEXT to who made ASK, and have it done again."""
    return _answer(terminal, ask, Approval(decision="respond", by=by, value=text))


@cli.command()
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


cli.add_command(database.db)
cli.add_command(database.doctor)
cli.add_command(agents)


# ── what commands share ───────────────────────────────────────────────────────────────────────


def _runs(db: Database, row: RunRow) -> Runs:
    return Runs(db, {row.graph: targets.again(row.target)} if row.target else {})


def _answer(terminal: Terminal, ask: str, approval: Approval) -> int:
    with opened(terminal) as db:
        asked = wait(db.inbox.get(ask))
        row = _row_of(db, asked.thread)
        if asked.answer is not None or row is None or not row.target:
            return _claimed(terminal, db, ask, approval)
        runs = _runs(db, row)
        step = answering(terminal, runs, ask, approval)
        run = drive(terminal, runs, row.thread, step, by=approval.by)
        code = _left(terminal, run)
        wished = approval.decision == "reject" and run.status == "refused"
        return 0 if wished else code


def _estimated(terminal: Terminal, found: Estimate) -> int:
    terminal.tell(found, showing.shown_estimate(found))
    return 0


def _row_of(db: Database, thread: str) -> RunRow | None:
    try:
        return wait(db.runs.get(thread))
    except UnknownThread:
        return None


def _claimed(terminal: Terminal, db: Database, ask: str, approval: Approval) -> int:
    """Record an answer to a run that only the process that started it can go on with."""
    claimed = wait(db.inbox.claim(ask, approval))
    terminal.tell(
        claimed,
        f"{approval.decision} is recorded for ask {claimed.id}.",
        f"The run was started from Python; there, runs.resume({claimed.thread!r})",
    )
    return 0


def _left(terminal: Terminal, run: Run) -> int:
    """Show how a run stands after it was driven; the exit code."""
    if terminal.json:
        terminal.give(run.document())
    else:
        terminal.show(showing.shown_run(run))
        for each in run.asks:
            _left_open(terminal, each.ask)
        if run.status == "running":
            terminal.say("Another process goes on with it.", style="dim")
        terminal.say(terminal.command("show", run.thread), style="dim")
    return 1 if run.status in BAD else 0


def _left_open(terminal: Terminal, ask: Ask) -> None:
    """An ask that nobody here answered, and the exact command that does."""
    if not terminal.interactive:
        hint = f"; `{terminal.command('inbox', ask.id)}` shows them"
        terminal.show("", showing.shown_ask(ask, hint=hint))
    for offer in ask.offers:
        words = {"edit": ("VALUE",), "respond": ("TEXT",)}.get(offer, ())
        terminal.say("  " + " ".join([terminal.command(offer, ask.id), *words]))


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


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" See `{context.command_path} --help`." if context else ""
    return f"{error.format_message()}{hint}"


def _path(where: tuple[int | str, ...]) -> str:
    return ".".join(map(str, where)) or "the whole"


def _fail(line: str, code: int = 2) -> int:
    click.echo(f"kapelle: {' '.join(showing.clean(line).split())}", err=True)
    return code
