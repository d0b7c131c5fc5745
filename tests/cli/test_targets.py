"""Targets: what can be run, and what is said when it can't."""

import json
import os
from pathlib import Path

import pytest

from kapelle import targets
from kapelle.state.errors import KapelleError
from tests.cli.conftest import Call
from tests.cli.looking import is_one_line


@pytest.mark.parametrize("name", ["done", "make", "tuned", "later"])
def test_a_target_is_a_graph_or_what_makes_one(folder: Path, name: str) -> None:
    called, graph, spec = targets.load(f"agents.py:{name}", {})
    assert called == name
    assert "plan" in graph.nodes
    assert type(targets.again(json.loads(json.dumps(spec)))) is type(graph)


def test_langgraph_json_is_found_in_a_folder_above(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "deeper")
    name, _, spec = targets.load("named", {})
    assert (name, spec["file"], spec["attribute"]) == ("named", str(folder / "agents.py"), "done")


def test_a_file_in_a_package_is_imported_as_part_of_it(folder: Path) -> None:
    package = folder / "parts" / "inner"
    package.mkdir(parents=True)
    for place in (package, package.parent):
        (place / "__init__.py").touch()
    (package / "sibling.py").write_text("from agents import done\n", encoding="utf-8")
    (package / "team.py").write_text("from .sibling import done\n", encoding="utf-8")
    name, graph, _ = targets.load("parts/inner/team.py:done", {})
    assert name == "done"
    assert "plan" in graph.nodes


def test_a_file_whose_name_is_taken_is_loaded_all_the_same(folder: Path) -> None:
    (folder / "json.py").write_text("from agents import done\n", encoding="utf-8")
    assert targets.load("json.py:done", {})[0] == "done"
    assert json.loads("1") == 1


def test_a_graph_that_takes_no_settings_is_not_given_any(call: Call) -> None:
    for target in ("agents.py:done", "agents.py:make"):
        result = call("run", target, "-t", "Do it", "--model", "openai:tiny")
        assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
        assert "model" in result.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nobody", "there are: asking, named"),
        ("agents.py", "agents.py:NAME"),
        ("agents.py:nobody", "graphs there: done, asking"),
        ("agents.py:number", "is a int, not a LangGraph graph"),
        ("agents.py:work", "is a FunctionAgent, not a LangGraph graph"),
        ("agents.py:greedy", "takes 2 parameters"),
        ("agents.py:broken", "ValueError: no graph today"),
        ("nowhere.py:done", "there is no file"),
        ("langgraph.json:done", "is no Python file"),
        (":", "there is no file"),
    ],
)
def test_a_target_that_is_none_is_one_line_that_says_what_there_is(
    call: Call, target: str, said: str
) -> None:
    for command in (["run", target, "-t", "Do it"], ["graph", target]):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert is_one_line(result.stderr)
        assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nimport not_there\n", "bad.py:2 can't be loaded: ModuleNotFoundError: No module"),
        ("x = 1\n\ndef (\n", "bad.py:3 can't be loaded: SyntaxError: "),
        ("def f():\n    return 1 / 0\n\nf()\n", "bad.py:2 can't be loaded: ZeroDivisionError: "),
        ("raise SystemExit(3)\n", "bad.py:1 can't be loaded: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line_with_file_line_and_error(
    call: Call, folder: Path, text: str, said: str
) -> None:
    (folder / "bad.py").write_text(text, encoding="utf-8")
    result = call("run", "bad.py:graph", "-t", "Do it")
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert said in result.stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"graphs": []}', '{"graphs": {"named": "done"}}'])
def test_a_langgraph_json_that_is_none_is_one_line(folder: Path, text: str) -> None:
    (folder / "langgraph.json").write_text(text, encoding="utf-8")
    with pytest.raises(KapelleError, match=r"langgraph\.json") as raised:
        targets.load("named", {})
    assert "\n" not in str(raised.value)


def test_a_target_may_be_a_dotted_module_below_what_the_graphs_need(folder: Path) -> None:
    package = folder / "src" / "crew"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "team.py").write_text("from agents import done\n", encoding="utf-8")
    graphs = {"dotted": "crew.team:done", "nowhere": "crew.nobody:done"}
    config = {"dependencies": ["./src", "."], "graphs": graphs}
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    name, graph, spec = targets.load("dotted", {})
    assert (name, spec["file"]) == ("dotted", str(package / "team.py"))
    assert "plan" in graph.nodes
    with pytest.raises(KapelleError, match="there is no file"):
        targets.load("nowhere", {})


@pytest.mark.parametrize("given", ["file", "variables"])
def test_the_env_of_langgraph_json_counts_where_nothing_else_is_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    lines = ["# secrets", "export CREW_A='a b'", "CREW_B=file # not this", "CREW_C=", ""]
    (folder / ".env").write_text("\n".join(lines), encoding="utf-8")
    env: object = ".env" if given == "file" else {"CREW_A": "a b", "CREW_B": "file", "CREW_C": ""}
    config = {"graphs": {"done": "./agents.py:done"}, "env": env}
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    with monkeypatch.context() as variables:
        variables.delenv("CREW_A", raising=False)
        variables.setenv("CREW_B", "mine")
        variables.setenv("CREW_C", "gone")
        variables.delenv("CREW_C")
        _, _, spec = targets.load("done", {})
        assert [os.environ.get(f"CREW_{x}") for x in "ABC"] == ["a b", "mine", ""]
        for x in "AC":
            del os.environ[f"CREW_{x}"]
        targets.again(json.loads(json.dumps(spec)))
        assert os.environ.pop("CREW_A") == "a b", "also for who goes on with it"
        os.environ.pop("CREW_C")
