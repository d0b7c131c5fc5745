"""The planner makes a plan of what is there, and says it plainly when nothing is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.audit.modules import SKIPPED, files_of, modules_in, relative
from examples.audit.plan import plan
from kapelle.state.task import Plan, Task


def planned(path: Path | None = None) -> Plan:
    return plan(Task(goal="Audit", inputs={"path": str(path)} if path else {}))


def test_each_module_has_three_concerns_and_a_summary_that_needs_them(planted: Path) -> None:
    made = planned(planted)
    assert made["risky.summary"].needs == (
        "risky.security",
        "risky.complexity",
        "risky.documentation",
    )
    assert len(made.tasks) == 4 * len({str(t.inputs["module"]) for t in made.tasks})
    assert {t.skills for t in made.tasks} == {
        ("audit.security",),
        ("audit.complexity",),
        ("audit.documentation",),
        ("audit.summary",),
    }


def test_only_python_that_is_no_test_and_not_hidden_is_audited(planted: Path) -> None:
    names = {module.name for module in modules_in(planted)}
    assert names == {"risky", "tangled", "bare", "broken", "short", "large"}


@pytest.mark.parametrize("folder", [*sorted(SKIPPED), ".git"])
def test_folders_that_are_not_the_code_are_left_out_at_any_depth(
    planted: Path, folder: str
) -> None:
    (planted / "risky" / folder).mkdir()
    (planted / "risky" / folder / "other.py").write_text("x = 1\n")
    files = [relative(file, planted / "risky") for file in files_of(planted / "risky")]
    assert files == ["risky/__init__.py", "risky/shell.py", "risky/weak.py"]


def test_the_largest_module_comes_first(planted: Path) -> None:
    priorities = [task.priority for task in planned(planted).tasks]
    assert priorities == sorted(priorities, reverse=True)


def test_tasks_carry_paths_not_contents(planted: Path) -> None:
    assert all(set(task.inputs) == {"module", "path"} for task in planned(planted).tasks)


def test_a_package_and_a_file_of_one_name_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    for file in ("same/__init__.py", "same.py"):
        (tmp_path / file).write_text("x = 1\n")
    assert {module.name for module in modules_in(tmp_path)} == {"same", "same.py"}


def test_a_folder_with_dots_keeps_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "lib-3.11-x").mkdir()
    (tmp_path / "lib-3.11-x" / "a.py").write_text("x = 1\n")
    assert [module.name for module in modules_in(tmp_path)] == ["lib-3.11-x"]


def test_a_link_that_leads_nowhere_is_no_file(planted: Path) -> None:
    (planted / "risky" / "gone.py").symlink_to(planted / "nowhere.py")
    assert planted / "risky" / "gone.py" not in files_of(planted / "risky")


def test_one_file_can_be_audited(planted: Path) -> None:
    assert len(planned(planted / "bare.py").tasks) == 4


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is nothing at .*nowhere: give the folder"):
        planned(tmp_path / "nowhere")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_a_path_without_python_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"There are no Python files in .*empty"):
        planned(tmp_path / "empty")


def test_the_standard_library_is_some_eight_hundred_tasks() -> None:
    made = planned()
    assert 500 < len(made.tasks) < 1_500
    assert made["asyncio.summary"].needs
