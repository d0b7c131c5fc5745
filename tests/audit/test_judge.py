"""The judge sends thin work back once, then shows a person what is severe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.audit.judge import judge
from examples.audit.report import Report, synthesize
from kapelle.state.task import Brief, Result, Task
from kapelle.state.verdict import Verdict

Work = Callable[..., dict[str, Result]]
ROOT = Task(id="team", goal="Audit")


def verdict_on(results: dict[str, Result]) -> Verdict:
    report = synthesize(ROOT, Brief(results=results))
    draft = Result(task=ROOT.id, status="done", output=report.model_dump(mode="json"))
    return judge(ROOT, Brief(results=results | {ROOT.id: draft}))


def test_a_first_look_at_too_little_is_sent_back_with_the_reason(work: Work, planted: Path) -> None:
    verdict = verdict_on(work(planted))
    assert verdict.decision == "revise"
    assert verdict.redo == {
        "large.security": "Only 0% sure: look at all of it, the large files as well."
    }


def test_what_was_seen_in_full_goes_to_a_person_as_one_ask(work: Work, planted: Path) -> None:
    verdict = verdict_on(work(planted, "All of it."))
    assert verdict.decision == "ask"
    assert verdict.escalation is not None
    assert verdict.escalation.question == "Publish this report with 3 severe findings?"
    assert verdict.escalation.offers == ("approve", "reject")
    shown: Any = verdict.escalation.evidence
    assert [e["where"] for e in shown] == ["large.py:2504", "risky/shell.py:8", "risky/weak.py:5"]
    assert all(e["code"] for e in shown)


def test_nobody_is_sent_back_twice(work: Work, planted: Path) -> None:
    results = work(planted)
    again = {name: r.model_copy(update={"revision": 2}) for name, r in results.items()}
    assert verdict_on(again).decision == "ask"


def test_with_nothing_severe_nobody_is_asked(work: Work, clean: Path) -> None:
    assert verdict_on(work(clean)).decision == "accept"


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_a_task_that_nobody_could_do_is_no_reason_to_send_it_back(
    work: Work,
    clean: Path,
    status: str,
) -> None:
    results = work(clean)
    draft = synthesize(ROOT, Brief(results=results))
    lost = Result.model_validate({"task": "calm.security", "status": status})
    made = Result(task=ROOT.id, status="partial", output=draft.model_dump(mode="json"))
    brief = Brief(results=results | {"calm.security": lost, ROOT.id: made})
    assert judge(ROOT, brief).decision == "accept"
    assert isinstance(draft, Report)
