"""The report as a page of Markdown."""

import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from examples.audit.findings import LEVELS, Finding
from examples.audit.report import Report
from examples.audit.summary import Summary
from kapelle.state.context import Contradiction
from kapelle.state.event import Event


class Page(NamedTuple):
    """What the page is made from."""

    run: str
    """The run's id: LangGraph's thread."""
    report: Report
    contradictions: Sequence[Contradiction]
    missing: Sequence[str]
    """Tasks that nobody could do."""
    events: Sequence[Event]
    """What the run's journal holds."""


def markdown(page: Page) -> str:
    """The whole page, what matters most at the top."""
    severe = page.report.severe
    others = [finding for finding in page.report.findings if not finding.is_severe]
    parts = [
        f"# Audit of {page.report.about}",
        _facts(page),
        f"## Severe findings ({len(severe)})",
        _findings(severe, first=1) or "None.",
        "## Other findings",
        _findings(others, first=len(severe) + 1),
        _rest(page.report),
        "## Who decided what",
        _approvals(page.events),
        "## Contradictions",
        _contradictions(page.contradictions),
        "## What each agent did",
        _shares(page.events),
        *(["## Not done", "\n".join(f"- {task}" for task in page.missing)] if page.missing else []),
        "## Modules",
        _modules(page.report.modules),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def approvals(events: Iterable[Event]) -> list[Event]:
    """The answers people gave."""
    return [event for event in events if event.kind == "approval"]


def _facts(page: Page) -> str:
    modules, counts = page.report.modules, page.report.counts
    files, lines = sum(m.files for m in modules), sum(m.lines for m in modules)
    levels = ", ".join(f"{counts.get(level, 0):,} {level}" for level in reversed(LEVELS))
    times = [event.at for event in page.events]
    took = f"from {_time(min(times))} to {_time(max(times))}" if times else "unknown"
    return "\n".join(
        [
            f"- **When:** {took}",
            f"- **Run:** `{page.run}`; `kapelle show {page.run}` tells the whole story",
            f"- **Read:** {len(modules)} modules, {files:,} files, {lines:,} lines",
            f"- **Found:** {sum(counts.values()):,} findings, by severity: {levels}",
        ]
    )


def _findings(findings: Iterable[Finding], *, first: int) -> str:
    return "\n".join(_finding(number, finding) for number, finding in enumerate(findings, first))


def _finding(number: int, finding: Finding) -> str:
    fence = f"```text\n{finding.evidence.replace('```', '` ` `')}\n```"
    return (
        f"{number}. `{finding.file}:{finding.line}` · {finding.severity} severity, "
        f"{finding.confidence} confidence · {finding.rule}  \n    {finding.message}\n"
        + (f"\n{textwrap.indent(fence, '    ')}\n" if finding.evidence else "")
    )


def _rest(report: Report) -> str:
    rest = sum(report.counts.values()) - len(report.findings)
    return f"And {rest:,} more, none of them worse; the modules below count them." if rest else ""


def _approvals(events: Iterable[Event]) -> str:
    said = [
        f"- {event.agent}: **{event.what}**, {_time(event.at)}, to “{event.data.get('question')}”"
        + (f": {event.why}" if event.why else "")
        for event in approvals(events)
    ]
    return "\n".join(said) or "Nobody was asked."


def _contradictions(found: Iterable[Contradiction]) -> str:
    rows = [
        [
            conflict.key,
            "; ".join(f"{c.by}: {c.value} ({c.confidence:.0%} sure)" for c in conflict.claims),
            f"{conflict.decision.value}, by {conflict.decision.rule}"
            if conflict.decision
            else "nothing",
        ]
        for conflict in found
    ]
    return _table(["About", "Said", "Decided"], rows) if rows else "None."


def _shares(events: Iterable[Event]) -> str:
    by_agent: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "attempt":
            by_agent.setdefault(event.agent, []).append(event)
    head = ["Agent", "Tasks", "Tries", "Failed tries", "Seconds"]
    return _table(head, [_share(name, tries) for name, tries in sorted(by_agent.items())])


def _share(agent: str, tries: list[Event]) -> list[object]:
    failed = sum(event.what != "done" for event in tries)
    seconds = sum(float(str(event.data.get("seconds", 0))) for event in tries)
    return [agent, len({event.task for event in tries}), len(tries), failed, f"{seconds:.1f}"]


def _modules(modules: Iterable[Summary]) -> str:
    head = [
        "Module",
        "Files",
        "Lines",
        "High",
        "Medium",
        "Low",
        "Functions",
        "Complex",
        "Explained",
    ]
    rows = [
        [m.module, m.files, m.lines, m.high, m.medium, m.low, m.functions, m.highest, _explained(m)]
        for m in modules
    ]
    return _table(head, rows)


def _explained(summary: Summary) -> str:
    return f"{summary.documented / summary.public:.0%}" if summary.public else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S %Z}"
