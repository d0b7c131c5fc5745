"""The ground floor stands alone, whatever stands on it."""

import json
import subprocess
import sys
from pathlib import Path

FRAMEWORKS = {
    "alembic",
    "langchain_core",
    "langchain_openai",
    "langgraph",
    "langsmith",
    "sqlalchemy",
}

IMPORT_STATE = """
import importlib, json, sys, types
from pathlib import Path

kapelle = types.ModuleType("kapelle")  # the real one imports the whole house
kapelle.__path__ = [sys.argv[1]]
sys.modules["kapelle"] = kapelle
for path in sorted(Path(sys.argv[1], "state").glob("*.py")):
    importlib.import_module(f"kapelle.state.{path.stem}")
print(json.dumps(sorted(sys.modules)))
"""


def test_state_imports_no_framework(root: Path) -> None:
    command = [sys.executable, "-c", IMPORT_STATE, str(root / "kapelle")]
    loaded = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "kapelle.state.task" in loaded
    assert {name.partition(".")[0] for name in loaded} & FRAMEWORKS == set()
