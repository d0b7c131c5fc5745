"""Security by bandit, in two looks."""

import functools
import linecache
import logging
import warnings
from pathlib import Path

from bandit.core.config import BanditConfig
from bandit.core.issue import Issue
from bandit.core.manager import BanditManager

from examples.audit.findings import MUCH, Finding, Security
from examples.audit.modules import files_of, relative
from kapelle import Reply, Task, agent
from kapelle.state.task import Brief

LARGE = 2_500
"""Lines beyond which a file is left out of the first look."""


@agent(skills=["audit.security"], output=Security, cpu=True)
def security(task: Task, brief: Brief) -> Reply:
    """Scan a module: at first without its large files, in full once somebody asks for more.

    A large file costs as much as fifty small ones, so the first look leaves it out and says so: its
    confidence is the share of lines it saw. Whether that is enough is for the judge to say.
    """
    path = Path(str(task.inputs["path"]))
    lines = {file: count_lines(file) for file in files_of(path)}
    left_out = [file for file in lines if lines[file] > LARGE and not brief.feedback]
    found = scan([file for file in lines if file not in left_out], path)
    found += [_not_scanned(file, f"more than {LARGE:,} lines wait", path) for file in left_out]
    total = sum(lines.values())
    output = Security.of(str(task.inputs["module"]), found, files=len(lines), lines=total)
    seen = total - sum(lines[file] for file in left_out)
    return Reply(output=output, confidence=seen / total if total else 1.0)


def scan(files: list[Path], path: Path) -> list[Finding]:
    """What bandit says of these files; what it could not read is a finding too."""
    manager = BanditManager(_config(), "file")
    manager.files_list = [str(file) for file in files]
    linecache.clearcache()  # bandit quotes from it, whatever has become of the file since
    with warnings.catch_warnings(action="ignore"):
        manager.run_tests()
    issues = [_finding(issue, path) for issue in manager.get_issue_list()]
    return issues + [_not_scanned(file, why, path) for file, why in manager.get_skipped()]


def count_lines(file: Path) -> int:
    """Lines of a file; none if it can't be read, which bandit will say."""
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


@functools.cache
def _config() -> BanditConfig:
    """Bandit's defaults, once a process. What it would log are our findings already."""
    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    return BanditConfig()


def _finding(issue: Issue, path: Path) -> Finding:
    return Finding.model_validate(
        {
            "severity": issue.severity.lower(),
            "confidence": issue.confidence.lower(),
            "file": relative(issue.fname, path),
            "line": issue.lineno,
            "rule": issue.test_id,
            "message": issue.text,
            "evidence": issue.get_code(max_lines=3).rstrip()[:MUCH],
        }
    )


def _not_scanned(file: str | Path, why: str, path: Path) -> Finding:
    return Finding(
        severity="medium",
        confidence="high",
        file=relative(file, path),
        line=1,
        rule="not-scanned",
        message=f"Bandit has not scanned this file: {why}.",
    )
