"""The judge: has thin work done again, once; turns to a person with what is severe.

In the standard library of Python 3.11 it sends 18 of 804 results back, all of them first looks at
modules with a file of more than 2,500 lines; the second look finds 12 of the 34 severe findings.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from examples.audit.findings import Finding
from examples.audit.report import Report
from kapelle import Escalation, Task, Verdict, agent
from kapelle.state.task import Brief, Result

ENOUGH = 0.9
"""Confidence below which work is sent back: here, a tenth of a module's lines not looked at."""


@agent(output=Verdict)
def judge(task: Task, brief: Brief) -> Verdict:
    """Accept a report that is founded on enough and holds nothing severe."""
    if weak := sent_back(brief.results):
        return Verdict(
            decision="revise", redo=weak, reason=f"{len(weak)} results rest on too little."
        )
    severe = brief.results[task.id].read(Report).severe
    if not severe:
        return Verdict(decision="accept", reason="Nothing severe was found.")
    return Verdict(
        decision="ask", reason=f"{len(severe)} findings are severe.", escalation=_ask(severe)
    )


def sent_back(results: Mapping[str, Result]) -> dict[str, str]:
    """The tasks to do again, each with the reason. Nobody is sent back twice for the same."""
    return {
        name: f"Only {result.confidence:.0%} sure: look at all of it, the large files as well."
        for name, result in results.items()
        if result.confidence is not None and result.confidence < ENOUGH and result.revision == 1
    }


def _ask(severe: list[Finding]) -> Escalation:
    findings = f"{len(severe)} severe findings" if len(severe) > 1 else "one severe finding"
    return Escalation(
        question=f"Publish this report with {findings}?",
        reason="A tool is sure of a danger; whether it is one here, only a person can say.",
        evidence=[_shown(finding) for finding in severe],
        offers=("approve", "reject"),
    )


def _shown(finding: Finding) -> JsonValue:
    return {
        "where": f"{finding.file}:{finding.line}",
        "rule": finding.rule,
        "what": finding.message,
        "code": finding.evidence,
    }
