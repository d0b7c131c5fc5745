"""The story of a run, from its journal: who did what, why, and at what cost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from pydantic import JsonValue
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kapelle.checkpoints.runbook import RunRow
from kapelle.execution import Run
from kapelle.showing import (
    STYLES,
    clean,
    cost,
    in_short,
    listed,
    shown_ask,
    shown_run,
    standing,
    tokens,
    took,
    when,
)
from kapelle.state.budget import Usage
from kapelle.state.event import Event

DECISIONS = ("choice", "tally", "verdict", "escalation", "approval", "effect", "run")
"""Kinds of events that say why a run went as it did."""

By = Literal["agent", "task", "model"]
"""What shares are told by."""

DEAREST = 10
"""Tasks that are shown with what they took."""

FIRST = 3
"""Decisions that are shown of many of the same kind in a row."""
ASK_LINES = 12

SIGNS = {
    "choice": "·",
    "vote": "□",
    "tally": "▣",
    "verdict": "◆",
    "escalation": "▲",
    "approval": "✓",
    "run": "■",
    "message": "→",
    "attempt": "○",
    "spend": "$",
    "effect": "!",
}


@dataclass
class Share:
    """What one agent did in one place, was spent on one task, or one model answered."""

    name: str
    place: str
    """Where in nested graphs: their names, outermost first."""
    tasks: set[str] = field(default_factory=set)
    tries: int = 0
    failed: int = 0
    seconds: float = 0.0
    usage: Usage = Usage()
    retries: Usage = Usage()
    """Of it: used by second and later tries."""
    waste: Usage = Usage()
    """Of it: used by tries that failed."""

    def count(self, attempt: Event) -> None:
        """Add one try."""
        self.tasks.add(attempt.task)
        self.tries += 1
        self.seconds += float(str(attempt.data.get("seconds", 0)))
        self.usage += attempt.usage
        if attempt.what != "done":
            self.failed += 1
            self.waste += attempt.usage
        if attempt.data.get("number", 1) != 1:
            self.retries += attempt.usage

    def document(self, title: str) -> dict[str, JsonValue]:
        """For programs; `title` says what its name is the name of."""
        return {
            title: self.name,
            "place": self.place,
            "subtasks": len(self.tasks),
            "attempts": self.tries,
            "failed_attempts": self.failed,
            "seconds": round(self.seconds, 6),
            "usage": self.usage.model_dump(mode="json"),
            "retries": self.retries.model_dump(mode="json"),
            "waste": self.waste.model_dump(mode="json"),
        }


def place_of(event: Event) -> str:
    """The graphs an event happened in, by name: LangGraph's ids are left out.

    >>> place_of(Event(kind="run", what="done", place="team:5f0c-a1|inner:77"))
    'team/inner'
    """
    return "/".join(part.partition(":")[0] for part in event.place.split("|") if part)


def present(row: RunRow, events: Sequence[Event]) -> Sequence[Event]:
    """The events of a thread's last run: from where the journal says that it was started."""
    mark = f"{row.run}/"
    first = (n for n, e in enumerate(events) if e.kind == "run" and e.key.startswith(mark))
    return events[next(first, len(events)) :]


def shares(events: Iterable[Event], by: By = "agent") -> list[Share]:
    """Who did, what took or which model answered how much, in order of appearance."""
    found: dict[tuple[str, str], Share] = {}
    for event in events:
        if event.kind == "attempt" and (name := _name_of(event, by)):
            key = name, "" if by == "model" else place_of(event)
            found.setdefault(key, Share(*key)).count(event)
    return list(found.values())


def _name_of(event: Event, by: By) -> str:
    names = {"agent": event.agent, "task": event.task, "model": str(event.data.get("model", ""))}
    return names[by]


def decisions(events: Iterable[Event]) -> list[Event]:
    """The choices, verdicts, escalations and approvals, in order."""
    return [event for event in events if event.kind in DECISIONS]


def shown_story(
    row: RunRow, run: Run, events: Sequence[Event], *, everything: bool
) -> Iterator[RenderableType]:
    """The page of a run."""
    yield from _head(row, events)
    if found := shares(events):
        yield _heading("Who did what")
        yield _shares(found, "Agent")
    if any(share.usage.tokens for share in found):
        yield _heading("By task")
        yield _shares(_dearest(shares(events, "task")), "Task")
    if models := shares(events, "model"):
        yield _heading("By model")
        yield _shares(models, "Model")
    if everything:
        yield _heading("Everything that happened")
        yield _lines(_line(event) for event in events)
    elif made := decisions(events):
        yield _heading("Why")
        yield _lines(_grouped(made))
    if run.asks:
        yield _heading("What it asks")
        yield from (shown_ask(each.ask, most=ASK_LINES) for each in run.asks)
    if run.result:
        yield _heading("What came out")
        yield shown_run(run)


