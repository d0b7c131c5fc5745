"""What the workers hand in: findings with their evidence, and what each measured."""

import linecache
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel

Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")

KEPT = 50
"""Findings of one worker in one module that are kept in full; the rest is counted."""
MUCH = 400
"""Characters of evidence."""


class Finding(BaseModel, frozen=True):
    """One thing that is not as it should be."""

    severity: Level
    """How bad it is if it is true."""
    confidence: Level
    """How sure the tool is that it is true."""
    file: str
    line: int
    rule: str
    """The tool's name for it, like `B602`."""
    message: str
    evidence: str = ""
    """The source, so that nobody has to look it up."""

    @property
    def is_severe(self) -> bool:
        """Bad and sure: what a person has to see."""
        return self.severity == self.confidence == "high"


class Findings(BaseModel, frozen=True):
    """What one worker found in one module."""

    module: str
    findings: tuple[Finding, ...]
    """The worst, at most `KEPT`."""
    counts: dict[Level, int]
    """How many there were in all, by severity."""

    @classmethod
    def of(cls, module: str, found: Iterable[Finding], **measured: object) -> Self:
        """Findings of any number, the worst kept."""
        worst_first = ranked(found)
        counts = Counter(finding.severity for finding in worst_first)
        return cls.model_validate(
            {"module": module, "findings": worst_first[:KEPT], "counts": counts, **measured}
        )


class Security(Findings, frozen=True):
    """What bandit found."""

    files: int
    lines: int


class Complexity(Findings, frozen=True):
    """What lizard found."""

    functions: int
    highest: int
    """Cyclomatic complexity of the most complex function."""


class Documentation(Findings, frozen=True):
    """What the `ast` shows of docstrings."""

    public: int
    """Modules, classes and functions that others may use."""
    documented: int
    """How many of these have a docstring."""


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first: by severity, then confidence, then place."""
    return sorted(
        findings,
        key=lambda f: (
            -LEVELS.index(f.severity),
            -LEVELS.index(f.confidence),
            f.file,
            f.line,
            f.rule,
        ),
    )


def excerpt(file: str | Path, line: int) -> str:
    """A line of source as evidence, with its number in front."""
    linecache.checkcache(str(file))
    source = linecache.getline(str(file), line).rstrip()[:MUCH]
    return f"{line} {source}" if source else ""
