"""The sum of what the three others found in a module."""

from pydantic import BaseModel

from examples.audit.findings import Complexity, Documentation, Findings, Security
from kapelle import Task, agent
from kapelle.state.task import Brief


class Summary(BaseModel, frozen=True):
    """A module in one line."""

    module: str
    files: int
    lines: int
    high: int
    """Findings of high severity, of all concerns; `medium` and `low` likewise."""
    medium: int
    low: int
    functions: int
    highest: int
    """Cyclomatic complexity of the most complex function."""
    public: int
    documented: int
    text: str


@agent(skills=["audit.summary"], output=Summary)
def summary(task: Task, brief: Brief) -> Summary:
    """Add up what a module's security, complexity and documentation tasks handed in."""
    module = str(task.inputs["module"])
    security = brief.results[f"{module}.security"].read(Security)
    complexity = brief.results[f"{module}.complexity"].read(Complexity)
    documentation = brief.results[f"{module}.documentation"].read(Documentation)
    high, medium, low = _counted(security, complexity, documentation)
    return Summary(
        module=module,
        files=security.files,
        lines=security.lines,
        high=high,
        medium=medium,
        low=low,
        functions=complexity.functions,
        highest=complexity.highest,
        public=documentation.public,
        documented=documentation.documented,
        text=f"{module} has {security.lines:,} lines in {security.files} files, "
        f"{sum(security.counts.values())} doubts about its security, "
        f"functions of a complexity up to {complexity.highest}, "
        f"and explains {documentation.documented} of {documentation.public} public names.",
    )


def _counted(*concerns: Findings) -> tuple[int, int, int]:
    high, medium, low = (
        sum(found.counts.get(level, 0) for found in concerns) for level in ("high", "medium", "low")
    )
    return high, medium, low
