"""What `import kapelle` promises. A name that is added or dropped here belongs in CHANGELOG.md."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import kapelle
import kapelle.graphs

PUBLIC = [
    "Approval",
    "Brief",
    "Budget",
    "Database",
    "Escalation",
    "ModelAgent",
    "Plan",
    "Policy",
    "Reply",
    "Run",
    "Runs",
    "Task",
    "Tiers",
    "Verdict",
    "agent",
    "arun",
    "as_agent",
    "consequential",
    "effect",
    "estimate",
    "run",
]


def test_the_face_has_these_names_and_no_others() -> None:
    assert sorted(kapelle.__all__) == PUBLIC


def test_every_public_name_is_there() -> None:
    assert [name for name in kapelle.__all__ if not hasattr(kapelle, name)] == []


def test_what_type_checkers_see_is_what_is_imported_when_it_is_used(root: Path) -> None:
    tree = ast.parse((root / "kapelle/__init__.py").read_text())
    seen = {
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kapelle.")
        for name in node.names
    }
    used = {(f"kapelle.{home}", n) for home, names in kapelle._HOMES.items() for n in names}  # noqa: SLF001
    assert seen == used
    assert sorted(name for _, name in used) == PUBLIC
    for home, name in used:
        assert getattr(kapelle, name) is getattr(importlib.import_module(home), name)


def test_importing_kapelle_or_an_agent_s_module_imports_no_framework() -> None:
    look = "import sys; from kapelle import Task, agent; print([n for n in %r if n in sys.modules])"
    heavy = ["langgraph", "langchain_core", "sqlalchemy", "rich"]
    done = subprocess.run(
        [sys.executable, "-c", look % heavy], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_every_pattern_is_one_function_named_as_its_file(root: Path) -> None:
    patterns = sorted(
        path.stem for path in (root / "graphs").glob("*.py") if not path.stem.startswith("_")
    )
    assert sorted(kapelle.graphs.__all__) == patterns
    for name in patterns:
        module = importlib.import_module(f"kapelle.graphs.{name}")
        public = [n for n, thing in vars(module).items() if _defined_in(module.__name__, n, thing)]
        assert [n for n in public if not n.startswith(("by_", "to_"))] == [name]


def _defined_in(module: str, name: str, thing: object) -> bool:
    return not name.startswith("_") and getattr(thing, "__module__", None) == module
