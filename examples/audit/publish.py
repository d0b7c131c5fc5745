"""The publisher: leaves the approved report as a file."""

import os
from pathlib import Path

import anyio.to_thread
from langgraph.runtime import get_runtime
from pydantic import BaseModel

from examples.audit.page import Page, approvals, markdown
from examples.audit.report import Report
from kapelle import Task, agent
from kapelle.nodes.here import here
from kapelle.nodes.services import Services
from kapelle.state.task import Brief


class Published(BaseModel, frozen=True):
    """What is left of the run."""

    report: str
    """The file."""
    findings: int
    severe: int
    approved_by: tuple[str, ...]


@agent(output=Published)
async def publish(task: Task, brief: Brief) -> Published:
    """Write the team's report to `inputs["report"]`, by default `report.md`.

    Who did what, and who approved it, is what the run's journal says.
    """
    place = here(get_runtime(Services))
    events = await place.services.journal.read(place.thread)
    team = brief.results["team"]
    report = team.read(Report)
    page = Page(
        run=str(task.inputs.get("thread") or place.thread),
        report=report,
        contradictions=team.contradictions,
        missing=team.missing,
        events=events,
    )
    name = str(task.inputs.get("report") or "report.md")
    return Published(
        report=await anyio.to_thread.run_sync(write, name, markdown(page)),
        findings=sum(report.counts.values()),
        severe=len(report.severe),
        approved_by=tuple(event.agent for event in approvals(events)),
    )


def write(name: str, text: str) -> str:
    """Write a file whole or not at all, so that nobody ever reads half of it; its full path."""
    file = Path(name).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return str(file)
