"""`kapelle agents …`: who is known here, and how well each does."""

import click

from kapelle import roster
from kapelle.commands.options import here, on_database, opened
from kapelle.nodes.door import wait
from kapelle.nodes.measuring import forget_cards
from kapelle.terminal import Terminal


@click.group(invoke_without_command=True)
@click.option("--skill", default="", metavar="NAME", help="Only those that have it.")
@on_database
@here
@click.pass_context
def agents(context: click.Context, terminal: Terminal, skill: str) -> None:
    """List the agents that are installed here, or that worked in markets."""
    if context.invoked_subcommand is not None:
        return
    with opened(terminal) as db:
        known = wait(roster.roster(db, skill))
    terminal.tell([each.document() for each in known], roster.shown_roster(known))


@agents.command(name="show")
@click.argument("name")
@on_database
@here
def show_agent(terminal: Terminal, name: str) -> None:
    """Tell all that is known of the agent NAME: its card, its reputation, its last outcomes."""
    with opened(terminal) as db:
        known = wait(roster.one(db, name))
    last = [outcome.model_dump(mode="json") for outcome in known.outcomes[-roster.LAST :]]
    terminal.tell({**known.document(), "last": last}, roster.shown_agent(known))


@agents.command(name="forget")
@click.argument("name")
@on_database
@here
def forget_agent(terminal: Terminal, name: str) -> None:
    """Forget the cards remembered under NAME; the next one has the name, outcomes stay."""
    with opened(terminal) as db:
        many = wait(forget_cards(db.store, name))
    terminal.tell({"agent": name, "cards": many}, f"Forgot {many} cards of {name}.")
