"""The wheel, installed where there is no checkout, is the whole of Kapelle."""

import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FLOORS = {"graphs", "nodes", "state", "checkpoints"}

TEAM = """
from pathlib import Path
import sys

import kapelle
from kapelle.graphs import manager_worker
from kapelle.nodes.agent import agent
from kapelle.state.task import Plan, Task

assert Path(kapelle.__file__).is_relative_to(sys.prefix), kapelle.__file__


@agent
def planner(task):
    return Plan(tasks=[
        Task(id="count", goal="count the letters", skills=["count"]),
        Task(id="double", goal="double it", skills=["double"], needs=["count"]),
    ])


@agent(skills=["count"])
def counter(task):
    return len("kapelle")


@agent(skills=["double"])
def doubler(task, brief):
    return 2 * brief.results["count"].output


team = manager_worker(plan=planner, workers=[counter, doubler]).compile()
result = team.invoke({"task": Task(goal="two times the letters of kapelle")})["result"]
print(result.status, result.output)
"""


@pytest.fixture(scope="session")
def wheel(root: Path, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing an earlier build left behind gets in."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, copy / path, follow_symlinks=False)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(copy)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel, and sees this one's other packages."""
    place = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    where = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=where))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(packages), str(wheel)], check=True)
    # a path in a .pth file does not run that folder's own .pth files: no editable install gets in
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return place / "bin" / "python"


def test_the_wheel_holds_each_file_of_the_house_once(wheel: Path, files: list[Path]) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = [name for name in names if name.startswith("kapelle/")]
    house = [
        path.as_posix() if path.parts[0] == "kapelle" else f"kapelle/{path.as_posix()}"
        for path in files
        if path.parts[0] in FLOORS
        or (path.parts[0] == "kapelle" and path.as_posix().removeprefix("kapelle/") not in FLOORS)
    ]
    assert sorted(shipped) == sorted(house)
    assert "kapelle/py.typed" in shipped
    assert {name.partition("/")[0] for name in names} == {"kapelle", *_metadata(names)}


def test_the_wheel_conducts_a_team(elsewhere: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [elsewhere, "-c", TEAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "done 14\n"


def _metadata(names: list[str]) -> set[str]:
    return {name.partition("/")[0] for name in names if ".dist-info/" in name}
