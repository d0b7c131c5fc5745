"""The command line: start runs, see how they stand, answer what they ask, go on with them."""

import logging
import sys
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from kapelle import showing
from kapelle.commands import answering, database, reading, running
from kapelle.commands.agents import agents
from kapelle.driving import Stopped
from kapelle.state.errors import KapelleError


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


for command in (
    running.run,
    running.resume,
    reading.runs,
    reading.show,
    reading.inbox,
    answering.approve,
    answering.edit,
    answering.reject,
    answering.respond,
    reading.graph,
    database.db,
    database.doctor,
    agents,
):
    cli.add_command(command)


def main() -> NoReturn:
    """What `kapelle` runs."""
    cli.main()


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" See `{context.command_path} --help`." if context else ""
    return f"{error.format_message()}{hint}"


def _path(where: tuple[int | str, ...]) -> str:
    return ".".join(map(str, where)) or "the whole"


def _fail(line: str, code: int = 2) -> int:
    click.echo(f"kapelle: {' '.join(showing.clean(line).split())}", err=True)
    return code
