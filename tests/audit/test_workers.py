"""The workers find what was planted, and nothing they meet stops them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.audit.findings import KEPT, Complexity, Documentation, Finding, Findings, Security
from examples.audit.summary import Summary
from kapelle.state.contradictions import contradictions
from kapelle.state.resolving import resolve
from kapelle.state.task import Result
from kapelle.state.terms import Terms

Worked = dict[str, Result]
Work = Callable[..., Worked]


@pytest.fixture
def worked(work: Work, planted: Path) -> Worked:
    """The first look at the planted code."""
    return work(planted)


def rules(result: Result) -> dict[str, Finding]:
    return {finding.rule: finding for finding in result.read(Findings).findings}


def test_security_finds_the_shell_and_the_weak_hash(worked: Worked) -> None:
    found = rules(worked["risky.security"])
    shell, weak = found["B605"], found["B324"]
    assert (shell.file, shell.line, shell.is_severe) == ("risky/shell.py", 8, True)
    assert "os.system(what)" in shell.evidence
    assert (weak.file, weak.line, weak.is_severe) == ("risky/weak.py", 5, True)


def test_a_first_look_leaves_large_files_out_and_is_less_sure(worked: Worked) -> None:
    first = worked["large.security"]
    assert first.confidence == 0
    assert "lines wait" in rules(first)["not-scanned"].message
    assert worked["risky.security"].confidence == 1


def test_a_second_look_sees_large_files_too(work: Work, planted: Path) -> None:
    second = work(planted, "Look at the large files as well.")["large.security"]
    assert second.confidence == 1
    assert set(rules(second)) == {"B605"}


def test_complexity_finds_the_tangled_and_long_function(worked: Worked) -> None:
    found = rules(worked["tangled.complexity"])
    assert found["complex"].message == "knot has cyclomatic complexity 61; 15 is much."
    assert found["complex"].severity == "medium"
    assert found["long"].evidence == "4 def knot(x):"
    assert worked["tangled.complexity"].read(Complexity).highest == 61


def test_documentation_finds_what_has_no_docstring(worked: Worked) -> None:
    found = rules(worked["bare.documentation"])
    assert found["undocumented"].message == "3 of 3 have no docstring: bare, Thing, act."
    page = worked["tangled.documentation"].read(Documentation)
    assert (page.public, page.documented) == (2, 2)


def test_a_file_that_is_no_python_is_a_finding_of_each_who_had_to_parse_it(worked: Worked) -> None:
    syntax = rules(worked["broken.documentation"])["syntax"]
    assert (syntax.file, syntax.line) == ("broken.py", 4)
    assert "def f(:" in syntax.evidence
    assert "syntax error" in rules(worked["broken.security"])["not-scanned"].message


@pytest.mark.parametrize(
    "source",
    [b"", b"\x00", b"\xff\xfe\x00", b"# coding: nonsense\n", b"x = " + b"(" * 5_000, b"'\\d'\n"],
    ids=["empty", "null", "bytes", "coding", "deep", "escape"],
)
def test_strange_files_stop_nobody(work: Work, tmp_path: Path, source: bytes) -> None:
    (tmp_path / "strange.py").write_bytes(source)
    worked = work(tmp_path)
    assert worked["strange.summary"].read(Summary).files == 1


def test_tools_that_count_differently_contradict_each_other_and_the_grammar_wins(
    worked: Worked,
) -> None:
    claims = [claim for result in worked.values() for claim in result.claims]
    (conflict,) = [c for c in contradictions(claims) if c.key == "short.functions"]
    assert sorted(str(claim.value) for claim in conflict.claims) == ["0", "2"]
    decision = resolve(conflict, Terms()).decision
    assert decision is not None
    assert (decision.value, decision.rule) == (2, "evidence")


def test_a_summary_adds_up_the_three_others(worked: Worked) -> None:
    summary = worked["risky.summary"].read(Summary)
    assert (summary.files, summary.high, summary.functions) == (3, 2, 1)
    assert summary.text.startswith("risky has 14 lines in 3 files, ")


def test_findings_beyond_a_limit_are_counted_the_worst_are_kept() -> None:
    many = [
        Finding(
            severity="high" if line == 70 else "low",
            confidence="high",
            file="a.py",
            line=line,
            rule="x",
            message="",
        )
        for line in range(80)
    ]
    found = Security.of("a", many, files=1, lines=80)
    assert (len(found.findings), found.findings[0].line) == (KEPT, 70)
    assert found.counts == {"high": 1, "low": 79}


def test_a_result_is_a_few_kilobytes(worked: Worked) -> None:
    assert max(len(result.model_dump_json()) for result in worked.values()) < 4_000
