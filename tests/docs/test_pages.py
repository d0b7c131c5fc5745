"""What the README and the pages say is so."""

import ast
import asyncio
import contextlib
import inspect
import io
import re
import types
from pathlib import Path
from typing import Any, get_args

import pytest

import kapelle.graphs
from examples import service
from kapelle.cli import cli
from kapelle.state import errors
from kapelle.state.approval import CHOICES
from kapelle.state.task import FailureKind, Status

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The Python in a page, in order; later pieces build on earlier ones."""
    return re.findall(r"^```python\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)


def promised(block: str) -> list[str]:
    """What the comments behind `print` say is printed."""
    return re.findall(r"^ *print\(.*\)  +# (.*)$", block, re.MULTILINE)


def ran(source: str, names: dict[str, Any]) -> list[str]:
    """Run Python as a notebook does, with `await` at the top; the lines it prints."""
    code = compile(source, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        outcome = types.FunctionType(code, names)()
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
    return out.getvalue().splitlines()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and a key, so that agents with models can be made; none is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_what_a_page_shows_runs_and_prints_what_it_says(page: str) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        assert ran(block, names) == promised(block), block


def test_the_first_example_of_the_readme_is_short() -> None:
    assert len([line for line in blocks("README.md")[0].splitlines() if line]) <= 14


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", text(page)) if "://" not in link]
    lost = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert lost == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page: str) -> None:
    named = set(re.findall(r"(?:^|`)kapelle ([a-z]+)", text(page), re.MULTILINE))
    assert named - set(cli.commands) == set()
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    made = re.findall(r"(?:^|`)make ([a-z]+)(?=`| +#|$)", text(page), re.MULTILINE)
    assert set(made) - set(targets) == set()


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_not_too_long(page: str) -> None:
    prose = [line for line in text(page).splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 100] == []


def test_the_readme_says_which_patterns_there_are() -> None:
    here = re.findall(r"^\| `(\w+)` \| .* \|$", text("README.md"), re.MULTILINE)
    assert sorted(here) == sorted(kapelle.graphs.__all__)


def test_every_error_is_explained_with_its_status_in_the_service() -> None:
    rows = re.findall(
        r"^\| \**`(\w+)`\** \|.*\| (\d{3})? ?\|$", text("docs/errors.md"), re.MULTILINE
    )
    known = [
        error
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, errors.KapelleError)
    ]
    assert {name for name, _ in rows} == {e.__name__ for e in known} - {"KapelleError"}
    statuses = {name: int(code) for name, code in rows if code}
    assert statuses == {
        error.__name__: service.CODES.get(error, 422) if issubclass(error, errors.Refused) else 500
        for error in known
        if issubclass(error, errors.Refused | errors.Failed)
    }


def test_every_kind_of_failure_is_explained() -> None:
    kinds = text("docs/errors.md").partition("## Kinds of failure")[2]
    explained = re.findall(r"^\| `(\w+)` \|", kinds, re.MULTILINE)
    assert sorted(explained) == sorted(get_args(FailureKind))


def test_every_status_and_every_answer_is_in_the_glossary() -> None:
    glossary = text("docs/glossary.md")
    statuses = re.findall(r"^\| `(\w+)` \|", glossary, re.MULTILINE)
    assert sorted(statuses) == sorted({*get_args(Status), "running"})
    assert re.findall(r"^\| (approve|edit|reject|respond) \|", glossary, re.MULTILINE) == [*CHOICES]


def test_every_word_of_the_glossary_that_names_code_exists() -> None:
    names = {name for module in (kapelle, errors) for name in dir(module)}
    nouns = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("[ckns]*/*.py"))
    column = re.findall(r"\| [^|\n]+ \|$", text("docs/glossary.md"), re.MULTILINE)
    classes = re.findall(r"`([A-Z]\w+)`", "\n".join(column))
    assert [c for c in classes if c not in names and f"class {c}" not in nouns] == []
