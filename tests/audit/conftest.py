"""A small body of code with planted problems, and the team's work on it done by hand."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    importlib.import_module("bandit.core.manager")  # says what stevedore has deprecated

from examples.audit.complexity import complexity
from examples.audit.documentation import documentation
from examples.audit.plan import plan
from examples.audit.security import LARGE, security
from examples.audit.summary import summary
from kapelle.state.task import Brief, Reply, Result, Task

PLANTED = {
    "risky/__init__.py": '"""Dangerous things."""\n',
    "risky/shell.py": '''"""Shell."""

import os


def run(what):
    """Run."""
    os.system(what)
''',
    "risky/weak.py": '''"""Hash."""

import hashlib

HASH = hashlib.md5(b"secret").hexdigest()
''',
    "tangled.py": '''"""Branches."""


def knot(x):
    """Decide."""
'''
    + "".join(f"    if x == {n}:\n        return {n}\n" for n in range(60)),
    "bare.py": """class Thing:
    def act(self):
        return 1


def _mine():
    return 2
""",
    "broken.py": '''"""Broken."""


def f(:
    return 1
''',
    "short.py": '''"""Lizard overlooks these."""


def one(x): return x
def two(x): return x
''',
    "large.py": '"""Long."""\n\nimport os\n' + "\n" * LARGE + 'os.system("rm " + os.sep)\n',
    "tests/test_risky.py": "assert True\n",
    ".hidden/secret.py": "assert True\n",
    "notes.txt": "no code\n",
}
"""Files with what is wrong in them."""

CLEAN = {"calm.py": '"""Calm."""\n\n\ndef add(a, b):\n    """Add."""\n    return a + b\n'}

Work = Callable[..., dict[str, Result]]


def write_all(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder of code with a problem of each kind."""
    return write_all(tmp_path / "planted", PLANTED)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A folder of code with nothing severe."""
    return write_all(tmp_path / "clean", CLEAN)


@pytest.fixture
def work() -> Work:
    """Does the plan for a folder, one task after the other; with `feedback` as if sent back."""

    def work(root: Path, *feedback: str) -> dict[str, Result]:
        results: dict[str, Result] = {}
        for task in plan(Task(goal="Audit", inputs={"path": str(root)})).tasks:
            results[task.id] = _done(task, results, feedback)
        return results

    return work


def _done(task: Task, results: dict[str, Result], feedback: tuple[str, ...]) -> Result:
    brief = Brief(results={need: results[need] for need in task.needs}, feedback=feedback)
    workers: dict[str, Any] = {
        "security": lambda: security(task, brief),
        "complexity": lambda: complexity(task),
        "documentation": lambda: documentation(task),
        "summary": lambda: summary(task, brief),
    }
    name = task.skills[0].removeprefix("audit.")
    made = workers[name]()
    reply = made if isinstance(made, Reply) else Reply(output=made)
    return Result(
        task=task.id,
        status="done",
        agent=name,
        output=reply.output.model_dump(mode="json"),
        confidence=reply.confidence,
        claims=tuple(claim.model_copy(update={"by": name}) for claim in reply.claims),
        revision=2 if feedback else 1,
    )
