"""What a terminal shows: asks, runs, results. What agents said is cleaned before it is shown."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from pydantic import JsonValue
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kapelle.checkpoints.doctor import Finding
from kapelle.checkpoints.holder import has_died
from kapelle.checkpoints.runbook import RunRow
from kapelle.checkpoints.stats import Stats
from kapelle.execution import Run
from kapelle.state.approval import Ask
from kapelle.state.budget import Usage
from kapelle.state.context import Contradiction
from kapelle.state.estimate import Estimate, Forecast
from kapelle.state.task import Result

EVIDENCE_LINES = 40
OUTPUT_LINES = 20
MISSING = 8
"""Missing parts that are named, and said why."""
NOTHING: tuple[JsonValue, ...] = (None, "", [], {})
TOGETHER = 110
"""Characters of a line that several short facts may share."""
LINE = 160
"""Characters of a line of evidence or output; more is cut."""

STYLES = {
    "done": "green",
    "partial": "yellow",
    "waiting": "bold yellow",
    "running": "cyan",
    "stopped": "magenta",
    "failed": "bold red",
    "refused": "red",
}
"""How a status looks."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: object) -> str:
    """Text that can't steer the terminal: no control characters, no change of direction."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n").expandtabs(4))


def in_short(text: object, most: int = LINE) -> str:
    """Text on one line, cut if it is long."""
    line = " ".join(clean(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def when(at: float | None) -> str:
    """A time as people here write it; the day only if it is another one."""
    if not at:
        return ""
    moment = datetime.fromtimestamp(at).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M}"


def took(seconds: float) -> str:
    """A duration, about as exact as anyone wants it.

    >>> took(0.25), took(7.04), took(75), took(7500)
    ('0.25 s', '7.0 s', '1 min 15 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cost(usage: Usage) -> str:
    """Money; a question mark if a price is not known, nothing if there is none.

    >>> cost(Usage(micro_usd=12_300)), cost(Usage(micro_usd=None)), cost(Usage())
    ('$0.0123', '?', '')
    """
    if usage.micro_usd is None:
        return "?"
    return f"${usage.micro_usd / 1_000_000:.4f}" if usage.micro_usd else ""


def tokens(usage: Usage) -> str:
    """Tokens in and out, nothing if there are none."""
    return f"{usage.tokens:,}" if usage.tokens else ""


def lines_of(value: JsonValue) -> Iterator[Text]:
    """A value, readable: one line a fact, indented by depth."""
    if isinstance(value, dict):
        short = {key: _plain(inner) for key, inner in value.items() if _is_short(inner)}
        yield from _facts(short)
        for key in (key for key in value if key not in short):
            yield Text(f"{in_short(key, 60)}:", style="cyan")
            yield from (Text("  ").append_text(line) for line in lines_of(value[key]))
    elif isinstance(value, list):
        width = len(str(len(value)))
        for number, inner in enumerate(value, 1):
            yield from _item(f"{number:>{width}}. ", inner)
    else:
        for line in _plain(value).splitlines() or [""]:
            yield Text(line if len(line) <= LINE else f"{line[: LINE - 1]}…")


def bounded(value: JsonValue, most: int, hint: str = "") -> Iterator[Text]:
    """A value in at most so many lines, indented, and how many there are beyond them."""
    lines = list(lines_of(value))
    rest = len(lines) - most
    shown = lines[:most] if rest > 1 else lines
    yield from (Text("  ").append_text(line) for line in shown)
    if rest > 1:
        yield Text(f"  … {rest:,} more lines{hint}", style="dim")


def shown_ask(ask: Ask, *, most: int = EVIDENCE_LINES, hint: str = "") -> RenderableType:
    """One ask: what is to be decided, why, and what speaks for it."""
    parts = [Text.assemble(("? ", "bold yellow"), (in_short(ask.question, 400), "bold"))]
    if ask.reason:
        parts += bounded(ask.reason, EVIDENCE_LINES)
    if ask.evidence not in NOTHING:
        parts += [Text(), *bounded(ask.evidence, most, hint), Text()]
    asker = f" by {in_short(ask.by, 60)}" if ask.by else ""
    about = f" about {in_short(ask.task, 60)}" if ask.task else ""
    said = f"  ask {ask.id}{asker}{about}, {when(ask.asked_at)}, in run {in_short(ask.thread)}"
    return Group(*parts, Text(said, style="dim"))


def shown_inbox(asks: Sequence[Ask]) -> RenderableType:
    """All open asks in a table."""
    if not asks:
        return Text("Nobody is asked anything.", style="dim")
    table = columns("Ask", "Asked", "Run", "By", "Question", "Answers")
    for ask in asks:
        table.add_row(
            Text(ask.id, style="bold"),
            when(ask.asked_at),
            Text(in_short(ask.thread)),
            Text(in_short(ask.by, 30)),
            Text(in_short(ask.question)),
            " ".join(ask.offers),
        )
    return table


def shown_runs(rows: Sequence[RunRow]) -> RenderableType:
    """Runs in a table."""
    if not rows:
        return Text("There are no runs yet.", style="dim")
    table = columns("Run", "Graph", "Status", "Began", "Took", "Task")
    for row in rows:
        status = standing(row)
        end = row.finished_at or (time.time() if status == "running" else row.updated_at)
        table.add_row(
            Text(in_short(row.thread), style="bold"),
            Text(in_short(row.graph, 40)),
            Text(status, style=STYLES[status]),
            when(row.created_at),
            took(max(0.0, end - row.created_at)),
            Text(in_short(row.task.goal, 60)),
        )
    return table


def shown_stats(stats: Stats) -> RenderableType:
    """Where the bytes are: by table, then the largest threads."""
    tables = columns("Table", "Rows", "Bytes")
    for table, rows in stats.rows.items():
        tables.add_row(Text(table), f"{rows:,}", f"{stats.bytes[table]:,}")
    threads = columns("Thread", "Bytes")
    for thread, size in stats.threads.items():
        threads.add_row(Text(in_short(thread), style="bold"), f"{size:,}")
    return Group(tables, Text(), threads) if stats.threads else tables


def shown_findings(findings: Sequence[Finding]) -> Iterator[Text]:
    """What the doctor looked at; what is unsafe, with the mend."""
    for finding in findings:
        mark, style = ("ok", "green") if finding.safe else ("unsafe", "bold red")
        found = in_short(finding.found, 400)
        yield Text.assemble((f"{mark:6}", style), "  ", (finding.what, "bold"), f"  {found}")
        if not finding.safe:
            yield Text(f"        {in_short(finding.mend, 400)}")


def standing(row: RunRow) -> str:
    """How a run stands: a `running` one that nobody advances has stopped."""
    if row.status != "running":
        return row.status
    held = row.lease_until and row.lease_until > time.time() and not has_died(row.holder)
    return "running" if held else "stopped"


def shown_run(run: Run) -> RenderableType:
    """How a run stands, and what left it."""
    head = Text.assemble((run.status, STYLES[run.status]), "  ", (in_short(run.thread), "bold"))
    if run.usage.tokens:
        head.append(f"  {tokens(run.usage)} tokens {cost(run.usage)}", style="dim")
    return Group(head, *(_result(run.result) if run.result else ()))


def _result(result: Result) -> Iterator[Text]:
    if result.failure:
        yield Text(f"  {in_short(result.failure.message, 400)}", style="red")
    if result.missing:
        yield Text(f"  missing: {listed(result.missing)}", style="yellow")
        yield from _reasons(result)
    yield from _contradictions(result.contradictions)
    if result.output not in NOTHING:
        yield from bounded(result.output, OUTPUT_LINES)


def _contradictions(found: Sequence[Contradiction]) -> Iterator[Text]:
    """What could not all hold: what holds, what fell, and which work still rests on that."""
    if not found:
        return
    pending = sum(one.rule is None for one in found)
    state = f"{pending} open" if pending else "settled"
    many = "1 contradiction" if len(found) == 1 else f"{len(found)} contradictions"
    yield Text(f"  {many}, {state}", style="yellow" if pending else "dim")
    for one in sorted(found, key=lambda c: (c.rule is not None, not c.flagged))[:MISSING]:
        yield Text(f"    {in_short(_settled(one), 400)}")
        if one.flagged:
            rests = f"      rests on what fell, not done again: {listed(one.flagged)}"
            yield Text(rests, style="yellow")


def _settled(one: Contradiction) -> str:
    """A contradiction in a line."""
    if one.rule is None:
        return one.why if one.kind == "omission" else f"{one.key}: {one.why}; open"
    who = one.decision.who if one.decision else ""
    held = f" = {json.dumps(one.decision.value)}" if one.decision else ""
    fell = ", ".join(dict.fromkeys(f"{json.dumps(c.value)} ({c.by})" for c in one.losing))
    by = f"{one.rule}, {who}" if who else one.rule
    return f"{one.key}{held} (by {by})" + (f"; not {fell}" if fell else "")


def _reasons(result: Result) -> Iterator[Text]:
    """Why the first of what is missing is, as far as that is known and was not said yet."""
    for name, part in islice(result.parts.items(), MISSING):
        if part.failure is not None and part.failure != result.failure:
            yield Text(f"    {in_short(name, 60)}: {in_short(part.failure.message, 400)}")


def listed(names: Iterable[str], most: int = MISSING) -> str:
    """Names, the first of them if there are many.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = [in_short(name, 60) for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _facts(facts: Mapping[str, str]) -> Iterator[Text]:
    """Short values with their keys: on one line together if they fit, else each on its own."""
    entries = [Text.assemble((f"{in_short(k, 60)}: ", "cyan"), v) for k, v in facts.items()]
    if sum(len(entry) + 3 for entry in entries) > TOGETHER:
        yield from entries
    elif entries:
        yield Text(" · ").join(entries)


def _is_short(value: JsonValue) -> bool:
    return (
        not isinstance(value, dict | list)
        and len(text := _plain(value)) <= LINE
        and ("\n" not in text)
    )


def _item(label: str, value: JsonValue) -> Iterator[Text]:
    for number, line in enumerate(lines_of(value)):
        yield Text.assemble(label if number == 0 else " " * len(label), line)


def _plain(value: JsonValue) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return clean(value)


def columns(*head: str) -> Table:
    """A table with these columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    return table


def shown_estimate(found: Estimate) -> RenderableType:
    """What a run will use: least, expected, most, by role and in all, beside one agent alone."""
    table = Table("", "calls", "messages", "tokens", "cost", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, role in found.roles.items():
        table.add_row(in_short(name, 30), *_spans(role))
    table.add_section()
    table.add_row(f"all, {found.items} items", *_spans(found.team), style="bold")
    table.add_row("one agent alone", *_spans(found.alone), style="dim")
    how = "least – expected – most; most is with every retry and round, unless the budget ends it"
    times = f"{found.coordination:.1f} times the tokens of one agent alone. "
    return Group(table, Text(f"  {times if found.coordination else ''}{how}", style="dim"))


def _spans(forecast: Forecast) -> Iterator[str]:
    volumes = (forecast.least, forecast.expected, forecast.most)
    yield _span(str(v.usage.calls) for v in volumes)
    yield _span(str(v.messages) for v in volumes)
    yield _span(str(v.usage.tokens) for v in volumes)
    yield _span(cost(v.usage) for v in volumes)


def _span(figures: Iterable[str]) -> str:
    return " – ".join(dict.fromkeys(figures))
