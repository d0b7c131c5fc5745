"""A run that is killed or interrupted goes on, and nothing that was finished is done again."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kapelle import Database
from kapelle.nodes.door import wait
from tests.cli.conftest import Call, Start
from tests.cli.looking import MOST, is_one_line, until
from tests.warm import Process

pytestmark = pytest.mark.slow
PARTS = 30


def begun(folder: Path) -> Counter[str]:
    """How many times each part was begun."""
    file = folder / "begun"
    return Counter(file.read_text(encoding="utf-8").split()) if file.exists() else Counter()


def reach_the_middle(process: "Process | subprocess.Popen[str]", folder: Path) -> None:
    """Look until a run has done some of its parts."""
    until(lambda: len(begun(folder)) > 12 or process.poll() is not None, "in the middle")
    assert process.poll() is None, process.communicate()


def finished(db: Database, thread: str) -> set[str]:
    """The parts whose result is kept."""
    kept = db.saver.get_tuple({"configurable": {"thread_id": thread}})
    writes = (kept.pending_writes if kept else None) or []
    return {part for _, channel, value in writes if channel == "results" for part in value}


def let_go(db: Database, thread: str) -> None:
    """What time does to a lease that nobody renews."""
    row = wait(db.runs.get(thread))
    assert row.holder is not None
    assert wait(db.runs.release(thread, row.holder, row.fence, status="running"))


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a run that was killed in the middle."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(Path(__file__).with_name("agents.py"), folder)
    words = ["agents.py:slow", "-t", "Do it", "--input", f"parts={PARTS}", "--thread", "killed"]
    command = [sys.executable, "-m", "kapelle", "run", *words]  # as a user does: nothing is warm
    process = subprocess.Popen(command, cwd=folder, text=True)
    reach_the_middle(process, folder)
    process.kill()
    process.wait(MOST)
    return folder


@pytest.fixture
def killed(remains: Path, folder: Path) -> Path:
    """The same, in a folder of its own."""
    for name in ("begun", *(path.name for path in remains.glob("kapelle.db*"))):
        shutil.copy(remains / name, folder)
    (folder / "go").touch()
    return folder


@pytest.fixture
def held(killed: Path) -> Path:
    """The same, but who held it is of another host, where nobody here sees whether it lives."""
    with Database("kapelle.db") as db:
        wait(db.runs.take("killed", "another host", 3_600))
    return killed


def test_a_killed_run_goes_on_and_repeats_nothing_that_was_finished(
    killed: Path, call: Call
) -> None:
    with Database("kapelle.db") as db:
        kept = finished(db, "killed")
    before = begun(killed)
    assert 0 < len(kept) < PARTS
    assert json.loads(call("runs", "--json").stdout)[0]["status"] == "running"
    assert "stopped" in call("runs").stdout, "nobody advances it"
    result = json.loads(call("resume", "killed", "--json").stdout)
    assert result["status"] == "done"
    assert len(result["result"]["output"]) == PARTS
    after = begun(killed)
    assert {part: after[part] for part in kept} == {part: before[part] for part in kept}
    assert set(after) == {f"part{number}" for number in range(PARTS)}


def test_whoever_resumes_waits_until_the_lease_of_another_host_is_over(
    held: Path, start: Start
) -> None:
    going_on = start("resume", "killed")
    assert "waiting for its lease to end" in going_on.stderr.readline()
    with Database("kapelle.db") as db:
        let_go(db, "killed")
    out, _ = going_on.communicate(timeout=MOST)
    assert out.startswith("done  killed\n")


def test_a_run_whose_holder_lives_is_left_to_it(held: Path, start: Start) -> None:
    going_on = start("resume", "killed")
    note = going_on.stderr.readline()
    assert "waiting for its lease to end" in note
    with Database("kapelle.db") as db:
        row = wait(db.runs.get("killed"))
        assert wait(db.runs.renew("killed", row.holder or "", row.fence, 7_200))
    _, err = going_on.communicate(timeout=MOST)
    assert going_on.returncode == 2
    assert is_one_line(err)
    assert "is being advanced by" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
def test_a_run_interrupted_from_the_keyboard_says_how_it_goes_on_and_can_at_once(
    start: Start, call: Call, folder: Path
) -> None:
    words = ["agents.py:slow", "-t", "Do it", "--input", f"parts={PARTS}", "--thread", "stopped"]
    process = start("run", *words)
    reach_the_middle(process, folder)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=MOST)
    assert process.returncode == 130
    assert is_one_line(err.splitlines(keepends=True)[-1])
    assert "kapelle resume stopped` goes on" in err
    assert "Traceback" not in err
    (folder / "go").touch()
    assert json.loads(call("resume", "stopped", "--json").stdout)["status"] == "done"


def test_a_run_that_has_ended_stays_as_it_is(call: Call) -> None:
    call("run", "named", "-t", "Do it", "--thread", "over")
    before = call("show", "over", "--events", "--json").stdout
    assert call("resume", "over").stdout.startswith("done  over\n")
    assert call("show", "over", "--events", "--json").stdout == before
