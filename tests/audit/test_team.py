"""The whole team on a small body of code: real tools, worker processes, a person's answer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from examples.audit.team import audit
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval
from kapelle.state.task import Result, Task

pytestmark = pytest.mark.slow


class Run:
    """The team at work on one folder, everything kept in memory."""

    def __init__(self, path: Path, report: Path) -> None:
        self.graph = audit.compile(checkpointer=InMemorySaver())
        self.services: Services = in_memory()
        self.task = Task(goal="Audit", inputs={"path": str(path), "report": str(report)})

    def go(self, given: object = None) -> dict[str, Any]:
        """Start, or go on with what is given."""
        config = {"configurable": {"thread_id": "t1"}}
        return self.graph.invoke(given or {"task": self.task}, config, context=self.services)

    def answer(self, stopped: dict[str, Any], answer: Approval) -> Result:
        """Answer the one ask there is."""
        (ask,) = stopped["__interrupt__"]
        final = self.go(Command(resume={ask.id: answer.model_dump()}))
        return final["result"]

    def tried(self) -> dict[str, int]:
        """How many tries each agent made."""
        events = asyncio.run(self.services.journal.read("t1"))
        tries = [event.agent for event in events if event.kind == "attempt"]
        return {agent: tries.count(agent) for agent in tries}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.md"


def test_after_one_approval_the_report_is_there(planted: Path, report: Path) -> None:
    run = Run(planted, report)
    stopped = run.go()
    (ask,) = stopped["__interrupt__"]
    assert ask.value.question == "Publish this report with 3 severe findings?"
    assert not report.exists()

    result = run.answer(stopped, Approval(decision="approve", by="ann", reason="known"))
    assert (result.status, result.failure) == ("done", None)
    assert result.output == {
        "report": str(report),
        "findings": 9,
        "severe": 3,
        "approved_by": ["ann"],
    }
    text = report.read_text()
    assert "- ann: **approve**" in text
    assert "large.py:2504" in text, "the second look is in it"
    assert "| short.functions |" in text


def test_only_what_was_thin_is_done_again_and_nothing_after_the_ask(
    planted: Path, report: Path
) -> None:
    run = Run(planted, report)
    stopped = run.go()
    before = run.tried()
    assert before == {
        "plan": 1,
        "security": 7,
        "complexity": 6,
        "documentation": 6,
        "summary": 7,
        "synthesize": 2,
        "judge": 2,
    }
    run.answer(stopped, Approval(decision="approve", by="ann"))
    after = run.tried()
    assert {agent: after[agent] for agent in before} == before
    assert after["publish"] == 1


def test_a_rejected_report_is_not_published(planted: Path, report: Path) -> None:
    run = Run(planted, report)
    result = run.answer(run.go(), Approval(decision="reject", by="ann", reason="not yet"))
    assert result.status == "refused"
    assert result.failure is not None
    assert "ann" in result.failure.message
    assert "not yet" in result.failure.message
    assert not report.exists()


def test_with_nothing_severe_it_is_published_at_once(clean: Path, report: Path) -> None:
    final = Run(clean, report).go()
    assert "__interrupt__" not in final
    assert final["result"].output["approved_by"] == []
    assert "Nobody was asked." in report.read_text()


def test_a_path_that_is_missing_ends_in_a_failure_that_says_so(
    tmp_path: Path, report: Path
) -> None:
    final = Run(tmp_path / "nowhere", report).go()
    assert final["result"].status == "failed"
    assert "There is nothing at" in final["result"].failure.message
    assert not report.exists()
