"""Killed with SIGKILL at any write or time, a run goes on and ends as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("killed.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def killed(url: str, kills: int, *more: str, seed: int = 1) -> dict[str, Any]:
    """Kill runs so many times; what came of it."""
    where = "sqlite" if url.startswith("sqlite") else url
    command = [sys.executable, str(SCRIPT), where, str(kills), str(seed), *more]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=7_200)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "stderr": done.stderr[-2_000:]}


@pytest.mark.slow
def test_after_300_kills_all_runs_are_as_they_should_be() -> None:
    told = killed("sqlite", 300)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 300
    assert told["boundaries"] > 40
    assert told["whole"]


@pytest.mark.slow
def test_on_every_server_as_well(url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("see above")
    told = killed(url, 40)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 40


@pytest.mark.slow
def test_a_saver_that_promises_too_early_is_found_out() -> None:
    told = killed("sqlite", 40, "hasty")
    assert told["failures"] != []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_after_10_000_kills_all_runs_are_as_they_should_be(seed: int) -> None:
    told = killed("sqlite", 1_000, seed=seed + 100)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 1_000
    assert told["whole"]
