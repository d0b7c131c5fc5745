"""The example `examples/census.py`: files are found, counted as leaves of a tree, and reported."""

from pathlib import Path

from examples.census import census
from kapelle.state.task import Result, Task


def taken(folder: Path) -> Result:
    """The census of a folder."""
    task = Task(goal="count", inputs={"folder": str(folder)})
    result: Result = census().compile().invoke({"task": task})["result"]
    return result


def test_functions_are_counted_and_the_longest_are_named(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def short(): ...\n\ndef long():\n    a = 1\n    return a\n")
    (tmp_path / "two.py").write_text("async def other(): ...\n")
    result = taken(tmp_path)
    assert result.status == "done"
    assert str(result.output).splitlines() == [
        "2 files, 3 functions of 1.7 lines on average",
        "     3 lines  one.py:long",
        "     1 lines  two.py:other",
        "     1 lines  one.py:short",
    ]


def test_a_file_that_is_no_python_costs_no_other_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "good.py").write_text("def f(): ...\n")
    result = taken(tmp_path)
    assert str(result.output).startswith("1 files, 1 functions")
    assert (result.status, result.missing) == ("partial", ("census/0",))


def test_where_there_is_nothing_to_report_the_line_stops(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    result = taken(tmp_path)
    assert result.status == "partial"
    assert result.missing == ("census", "report")
    assert result.failure is not None
    assert "there are no functions" in result.failure.message
