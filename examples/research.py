"""A team that researches a question over a folder of documents.

    kapelle run research --task "Should the pilot go on?" --model openai:NAME --docs examples/docs

A planner splits the question, researchers read the documents (they can list, search and read
them, nothing else), a writer drafts, an editor makes one report of it all, a critic accepts it,
sends work back or asks a person.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field

from kapelle import Budget, ModelAgent, Plan, Policy, Verdict
from kapelle.graphs import manager_worker
from kapelle.nodes.pattern import Pattern
from kapelle.state.context import Claim
from kapelle.state.errors import Refused

SUFFIXES = {".md", ".txt", ".rst", ".csv", ".json", ".html"}
MOST_FILES = 1_000
MOST_BYTES = 2_000_000
"""Bytes of one document that are read."""
MOST_HITS = 40
"""Lines that a search gives."""
PAGE = 200
"""Lines that are read at once."""


class Findings(BaseModel):
    """What the documents say on one question."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # the model is told them

    summary: str
    """What was found, with the documents it was found in."""
    claims: tuple[Claim, ...] = ()
    """Each figure or fact that matters, as key and value; its evidence is `document:line`.
    Use plain, general keys (`bikes.number`), so that different documents can be compared."""
    confidence: float = Field(ge=0, le=1)
    """How sure you are, from 0 to 1; lower it where documents differ or are silent."""


class Report(BaseModel):
    """The answer to the question."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    title: str
    answer: str
    """The answer in Markdown; every fact followed by its source in brackets, like [memo.txt]."""
    open_questions: tuple[str, ...] = ()
    """What the documents do not say, or say in two ways."""


class Shelf:
    """A folder of text documents; its public methods are tools for a chat model."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).resolve()
        if not self._folder.is_dir():
            raise Refused(f"{folder} is no folder; name one with text documents: --docs FOLDER")
        if next(self._files(), None) is None:
            raise Refused(f"{folder} has no text documents ({', '.join(sorted(SUFFIXES))})")

    def list_documents(self) -> str:
        """List all documents, each with its number of lines."""
        return "\n".join(f"{self._name(f)}: {len(_lines(f))} lines" for f in self._files())

    def search_documents(self, words: str) -> str:
        """Find the lines that have any of the words (in any case), the best matches first."""
        wanted = {word.lower() for word in re.findall(r"\w+", words)}
        hits = [
            (-len(wanted & set(re.findall(r"\w+", line.lower()))), self._name(file), number, line)
            for file in self._files()
            for number, line in enumerate(_lines(file), 1)
        ]
        best = sorted(hit for hit in hits if hit[0])[:MOST_HITS]
        return "\n".join(f"{name}:{number}: {line}" for _, name, number, line in best) or "no match"

    def read_document(self, name: str, first_line: int = 1) -> str:
        """Read a document from a line on; lines are numbered, long documents come in pages."""
        file = self._file(name)
        lines, start = _lines(file), max(first_line, 1)
        page = [f"{i}: {line}" for i, line in enumerate(lines, 1) if start <= i < start + PAGE]
        more = start + PAGE <= len(lines)
        return "\n".join(page + [f"(more from line {start + PAGE} on)"] * more)

    def _file(self, name: str) -> Path:
        """The document of that name; a path that leads out of the folder is none."""
        file = (self._folder / name).resolve()
        if file not in set(self._files()):
            raise FileNotFoundError(
                f"there is no document {name!r}; list_documents tells the names"
            )
        return file

    def _files(self) -> Iterator[Path]:
        texts = (f.resolve() for f in self._folder.rglob("*") if f.suffix in SUFFIXES)
        inside = (f for f in texts if f.is_file() and f.is_relative_to(self._folder))
        return iter(sorted(islice(inside, MOST_FILES)))

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def _lines(file: Path) -> list[str]:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES).decode("utf-8", "replace").splitlines()


def research(config: RunnableConfig) -> Pattern:
    """The team, for the `model` ("openai:NAME") and the `docs` (a folder) named in the config.

    Raises:
        NoModel: no model is named, or its key is missing.
        Refused: no folder is named, or it has no documents.
    """
    settings = config.get("configurable", {})
    model = settings.get("model")
    planner = ModelAgent(
        "planner",
        model,
        output=Plan,
        prompt="Split the question into a few subtasks: research for each side of it, side by side,"
        " then one that writes and needs them all. Give each a short id, and the skills it wants.",
    )
    if not settings.get("docs"):
        raise Refused("no documents are named: --docs FOLDER")
    shelf = Shelf(settings["docs"])
    researcher = ModelAgent(
        "researcher",
        model,
        skills=["research.docs"],
        output=Findings,
        tools=[shelf.list_documents, shelf.search_documents, shelf.read_document],
        description="Finds out what the documents say.",
        prompt="Say nothing that no document says. Look into more than one document.",
    )
    writer = ModelAgent(
        "writer",
        model,
        skills=["writing"],
        output=Report,
        description="Writes up what was found.",
        prompt="Build on the results you are given and on nothing else. Name sources.",
    )
    editor = ModelAgent(
        "editor",
        model,
        output=Report,
        prompt="Make one report that answers the question. Where findings contradict, follow what"
        " is decided and say that they did.",
    )
    critic = ModelAgent(
        "critic",
        model,
        output=Verdict,
        prompt="Accept the report if it answers the question and findings bear out every fact."
        " Else have it revised and say what is wrong; name subtasks in `redo` only if their"
        " findings are at fault. Ask a person if the documents can't settle it.",
    )
    return manager_worker(
        plan=planner,
        workers=[researcher, writer],
        synthesize=editor,
        judge=critic,
        policy=Policy(budget=Budget(tokens=settings.get("tokens", 1_000_000))),
    )
