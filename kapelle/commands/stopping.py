"""Where a command leaves a run: how it stands then, and which commands go on with it."""

from kapelle import showing, targets
from kapelle.checkpoints.database import Database
from kapelle.checkpoints.runbook import RunRow
from kapelle.execution import Run
from kapelle.runs import Runs
from kapelle.state.approval import Ask
from kapelle.terminal import Terminal

BAD = ("failed", "refused")
"""Ends of a run for which the exit code is 1."""


def runs_of(db: Database, row: RunRow) -> Runs:
    """What goes on with a run, with its graph found again where that is possible."""
    return Runs(db, {row.graph: targets.again(row.target)} if row.target else {})


def left(terminal: Terminal, run: Run) -> int:
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
