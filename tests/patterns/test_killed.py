"""Killed with SIGKILL in the middle of any part, a run goes on and repeats nothing it finished."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.checkpoints.conftest import VARIABLES, url_of
from tests.warm import Warm

SCRIPT = Path(__file__).with_name("killed.py")


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_no_finished_part_repeats(warm: Warm, tmp_path: Path) -> None:
    goes_on(warm, "sqlite", 2, tmp_path)


ONE_OF_EACH = [
    "a_team_that_asks",
    "a_team_that_writes",
    "a_line_that_writes",
    "a_stream",
    "a_swarm_that_is_held",
    "a_market_that_disagrees",
    "a_tree",
    "a_chart_that_is_held",
]
"""A graph of each pattern; messages under way, and what is reconciled at the end, among them."""


@pytest.mark.slow
@pytest.mark.parametrize("server", VARIABLES)
def test_a_run_of_each_pattern_that_is_killed_goes_on_from_a_server(
    warm: Warm, server: str, tmp_path: Path, made: dict[str, str]
) -> None:
    goes_on(warm, url_of(server, tmp_path, made), 1, tmp_path, ONE_OF_EACH)


@pytest.mark.soak
@pytest.mark.parametrize("saver", ["sqlite", "official sqlite"])
def test_wherever_it_is_killed_a_run_goes_on(warm: Warm, saver: str, tmp_path: Path) -> None:
    goes_on(warm, saver, 14, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["a_team_that_writes", "a_line_that_writes"])
def test_killed_at_any_boundary_between_steps_each_message_is_read_once(
    warm: Warm, graph: str, tmp_path: Path
) -> None:
    goes_on(warm, "sqlite", 30, tmp_path, [graph])


def goes_on(warm: Warm, saver: str, times: int, folder: Path, graphs: Sequence[str] = ()) -> None:
    """Kill and go on, and compare with what was not disturbed."""
    done = warm.finish(str(SCRIPT), saver, str(folder), str(times), *graphs, timeout=1_200)
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
