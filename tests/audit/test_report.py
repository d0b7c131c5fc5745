"""The report ranks, decides and tells; the page says it to a person."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from examples.audit.findings import ranked
from examples.audit.page import Page, markdown
from examples.audit.publish import write
from examples.audit.report import Report, synthesize
from kapelle.state.context import Contradiction, MasterContext
from kapelle.state.contradictions import contradictions
from kapelle.state.event import Event
from kapelle.state.resolving import decisions, resolve
from kapelle.state.review import claims_of
from kapelle.state.task import Brief, Result, Task
from kapelle.state.terms import Terms

Work = Callable[..., dict[str, Result]]

APPROVED = Event(
    kind="approval",
    what="approve",
    agent="ann",
    at=1_700_000_000,
    why="known",
    data={"question": "Publish?"},
)


@pytest.fixture
def results(work: Work, planted: Path) -> dict[str, Result]:
    return work(planted, "All of it.")


@pytest.fixture
def report(results: dict[str, Result], planted: Path) -> Report:
    context = MasterContext(decisions=decisions(resolved(results)))
    task = Task(goal="Audit", inputs={"path": str(planted)})
    return synthesize(task, Brief(results=results, context=context))


def page(
    report: Report,
    results: dict[str, Result],
    events: Sequence[Event] = (APPROVED,),
    missing: Sequence[str] = (),
) -> str:
    return markdown(Page("t1", report, resolved(results), missing, events))


def resolved(results: dict[str, Result]) -> tuple[Contradiction, ...]:
    return tuple(resolve(c, Terms()) for c in contradictions(claims_of(results)))


def test_the_worst_findings_come_first(report: Report) -> None:
    assert list(report.findings) == ranked(report.findings)
    assert [f.rule for f in report.severe] == ["B605", "B605", "B324"]
    assert report.counts["high"] == 3


def test_the_module_with_the_worst_findings_comes_first(report: Report) -> None:
    assert [module.module for module in report.modules][:2] == ["risky", "large"]


def test_what_the_run_decided_counts(report: Report) -> None:
    (short,) = [module for module in report.modules if module.module == "short"]
    assert short.functions == 2


def test_the_report_is_the_same_for_every_order_of_results(
    report: Report, results: dict[str, Result], planted: Path
) -> None:
    turned = dict(reversed(results.items()))
    task = Task(goal="Audit", inputs={"path": str(planted)})
    assert synthesize(task, Brief(results=turned)).findings == report.findings


def test_the_page_tells_what_was_found_where_and_what_it_looks_like(
    report: Report, results: dict[str, Result]
) -> None:
    text = page(report, results)
    assert text.startswith(f"# Audit of {report.about}\n")
    assert "**Run:** `t1`" in text
    assert "## Severe findings (3)" in text
    assert "2. `risky/shell.py:8` · high severity, high confidence · B605" in text
    assert "    8     os.system(what)" in text


def test_the_page_tells_who_approved(report: Report, results: dict[str, Result]) -> None:
    assert "- ann: **approve**, 2023-11-" in page(report, results)
    assert "to “Publish?”: known" in page(report, results)
    assert "Nobody was asked." in page(report, results, events=[])


def test_the_page_tells_what_each_agent_did(report: Report, results: dict[str, Result]) -> None:
    tries = [
        Event(kind="attempt", what=what, task=task, agent="security", data={"seconds": 1.25})
        for what, task in [("timeout", "a"), ("done", "a"), ("done", "b")]
    ]
    assert "| security | 2 | 3 | 1 | 3.8 |" in page(report, results, events=tries)


def test_the_page_tells_how_contradictions_were_resolved(
    report: Report, results: dict[str, Result]
) -> None:
    row = "| short.functions | documentation: 2 (100% sure); complexity: 0 (70% sure) |"
    assert f"{row} 2, by evidence |" in page(report, results)


def test_the_page_tells_what_is_missing(report: Report, results: dict[str, Result]) -> None:
    assert "## Not done\n\n- a.security" in page(report, results, missing=["a.security"])
    assert "## Not done" not in page(report, results)


def test_the_page_counts_what_it_does_not_show(report: Report, results: dict[str, Result]) -> None:
    more = report.model_copy(update={"counts": {"high": 3, "medium": 2, "low": 5_000}})
    assert "And 4,9" in page(more, results)


def test_code_can_not_break_out_of_its_box(report: Report, results: dict[str, Result]) -> None:
    sly = report.findings[0].model_copy(update={"evidence": "1 x = '''```\n# Not a title\n```'''"})
    text = page(report.model_copy(update={"findings": (sly,)}), results)
    assert text.count("```") == 2


def test_a_file_is_written_whole_with_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "out" / "report.md"
    assert write(str(file), "old") == str(file)
    write(str(file), "new")
    assert file.read_text() == "new"
    assert [f.name for f in file.parent.iterdir()] == ["report.md"]


def test_a_file_that_can_not_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(OSError, match=r"report\.md"):
        write(str(tmp_path / "report.md"), "text")
    assert [f.name for f in tmp_path.iterdir()] == ["report.md"]
