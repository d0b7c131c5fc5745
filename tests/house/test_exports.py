"""What `import kapelle` promises. A name that is added or dropped here belongs in CHANGELOG.md."""

import importlib
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
    "Verdict",
    "agent",
    "arun",
    "as_agent",
    "run",
]


def test_the_face_has_these_names_and_no_others() -> None:
    assert sorted(kapelle.__all__) == PUBLIC


def test_every_public_name_is_there() -> None:
    assert [name for name in kapelle.__all__ if not hasattr(kapelle, name)] == []


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