def _head(row: RunRow, events: Sequence[Event]) -> Iterator[RenderableType]:
    status = standing(row)
    last = row.finished_at or max((event.at for event in events), default=row.updated_at)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("Run", Text(in_short(row.thread), style="bold"))
    facts.add_row("Status", Text(status, style=STYLES[status]))
    facts.add_row("Graph", Text(in_short(row.graph)))
    facts.add_row("Task", Text(in_short(row.task.goal, 400)))
    for name, value in row.task.inputs.items():
        facts.add_row("", Text(in_short(f"{name} = {value}"), style="dim"))
    facts.add_row(
        "Began", f"{when(row.created_at)}, {took(max(0.0, last - row.created_at))} in all"
    )
    if status == "running":
        facts.add_row("Held by", Text(in_short(row.holder)))
    if status == "stopped":
        facts.add_row("", f"nobody advances it; kapelle resume {in_short(row.thread)} does")
    yield facts


def _dearest(found: list[Share]) -> list[Share]:
    """Those that took most, and all others as one."""
    found = sorted(found, key=lambda share: -share.usage.tokens)
    if len(found) <= DEAREST + 1:
        return found
    rest = Share(f"{len(found) - DEAREST:,} others", "")
    for share in found[DEAREST:]:
        rest.tasks |= {f"{share.place}/{share.name}"}
        rest.tries, rest.failed = rest.tries + share.tries, rest.failed + share.failed
        rest.seconds += share.seconds
        rest.usage, rest.retries = rest.usage + share.usage, rest.retries + share.retries
        rest.waste += share.waste
    return [*found[:DEAREST], rest]


def _shares(found: Sequence[Share], title: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", show_footer=True
    )
    table.add_column(title, "in all")
    for name, total in _totals(found):
        table.add_column(name, total, justify="right")
    for share in found:
        name = f"{share.place}/{share.name}" if share.place else share.name
        failed = Text(f"{share.failed:,}" if share.failed else "", style="red")
        table.add_row(
            Text(in_short(name, 60)),
            f"{len(share.tasks):,}",
            f"{share.tries:,}",
            failed,
            f"{share.seconds:,.1f}",
            tokens(share.usage),
            tokens(share.retries),
            tokens(share.waste),
            cost(share.usage),
        )
    return table


def _totals(found: Sequence[Share]) -> list[tuple[str, str]]:
    usage = sum((share.usage for share in found), Usage())
    failed = sum(share.failed for share in found)
    return [
        ("Subtasks", f"{sum(len(share.tasks) for share in found):,}"),
        ("Tries", f"{sum(share.tries for share in found):,}"),
        ("Failed", f"{failed:,}" if failed else ""),
        ("Seconds", ""),
        ("Tokens", tokens(usage)),
        ("Retries", tokens(sum((share.retries for share in found), Usage()))),
        ("Waste", tokens(sum((share.waste for share in found), Usage()))),
        ("Cost", cost(usage)),
    ]


def _grouped(events: Iterable[Event]) -> Iterator[Text]:
    for (kind, what), run in groupby(events, key=lambda event: (event.kind, event.what)):
        alike = list(run)
        if (kind, what) == ("choice", "assigned"):
            yield _assigned(alike)
            continue
        shown = alike if len(alike) <= FIRST + 1 else alike[:FIRST]
        yield from (_line(event) for event in shown)
        if len(alike) > len(shown):
            yield Text(f"           … and {len(alike) - len(shown):,} more {what}", style="dim")


def _assigned(events: Sequence[Event]) -> Text:
    counts = Counter(event.agent for event in events)
    to = listed(f"{count:,} to {agent}" for agent, count in counts.most_common())
    reasons = listed(sorted({event.why for event in events if event.why}), most=2)
    first = events[0].model_copy(update={"task": "", "agent": "", "why": reasons, "what": ""})
    return _line(first, f"assigned {to}")


def _line(event: Event, what: str = "") -> Text:
    where = place_of(event)
    line = Text(f"{when(event.at):>8} {SIGNS[event.kind]} ")
    line.append(what or in_short(_what(event)), style="bold" if event.kind != "message" else "")
    if event.why:
        line.append(f"  {in_short(event.why)}")
    if where:
        line.append(f"  in {in_short(where, 60)}", style="dim")
    return line


def _what(event: Event) -> str:
    about = f" {event.task}" if event.task else ""
    if event.kind == "approval":
        return f"{event.agent} said {event.what} to “{event.data.get('question', '')}”"
    if event.kind == "message":
        return f"{event.agent} to {event.data.get('to', '')}: {event.what}{about}"
    if event.kind == "run":
        return f"the run is {event.what}"
    return f"{event.agent}: {event.what}{about}" if event.agent else f"{event.what}{about}"


def _heading(text: str) -> Text:
    return Text(f"\n{clean(text)}", style="bold underline")


def _lines(lines: Iterable[Text]) -> Text:
    return Text("\n").join(lines)
