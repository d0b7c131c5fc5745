"""Progress: what the events of a run add up to while it runs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kapelle.showing import in_short, took
from kapelle.state.event import Event

ROWS = 12
"""Agents that are shown at most, those that came last."""

FINISHED = ("inform", "failure", "refuse")
"""Messages with which a worker is done with a subtask."""


@dataclass
class Share:
    """What one agent has done so far."""

    assigned: int = 0
    """Subtasks it was given; none if it is no worker of a team."""
    finished: int = 0
    tries: int = 0
    failed: int = 0
    """Tries that failed."""
    last: str = ""
    """The task it worked on last."""


@dataclass
class Progress:
    """The events of a run, folded. An event that is told twice counts once."""

    title: str
    shares: dict[str, Share] = field(default_factory=dict)
    latest: str = ""
    """The last decision, in a sentence."""
    began: float = field(default_factory=time.monotonic)
    _seen: set[str] = field(default_factory=set)
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    @property
    def total(self) -> int:
        """Subtasks assigned so far."""
        return sum(share.assigned for share in self.shares.values())

    @property
    def done(self) -> int:
        """Subtasks finished so far, well or not."""
        return sum(share.finished for share in self.shares.values())

    @property
    def failed(self) -> int:
        """Tries that failed."""
        return sum(share.failed for share in self.shares.values())

    def fold_all(self, events: Iterable[Event]) -> None:
        """Count what happened before."""
        for event in events:
            self.fold(event)

    def fold(self, event: Event) -> None:
        """Count one event."""
        if event.key and event.key in self._seen:
            return
        self._seen.add(event.key)
        if event.kind == "choice" and event.what == "assigned":
            self._share(event).assigned += 1
        elif event.kind == "message" and event.what in FINISHED:
            self._share(event).finished += 1
        elif event.kind == "attempt":
            share = self._share(event)
            share.tries += 1
            share.failed += event.what != "done"
            share.last = event.task
        elif event.kind in ("choice", "verdict", "escalation"):
            why = f": {event.why}" if event.why else ""
            self.latest = in_short(f"{event.agent} {event.what}{why}".strip(), 100)

    def line(self) -> str:
        """All of it in a line, for where nothing can be drawn."""
        seconds = took(time.monotonic() - self.began)
        failed = f", {self.failed:,} failed tries" if self.failed else ""
        if self.total:
            return f"{self.done:,} of {self.total:,} subtasks{failed}, {seconds}"
        tries = sum(share.tries for share in self.shares.values())
        return f"{tries:,} agents called{failed}, {seconds}"

    def __rich__(self) -> RenderableType:
        seconds = took(time.monotonic() - self.began)
        self._spinner.update(text=Text.assemble((self.title, "bold"), (f"  {seconds}", "dim")))
        latest = [Text(f"  {self.latest}", style="dim", no_wrap=True)] if self.latest else []
        return Group(self._spinner, self._grid(), *latest)

    def _grid(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for name, share in list(self.shares.items())[-ROWS:]:
            grid.add_row("", Text(in_short(name, 30)), *_cells(share))
        return grid

    def _share(self, event: Event) -> Share:
        return self.shares.setdefault(event.agent, Share())


def _cells(share: Share) -> list[RenderableType]:
    failed = Text(f"{share.failed} failed" if share.failed else "", style="red")
    if not share.assigned:
        times = f"{share.tries} times" if share.tries > 1 else "once"
        return [Text("━" * 30, style="green"), Text(times, style="dim"), failed, Text()]
    bar = ProgressBar(share.assigned, min(share.finished, share.assigned), width=30)
    count = Text(f"{share.finished:,}/{share.assigned:,}")
    return [bar, count, failed, Text(in_short(share.last, 40), style="dim", no_wrap=True)]
