"""The notebooks run from a clean state, without a model, a key or a network."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def executed(name: str, folder: Path) -> NotebookNode:
    """The notebook after a run in an empty folder."""
    notebook = nbformat.read(FOLDER / name, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(folder)}}
    with TemporaryDirectory(dir="/tmp") as short:
        # files, as a port that was free just now may be another's; their paths have to be short
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{short}/kernel"}})
        patient = {"timeout": 600, "startup_timeout": 600, "kernel_name": "python3"}
        NotebookClient(notebook, resources=resources, config=config, **patient).execute()
    return notebook


def shown(notebook: NotebookNode) -> str:
    """All that the cells showed as text."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join(texts)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, with no key and no way out."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv(variable.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    return tmp_path


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS == [
        "01_first_run.ipynb",
        "02_approval_and_resume.ipynb",
        "03_shared_memory.ipynb",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_what_a_run_left_in_it(name: str) -> None:
    notebook: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code if cell["outputs"]] == []
    assert [cell["execution_count"] for cell in code if cell["execution_count"]] == []
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert set(notebook["metadata"]["language_info"]) == {"name"}


@pytest.mark.slow
def test_the_first_run_shows_a_team_its_result_and_its_journal(offline: Path) -> None:
    notebook = executed("01_first_run.ipynb", offline)
    text = shown(notebook)
    assert "['textwrap', " in text  # all its functions have a docstring
    assert "gather -.-> measure" in text
    assert "choice   planned   task           plan     5 subtasks" in text
    assert "('partial'" in text
    assert "('compare', 'no_such')" in text
    assert "('done', 6)" in text
    drawings = [o.data["image/svg+xml"] for c in notebook.cells for o in _pictures(c)]
    assert [">measure<" in drawing for drawing in drawings] == [True]


@pytest.mark.slow
def test_an_approval_is_given_here_and_elsewhere_and_the_run_goes_on(offline: Path) -> None:
    text = shown(executed("02_approval_and_resume.ipynb", offline))
    assert "ann says: Say which receipt you have seen." in text
    assert "respond by ann" in text
    for paid in (
        "{'order': 'A-1', 'eur': 40}",
        "{'order': 'A-2', 'eur': 350}",
        "{'order': 'A-3', 'eur': 500}",
        "{'order': 'A-4', 'eur': 600}",
    ):
        assert f"('done', {{'paid': {paid}}})" in text
    told = text[text.rindex("attempt    done     check") :]
    assert told.count("attempt    done     check") == 1


@pytest.mark.slow
def test_react_and_vue_are_settled_and_remembered(offline: Path) -> None:
    text = shown(executed("03_shared_memory.ipynb", offline))
    assert "done {'shop': 'a shop with React', 'admin': 'an office with React'}" in text
    assert "-> React by evidence" in text
    assert "\n1 0\n" in text
    assert "{'shop': 'a shop with Vue', 'admin': 'an office with Vue'}" in text
    assert "waiting Agents contradict each other about frontend.framework. What holds?" in text
    assert "[('Vue', 'person', 'ann')]" in text


def _pictures(cell: NotebookNode) -> list[NotebookNode]:
    return [o for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})]
