"""One namespace on four floors: what ships and what the tools see is the same."""

import json
import re
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

FLOORS = {"graphs", "nodes", "state", "checkpoints"}


def mapping(pyproject: dict[str, Any]) -> dict[str, str]:
    return pyproject["tool"]["setuptools"]["package-dir"]


def test_each_floor_is_mapped_into_the_namespace(pyproject: dict[str, Any]) -> None:
    floors = {f"kapelle.{floor}": floor for floor in FLOORS}
    assert mapping(pyproject) == {"kapelle": "kapelle", **floors}


def test_each_link_points_where_the_mapping_does(root: Path, pyproject: dict[str, Any]) -> None:
    mapped = {name.removeprefix("kapelle."): folder for name, folder in mapping(pyproject).items()}
    del mapped["kapelle"]
    links = {path.name: path for path in (root / "kapelle").iterdir() if path.is_symlink()}
    assert {name: str(link.readlink()) for name, link in links.items()} == {
        name: f"../{folder}" for name, folder in mapped.items()
    }
    assert all(link.is_dir() for link in links.values())


def test_each_package_is_named_in_pyproject(files: list[Path], pyproject: dict[str, Any]) -> None:
    folders = {path.parent.parts for path in files if path.name == "__init__.py"}
    found = {".".join(folder) for folder in folders if folder[0] == "kapelle"} | {
        ".".join(("kapelle", *folder)) for folder in folders if folder[0] in FLOORS
    }
    assert found == set(pyproject["tool"]["setuptools"]["packages"])


def test_no_module_is_a_drawer_for_odds_and_ends(files: list[Path]) -> None:
    drawers = {"utils.py", "util.py", "common.py", "types.py", "helpers.py", "misc.py"}
    assert [path for path in files if path.name in drawers] == []


def test_no_file_holds_a_registry_or_a_place_on_one_machine(root: Path, files: list[Path]) -> None:
    foreign = re.compile(
        r"(pypi|pythonhosted|npmjs)\.(org|com)|--(extra-)?index-url|--find-links"
        r"|(?<![\w.~])/(work|root|home/\w+|Users/\w+|opt/(pypi|wheels))/"
    )
    found = [
        f"{path}:{number}: {match.group()}"
        for path in files
        if not (root / path).is_symlink() and path.name != Path(__file__).name
        for number, line in enumerate(
            (root / path).read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if (match := foreign.search(line))
    ]
    assert found == []


def test_every_dependency_is_pinned_by_name_and_version_alone(
    root: Path, pyproject: dict[str, Any]
) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", pin)] == []
    project = pyproject["project"]
    named = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        named += extra
    wanted = {_plain(Requirement(line).name) for line in named} - {"kapelle"}
    assert wanted - {_plain(pin.partition("==")[0]) for pin in pins} == set()


def test_langgraph_json_names_files_that_are_there(root: Path) -> None:
    graphs = json.loads((root / "langgraph.json").read_text())["graphs"]
    files = [target.rpartition(":")[0] for target in graphs.values()]
    assert [file for file in files if not (root / file).is_file()] == []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
