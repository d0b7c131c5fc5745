"""A run outlives the process that drives it."""

import signal
from pathlib import Path

import pytest

from kapelle import Approval, Database
from kapelle.nodes.door import wait
from tests.service.served import Served, until

pytestmark = pytest.mark.slow


def done(folder: Path) -> list[str]:
    """What the team did, in order."""
    notes = folder / "done.txt"
    return notes.read_text().splitlines() if notes.exists() else []


def answered(held: Served) -> str:
    """The thread of a run whose ask was approved, and which works now."""
    run = held.start("Work")
    held.answer(run["asks"][0]["id"])
    thread: str = run["thread"]
    return thread


def test_a_long_run_holds_up_no_request(held: Served, tmp_path: Path) -> None:
    run = held.start("Work")
    answer = held.answer(run["asks"][0]["id"])
    assert answer.json()["status"] == "running"
    assert held.run(run["thread"])["status"] == "running"
    assert held.start("Other work")["status"] == "waiting"
    (tmp_path / "go").touch()
    assert held.ended(run["thread"])["result"]["output"] == "worked"


def test_an_ask_outlives_a_killed_process_and_is_answered(held: Served, tmp_path: Path) -> None:
    run = held.start("Work")
    (tmp_path / "go").touch()
    held.restart(signal.SIGKILL)
    assert held.client.get("/asks").json() == run["asks"]
    held.answer(run["asks"][0]["id"])
    assert held.ended(run["thread"])["status"] == "done"
    assert done(tmp_path) == ["ask", "begin", "end"]


def test_a_run_goes_on_after_its_process_was_killed_and_finished_work_is_not_repeated(
    held: Served, tmp_path: Path
) -> None:
    thread = answered(held)
    until(lambda: "begin" in done(tmp_path))
    held.restart(signal.SIGKILL)
    (tmp_path / "go").touch()
    assert held.ended(thread)["result"]["output"] == "worked"
    assert done(tmp_path) == ["ask", "begin", "begin", "end"]


def test_a_run_goes_on_after_its_process_was_asked_to_end(held: Served, tmp_path: Path) -> None:
    thread = answered(held)
    until(lambda: "begin" in done(tmp_path))
    held.restart(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert held.ended(thread)["result"]["output"] == "worked"
    assert done(tmp_path) == ["ask", "begin", "begin", "end"]


def test_an_answer_given_by_another_program_is_taken_up_by_the_service(
    held: Served, tmp_path: Path
) -> None:
    run = held.start("Work")
    (tmp_path / "go").touch()
    with Database(str(tmp_path / "service.db")) as database:
        approval = Approval(decision="approve", by="ann")
        claimed = wait(database.inbox.claim(run["asks"][0]["id"], approval))
    assert claimed.thread == run["thread"]
    assert held.ended(run["thread"])["result"]["output"] == "worked"
    assert done(tmp_path) == ["ask", "begin", "end"]
