"""Killed with SIGKILL in the middle of any part, a run goes on and repeats nothing it finished."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed.py")


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_no_finished_part_repeats(tmp_path: Path) -> None:
    goes_on("database", 2, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("saver", ["database", "official sqlite"])
def test_wherever_it_is_killed_a_run_goes_on(saver: str, tmp_path: Path) -> None:
    goes_on(saver, 14, tmp_path)


def goes_on(saver: str, times: int, folder: Path) -> None:
    """Kill and go on, and compare with what was not disturbed."""
    command = [sys.executable, str(SCRIPT), saver, str(folder), str(times)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for graph, tries in json.loads(done.stdout).items():
        undisturbed = tries.pop("[0]")
        assert undisturbed["ended"] == [0], (graph, done.stderr)
        assert undisturbed["status"] == "done", graph
        assert set(undisturbed["finished"].values()) == {1}, graph
        for fatal, run in tries.items():
            *killed, last = run.pop("ended")
            assert set(killed) == {signal.SIGKILL}, (graph, fatal)
            assert last == 0, (graph, fatal, done.stderr)
            assert run == {k: v for k, v in undisturbed.items() if k != "ended"}, (graph, fatal)
