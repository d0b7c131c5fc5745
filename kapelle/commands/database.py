"""`kapelle db …` and `kapelle doctor`: look after what runs are kept in."""

import click

from kapelle import showing
from kapelle.commands.options import here, on_database, opened
from kapelle.nodes.door import wait
from kapelle.terminal import Terminal

DAY = 86_400.0
"""Seconds."""


@click.group()
def db() -> None:
    """Look after the database."""


@db.command()
@on_database
@here
def upgrade(terminal: Terminal) -> None:
    """Set the database up, or bring its schema up to date."""
    with opened(terminal, create=True) as database:
        version = wait(database.upgrade())
        terminal.tell(
            {"database": database.url, "schema": version}, f"{database.url} has schema {version}."
        )


@db.command()
@click.option("--keep", default=1, show_default=True, help="The newest so many of each thread.")
@click.option("--days", type=float, metavar="N", help="And all that are younger.")
@click.option("--thread", "threads", multiple=True, metavar="NAME", help="Only of this one.")
@click.option("--idle", type=float, metavar="DAYS", help="Forget threads that rest so long.")
@on_database
@here
def prune(
    terminal: Terminal, keep: int, days: float | None, threads: tuple[str, ...], idle: float | None
) -> None:
    """Forget old checkpoints, and items whose time is over.

    What the kept ones build on stays. A thread that is forgotten loses its run and journal as well;
    one whose run is not finished is never forgotten.
    """
    with opened(terminal) as database:
        gone = wait(database.forget(seconds=idle * DAY)) if idle is not None else []
        dropped = wait(
            database.prune(
                threads=threads or None,
                newest=keep,
                seconds=None if days is None else days * DAY,
            )
        )
        swept = database.store.sweep_ttl()
    terminal.tell(
        {"checkpoints": dropped, "threads": gone, "items": swept},
        f"Forgot {dropped} checkpoints, {len(gone)} threads, {swept} items.",
    )


@db.command()
@click.option("--largest", default=10, show_default=True, help="So many threads.")
@on_database
@here
def stats(terminal: Terminal, largest: int) -> None:
    """Tell how many bytes each table and the largest threads take."""
    with opened(terminal) as database:
        found = wait(database.stats(largest))
    terminal.tell(found, showing.shown_stats(found))


@click.command()
@on_database
@here
def doctor(terminal: Terminal) -> int:
    """Look whether the database is safe to keep runs in, and say how to mend what is not."""
    with opened(terminal) as database:
        findings = wait(database.doctor())
    terminal.tell(findings, *showing.shown_findings(findings))
    return 0 if all(found.safe for found in findings) else 1
