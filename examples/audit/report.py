"""The synthesizer: one report from what all workers handed in."""

from collections.abc import Mapping

from pydantic import BaseModel, JsonValue

from examples.audit.findings import LEVELS, Finding, Findings, Level, ranked
from examples.audit.modules import root_of
from examples.audit.summary import Summary
from kapelle import Task, agent
from kapelle.state.task import Brief

SHOWN = 100
"""Findings that a report shows; severe ones are always shown."""


class Report(BaseModel, frozen=True):
    """All findings, the worst in full."""

    about: str
    """The folder that was audited."""
    findings: tuple[Finding, ...]
    counts: dict[Level, int]
    """How many there are in all, by severity."""
    modules: tuple[Summary, ...]
    """Those with the worst findings first."""

    @property
    def severe(self) -> list[Finding]:
        """What a person has to see before this is published."""
        return [finding for finding in self.findings if finding.is_severe]


@agent(output=Report)
def synthesize(task: Task, brief: Brief) -> Report:
    """Rank the findings and the modules. Where two tools differed, what the run decided counts."""
    summaries = {t: r.read(Summary) for t, r in brief.results.items() if t.endswith(".summary")}
    found = [r.read(Findings) for t, r in brief.results.items() if t not in summaries]
    worst_first = ranked(finding for part in found for finding in part.findings)
    severe = sum(finding.is_severe for finding in worst_first)
    decided = {decision.key: decision.value for decision in brief.context.decisions}
    modules = [_decided(summary, decided) for summary in summaries.values()]
    return Report(
        about=str(root_of(task)),
        findings=tuple(worst_first[: max(SHOWN, severe)]),
        counts={level: sum(part.counts.get(level, 0) for part in found) for level in LEVELS},
        modules=tuple(sorted(modules, key=lambda m: (-m.high, -m.medium, -m.low, m.module))),
    )


def _decided(summary: Summary, decided: Mapping[str, JsonValue]) -> Summary:
    functions = decided.get(f"{summary.module}.functions", summary.functions)
    return summary.model_copy(update={"functions": functions})
