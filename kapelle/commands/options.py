"""What many commands take: the terminal, the database, what a graph is made with."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from pydantic import JsonValue

from kapelle.checkpoints.database import Database
from kapelle.checkpoints.secret import aes
from kapelle.terminal import Terminal, user, value_of

Command = TypeVar("Command", bound=Callable[..., Any])

DATABASE = "kapelle.db"
"""Where everything is kept if nobody says otherwise."""

here = click.make_pass_decorator(Terminal, ensure=True)
"""Gives a command the terminal it is used in."""


def _db(context: click.Context, parameter: click.Parameter, value: str) -> None:
    terminal = context.ensure_object(Terminal)
    terminal.db = value
    terminal.named = value != (os.environ.get("KAPELLE_DB") or DATABASE)


def _json(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    context.ensure_object(Terminal).json = value


def _setting(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Terminal).settings[parameter.name or ""] = value


def _settings(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    context.ensure_object(Terminal).settings.update(pairs(context, parameter, value))


def pairs(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, JsonValue]:
    """What is given as KEY=VALUE, by key; a value is JSON or text."""
    found: dict[str, JsonValue] = {}
    for text in value:
        key, equals, given = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.", context, parameter)
        found[key] = value_of(given)
    return found


def on_database(command: Command) -> Command:
    """Give a command `--db` and `--json`."""
    command = click.option(
        "--json", is_flag=True, expose_value=False, callback=_json, help="Print one JSON document."
    )(command)
    return click.option(
        "--db",
        envvar="KAPELLE_DB",
        default=DATABASE,
        metavar="PATH_OR_URL",
        show_default=True,
        show_envvar=True,
        expose_value=False,
        callback=_db,
        help="Where everything is kept.",
    )(command)


def made_with(command: Command) -> Command:
    """Give a command what a graph can be made with: `--model`, `--docs`, `--config`."""
    folder = click.Path(exists=True, file_okay=False, resolve_path=True)
    given: dict[str, Any] = {"expose_value": False, "callback": _setting}
    for option in (
        click.option(
            "--config",
            multiple=True,
            metavar="KEY=VALUE",
            expose_value=False,
            callback=_settings,
            help="What else the graph is made with; VALUE is JSON or text.",
        ),
        click.option("--docs", metavar="DIR", type=folder, help="A folder of documents.", **given),
        click.option("--model", metavar="PROVIDER:NAME", help="Like openai:NAME.", **given),
    ):
        command = option(command)
    return command


def as_someone(command: Command) -> Command:
    """Give a command `--by`."""
    return click.option("--by", default=user, metavar="NAME", help="Who answers.  [default: you]")(
        command
    )


@contextmanager
def opened(terminal: Terminal, *, create: bool = False) -> Iterator[Database]:
    """The database a command works on."""
    with Database(terminal.db, create=create, cipher=aes()) as db:
        yield db
