"""The research example: a team of models over a folder of documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.research import Findings, Report, Shelf, research
from kapelle import Plan, Task, Verdict
from kapelle.drills import Call, LoopbackModel, Request
from kapelle.drills.answers import Answer
from kapelle.state.context import Claim
from kapelle.state.errors import NoModel, Refused
from kapelle.state.task import Result

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "examples" / "docs"
QUESTION = "How many bikes had the pilot, and should it go on?"


def config(**settings: Any) -> Any:
    return {"configurable": settings}


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_without_a_model_it_says_which_variables_to_set() -> None:
    with pytest.raises(NoModel, match=r"OPENAI_API_KEY.*OPENAI_BASE_URL"):
        research(config(docs=str(DOCS)))


def test_without_a_key_it_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(NoModel, match="openai:any has no key: set OPENAI_API_KEY"):
        research(config(model="openai:any", docs=str(DOCS)))


@pytest.mark.usefixtures("key")
def test_without_documents_it_says_how_to_name_some(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--docs FOLDER"):
        research(config(model="openai:any"))
    with pytest.raises(Refused, match="nowhere is no folder"):
        research(config(model="openai:any", docs="nowhere"))
    with pytest.raises(Refused, match="has no text documents"):
        research(config(model="openai:any", docs=str(tmp_path)))


def test_documents_are_listed_found_and_read() -> None:
    shelf = Shelf(DOCS)
    assert "city_memo.txt: 14 lines" in shelf.list_documents()
    assert shelf.search_documents("NORDHAVEN").startswith("other_towns.txt:3: Nordhaven")
    assert shelf.search_documents("xyzzy") == "no match"
    assert shelf.read_document("survey.md").startswith("1: # Survey among users")


def test_long_documents_are_read_in_pages(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n".join(f"line {i}" for i in range(1, 301)))
    shelf = Shelf(tmp_path)
    assert shelf.read_document("long.txt").endswith("200: line 200\n(more from line 201 on)")
    assert shelf.read_document("long.txt", first_line=201).endswith("300: line 300")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "inner/../../secret.txt",
        "{outside}",
        "link.txt",
        "",
        ".",
        "id_rsa",
        "no.txt",
    ],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    folder, outside = tmp_path / "docs", tmp_path / "secret.txt"
    folder.mkdir()
    outside.write_text("secret")
    (folder / "open.txt").write_text("open")
    (folder / "id_rsa").write_text("secret")
    (folder / "link.txt").symlink_to(outside)
    shelf = Shelf(folder)
    with pytest.raises(FileNotFoundError, match="there is no document"):
        shelf.read_document(name.format(outside=outside))
    assert "secret" not in shelf.search_documents("secret") + shelf.list_documents()


PLAN = Plan(
    tasks=(
        Task(id="operator", goal="What does the operator say?", skills=("research.docs",)),
        Task(id="city", goal="What does the city say?", skills=("research",)),
        Task(id="draft", goal="Write it up", skills=("writing",), needs=("operator", "city")),
    )
)
SOURCES = {"operator": ("pilot_report.md", 140, 0.6), "city": ("city_memo.txt", 120, 0.8)}
REPORT = Report(title="Bikes", answer="120 bikes [city_memo.txt]")


def researcher(request: Request) -> Answer:
    """Lists, searches and reads before it answers, as a model would."""
    side = next(side for side in SOURCES if f"# Your task ({side})" in request.prompt)
    document, bikes, sure = SOURCES[side]
    match len(request.tool_results):
        case 0:
            return [Call("list_documents"), Call("search_documents", {"words": "bikes"})]
        case 2:
            return Call("read_document", {"name": document})
    assert str(bikes) in request.tool_results[-1]
    claim = Claim(key="bikes.number", value=bikes, confidence=sure, evidence=document)
    return Findings(summary=f"{bikes} bikes", claims=(claim,), confidence=sure)


def answer(request: Request) -> Answer:
    role = request.system.split()[2].removesuffix(".")
    said: dict[str, Answer] = {
        "planner": PLAN,
        "writer": REPORT,
        "editor": REPORT,
        "critic": Verdict(decision="accept"),
    }
    return said.get(role) or researcher(request)


@pytest.mark.usefixtures("key")
async def test_a_question_is_researched_to_the_end(
    scripted: Callable[..., LoopbackModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scripted(answer)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    team = research(config(model="openai:any", docs=str(DOCS)))
    done = await team.compile().ainvoke({"task": Task(goal=QUESTION)})
    result = Result.model_validate(done["result"])
    assert result.status == "done"
    assert result.read(Report) == REPORT
    (conflict,) = result.contradictions
    assert conflict.decision is not None
    assert (conflict.key, conflict.decision.value) == ("bikes.number", 120)
    assert {claim.by for claim in conflict.claims} == {"researcher"}
    (editing,) = [r for r in server.requests if "You are editor." in r.system]
    assert '"bikes.number": 120' in editing.prompt
