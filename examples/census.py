"""A census of Python code: how many functions, how long, which are the longest. No model.

    python -m examples.census [FOLDER]        the standard library by default

A pipeline of three stages: the files are found, a tree of managers has each read as a leaf of its
own and merges what they count, a report is written. A gate behind the second stops the line where
there is nothing to report. A file that can't be read costs no other, and is named.
"""

import argparse
import ast
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import kapelle
from kapelle import Policy, Task, Verdict, agent, as_agent
from kapelle.graphs import hierarchy, pipeline
from kapelle.nodes.pattern import Pattern
from kapelle.state.task import Brief, Result

MOST_FILES = 2_000
LONGEST = 5
POLICY = Policy(attempts=1, parallel=16)


@agent
def find(task: Task) -> list[str]:
    """All Python files below a folder, without tests and installed packages."""
    folder = Path(str(task.inputs["folder"]))
    skipped = {"test", "tests", "site-packages", "idlelib"}
    found = (path for path in sorted(folder.rglob("*.py")) if not skipped & set(path.parts))
    return [str(path) for path in found][:MOST_FILES]


@agent
def count(task: Task) -> dict[str, Any]:
    """What is in one file."""
    path = Path(str(task.inputs["item"]))
    tree = ast.parse(path.read_bytes())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    spans = [
        [(node.end_lineno or node.lineno) - node.lineno + 1, f"{path.name}:{node.name}"]
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]
    lines = sum(int(str(length)) for length, _ in spans)
    longest = sorted(spans, reverse=True)[:LONGEST]
    return {"files": 1, "functions": len(spans), "lines": lines, "longest": longest}


def add(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """One count of several."""
    total = {key: sum(each[key] for each in counts) for key in ("files", "functions", "lines")}
    longest = sorted((span for each in counts for span in each["longest"]), reverse=True)
    return {**total, "longest": longest[:LONGEST]}


def worth_reporting(counted: Any) -> Verdict | bool:
    """Whether there is anything to say."""
    if not counted or not counted["functions"]:
        return Verdict(decision="stop", reason="there are no functions in these files")
    return True


@agent
def report(task: Task, brief: Brief) -> str:
    """The census in a few lines."""
    seen: Any = brief.results["census"].output
    mean = seen["lines"] / seen["functions"]
    first = f"{seen['files']} files, {seen['functions']} functions of {mean:.1f} lines on average"
    return "\n".join([first, *(f"{length:6} lines  {name}" for length, name in seen["longest"])])


def census() -> Pattern:
    """The line."""
    tree = as_agent(hierarchy(count, merge=add, policy=POLICY), name="census")
    return pipeline([find, tree, report], gates={"census": worth_reporting}, policy=POLICY)


def main() -> None:
    """Take the census of a folder and print it."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"))
    given = options.parse_args()
    task = Task(goal="Take a census of the functions", inputs={"folder": given.folder})
    with tempfile.TemporaryDirectory() as scratch:
        result = kapelle.run(census(), task, db=str(Path(scratch) / "census.db")).result
    assert isinstance(result, Result)
    print(result.output)
    for name in result.missing:
        print(f"not counted: {name}")
    if result.failure:
        print(result.failure.message)


if __name__ == "__main__":
    main()
