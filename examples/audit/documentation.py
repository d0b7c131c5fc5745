"""Documentation by the syntax tree: who has a docstring, and who should."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from examples.audit.findings import Documentation, Finding, excerpt
from examples.audit.modules import files_of, relative
from kapelle import Reply, Task, agent
from kapelle.state.context import Claim

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


class Page(NamedTuple):
    """What one file shows."""

    functions: int
    public: int
    missing: list[tuple[str, int]]
    """Name and line of what is public and has no docstring."""


@agent(skills=["audit.documentation"], output=Documentation, cpu=True)
def documentation(task: Task) -> Reply:
    """Count docstrings, and functions: of these the grammar is sure where it can read all files."""
    path, module = Path(str(task.inputs["path"])), str(task.inputs["module"])
    pages: list[Page] = []
    findings: list[Finding] = []
    for file in files_of(path):
        try:
            page = read(file)
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            findings.append(unreadable(error, file, path))
        else:
            pages.append(page)
            findings += undocumented(page, file, path)
    public, missing = sum(p.public for p in pages), sum(len(p.missing) for p in pages)
    output = Documentation.of(module, findings, public=public, documented=public - missing)
    claim = Claim(
        key=f"{module}.functions",
        value=sum(p.functions for p in pages),
        confidence=1.0 if len(pages) == len(files_of(path)) else 0.5,
        evidence="ast, by grammar",
    )
    return Reply(output=output, confidence=1.0, claims=(claim,))


def read(file: Path) -> Page:
    """Parse a file; raises what the parser raises."""
    with warnings.catch_warnings(action="ignore"):
        tree = ast.parse(file.read_bytes(), filename=str(file))
    public = list(public_in(tree, file.stem))
    return Page(
        functions=sum(isinstance(node, Function) for node in ast.walk(tree)),
        public=len(public),
        missing=[(name, line) for name, line, node in public if not ast.get_docstring(node)],
    )


def public_in(node: Documented, name: str) -> Iterator[tuple[str, int, Documented]]:
    """The module, its public classes and functions, and their public methods: name, line, node."""
    if node.body:  # an empty file owes nobody an explanation
        yield name, getattr(node, "lineno", 1), node
    if isinstance(node, Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            yield from public_in(child, child.name)


def undocumented(page: Page, file: Path, path: Path) -> Iterator[Finding]:
    """One finding for all that a file leaves unexplained."""
    if not page.missing:
        return
    names = ", ".join(name for name, _ in page.missing[:5])
    more = f" and {len(page.missing) - 5} more" if len(page.missing) > 5 else ""
    line = page.missing[0][1]
    yield Finding(
        severity="low",
        confidence="high",
        file=relative(file, path),
        line=line,
        rule="undocumented",
        message=f"{len(page.missing)} of {page.public} have no docstring: {names}{more}.",
        evidence=excerpt(file, line),
    )


def unreadable(error: Exception, file: Path, path: Path) -> Finding:
    """A file that is no Python for this interpreter."""
    line = getattr(error, "lineno", None) or 1
    return Finding(
        severity="medium",
        confidence="high",
        file=relative(file, path),
        line=line,
        rule="syntax",
        message=f"The grammar can't read this file: {getattr(error, 'msg', error)}.",
        evidence=excerpt(file, line),
    )
