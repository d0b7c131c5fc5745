"""A folder with agents in it, and the command line used there: in this process and in others."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kapelle.cli import cli
from tests.cli.looking import MOST
from tests.warm import Process, Warm

Call = Callable[..., Result]
Start = Callable[..., Process]
Finish = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: `agents.py`, and a `langgraph.json` that names some of its graphs."""
    shutil.copy(Path(__file__).with_name("agents.py"), tmp_path)
    graphs = {"named": "./agents.py:done", "asking": {"path": "./agents.py:asking"}}
    config = {"dependencies": ["."], "graphs": graphs}
    (tmp_path / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAPELLE_DB", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("agents", None)


@pytest.fixture
def call(folder: Path) -> Call:
    """Use the command line in this process."""

    def call(*words: str, **more: Any) -> Result:
        result = CliRunner().invoke(cli, words, **more)
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return result

    return call


@pytest.fixture
def start(folder: Path, warm: Warm) -> Iterator[Start]:
    """Use the command line in another process, which does not outlive the test."""
    started: list[Process] = []

    def start(*words: str, **more: Any) -> Process:
        usual = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE, "text": True, "cwd": folder}
        started.append(warm.start("-m", "kapelle", *words, **{**usual, **more}))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def elsewhere(start: Start) -> Finish:
    """Use the command line in another process, to its end."""

    def elsewhere(*words: str, **more: Any) -> CompletedProcess[str]:
        process = start(*words, **more)
        out, err = process.communicate(MOST)
        return CompletedProcess(words, process.wait(), out, err)

    return elsewhere


@pytest.fixture
def waiting(call: Call) -> tuple[str, str]:
    """A run that asks a person: its thread and the ask's id."""
    found = json.loads(call("run", "asking", "-t", "Do it", "--json").stdout)
    return found["thread"], found["asks"][0]["id"]
