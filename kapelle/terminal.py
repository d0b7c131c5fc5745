"""The terminal: results on stdout, progress and errors on stderr, and who can be asked."""

import getpass
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import JsonValue
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from kapelle.advancing import Listener
from kapelle.progress import Progress
from kapelle.showing import EVIDENCE_LINES, clean, shown_ask
from kapelle.state.approval import Approval, Ask, Choice
from kapelle.state.noun import standard

WIDTH = 120
"""Columns where nobody says how many there are, as in a pipe."""
EVERY = 5.0
"""Seconds between two lines of progress, where nothing can be drawn."""
STEPS = 10
"""Or so many lines in all, whichever is sooner, but no two within a second."""

Word = Choice | Literal["later", "all"]


@dataclass
class Terminal:
    """Where the command line is used, and what was said there once for all."""

    db: str = "kapelle.db"
    named: bool = False
    """Whether the database was named on the command line, so that hints have to name it too."""
    json: bool = False
    """Whether only a program reads what is printed."""
    settings: dict[str, JsonValue] = field(default_factory=dict)
    """What graphs are made with: the config that LangGraph calls `configurable`."""

    @cached_property
    def out(self) -> Console:
        """For results."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """For progress and errors."""
        return _console(stderr=True)

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked; nobody sits at the terminal of a notebook's `!command`."""
        notebook = "JPY_PARENT_PID" in os.environ
        return not (self.json or notebook) and sys.stdin.isatty() and sys.stdout.isatty()

    def command(self, *words: str) -> str:
        """A command, such as can be pasted here: `kapelle approve 1a2b3c`."""
        where = ["--db", self.db] if self.named else []
        return f"{_program()} {shlex.join([*words, *where])}"

    def tell(self, document: Any, *parts: RenderableType) -> None:
        """Print one JSON document, if that is wanted; else what people read, texts as lines."""
        if self.json:
            self.give(document)
            return
        for part in parts:
            self.say(part) if isinstance(part, str) else self.show(part)

    def show(self, *parts: RenderableType) -> None:
        """Print for people."""
        for part in parts:
            self.out.print(part)

    def say(self, line: str, style: str = "") -> None:
        """Print a line for people; it is never broken, so that it can be pasted."""
        self.out.print(Text(clean(line), style=style), soft_wrap=True)

    def note(self, line: str) -> None:
        """Say in passing what goes on."""
        if not self.json:
            self.err.print(Text(clean(line), style="dim"), soft_wrap=True)

    def give(self, document: Any) -> None:
        """Print one JSON document."""
        click.echo(json.dumps(standard(document), indent=2, allow_nan=False))

    @contextmanager
    def watching(self, progress: Progress) -> Iterator[Listener]:
        """Show progress while something runs; what it yields is to be told the events."""
        if self.json:
            yield progress.fold
        elif self.err.is_terminal:
            with Live(progress, console=self.err, refresh_per_second=8, transient=True):
                yield progress.fold
        else:
            yield _Lines(progress, self.note)

    def ask(self, ask: Ask, by: str) -> Approval | None:
        """Ask who sits here; None means later."""
        fitting = min(EVIDENCE_LINES, max(10, self.out.height - 12))
        self.show("", shown_ask(ask, most=fitting, hint="; answer `all` to see them"))
        words: tuple[Word, ...] = (*ask.offers, "later", "all")
        while True:
            word = click.prompt(" / ".join(words), value_proc=_one_of(words), prompt_suffix=" > ")
            if word == "all":
                self.show(shown_ask(ask, most=sys.maxsize))
            elif word == "later":
                return None
            elif approval := _given(ask, word, by):
                return approval


class _Lines:
    """Progress as a plain line now and then."""

    def __init__(self, progress: Progress, say: Callable[[str], None]) -> None:
        self._progress = progress
        self._say = say
        self._named = False
        self._at = time.monotonic()
        self._part = self._parts()

    def __call__(self, event: Any) -> None:
        if not self._named:
            self._say(f"run {self._progress.title}")
            self._named = True
        self._progress.fold(event)
        now, part = time.monotonic(), self._parts()
        if now - self._at >= (1.0 if part > self._part else EVERY):
            self._say(self._progress.line())
            self._at, self._part = now, part

    def _parts(self) -> int:
        return STEPS * self._progress.done // max(1, self._progress.total)


def user() -> str:
    """Who sits here, as the operating system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


def value_of(text: str) -> JsonValue:
    """JSON if it is JSON, else the text itself.

    >>> value_of("3"), value_of("three"), value_of('["a"]')
    (3, 'three', ['a'])
    """
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def _given(ask: Ask, decision: Choice, by: str) -> Approval | None:
    if decision == "edit":
        edited = click.edit(
            json.dumps(ask.evidence, indent=2, ensure_ascii=False), extension=".json"
        )
        if edited is None:
            click.echo("Nothing was changed.")
            return None
        return Approval(decision="edit", by=by, value=value_of(edited.strip()))
    if decision == "reject":
        why = click.prompt("Why", default="", show_default=False)
        return Approval(decision="reject", by=by, reason=why)
    if decision == "respond":
        return Approval(decision="respond", by=by, value=click.prompt("What do you say"))
    return Approval(decision=decision, by=by)


def _one_of(words: tuple[Word, ...]) -> Callable[[str], Word]:
    def read(text: str) -> Word:
        fitting: list[Word] = [
            word for word in words if text and word.startswith(text.strip().lower())
        ]
        if len(fitting) != 1:
            raise click.UsageError(f"answer one of {', '.join(words)}; its beginning is enough")
        return fitting[0]

    return read


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if known else WIDTH, highlight=False)


def _program() -> str:
    """How this program is called from here."""
    if shutil.which("kapelle"):
        return "kapelle"
    script = Path(sys.executable).with_name("kapelle")
    if script.is_file():
        inside = script.is_relative_to(Path.cwd())
        return shlex.quote(str(script.relative_to(Path.cwd()) if inside else script))
    return f"{shlex.quote(sys.executable)} -m kapelle"
