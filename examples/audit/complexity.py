"""Complexity by lizard."""

from collections.abc import Iterator
from pathlib import Path

import lizard

from examples.audit.findings import Complexity, Finding, Level, excerpt
from examples.audit.modules import files_of, relative
from kapelle import Reply, Task, agent
from kapelle.state.context import Claim

COMPLEX, TANGLED = 15, 50
"""Cyclomatic complexity (McCabe, 1976) beyond which a function is hard, and hopeless, to test."""
LONG = 100
"""Lines of code beyond which a function is long; blank lines and comments do not count."""


@agent(skills=["audit.complexity"], output=Complexity, cpu=True)
def complexity(task: Task) -> Reply:
    """Measure each function of a module.

    Lizard reads tokens, not grammar, so now and then it miscounts: its claim of how many functions
    there are is a modest one.
    """
    path, module = Path(str(task.inputs["path"])), str(task.inputs["module"])
    functions = [f for file in files_of(path) for f in lizard.analyze_file(str(file)).function_list]
    output = Complexity.of(
        module,
        (finding for function in functions for finding in judged(function, path)),
        functions=len(functions),
        highest=max((f.cyclomatic_complexity for f in functions), default=0),
    )
    claim = Claim(
        key=f"{module}.functions",
        value=len(functions),
        confidence=0.7,
        evidence="lizard, by tokens",
    )
    return Reply(output=output, confidence=0.95, claims=(claim,))


def judged(function: lizard.FunctionInfo, path: Path) -> Iterator[Finding]:
    """What is wrong with a function: too many branches, too many lines, both."""
    branches, lines = function.cyclomatic_complexity, function.nloc
    about = {
        "confidence": "high",
        "file": relative(function.filename, path),
        "line": function.start_line,
        "evidence": excerpt(function.filename, function.start_line),
    }
    if branches > COMPLEX:
        message = f"{function.name} has cyclomatic complexity {branches}; {COMPLEX} is much."
        severity: Level = "medium" if branches > TANGLED else "low"
        yield Finding(rule="complex", severity=severity, message=message, **about)
    if lines > LONG:
        message = f"{function.name} has {lines} lines of code; {LONG} are many."
        yield Finding(rule="long", severity="low", message=message, **about)
