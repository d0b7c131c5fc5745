"""Killed with SIGKILL at any write or time, a run goes on and ends as if nothing had been."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.warm import Warm

SCRIPT = Path(__file__).with_name("killed.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def killed(warm: Warm, url: str, kills: int, *more: str, seed: int = 1) -> dict[str, Any]:
    """Kill runs so many times; what came of it."""
    where = "sqlite" if url.startswith("sqlite") else url
    done = warm.finish(str(SCRIPT), where, str(kills), str(seed), *more, timeout=7_200)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "stderr": done.stderr[-2_000:]}


@pytest.mark.slow
def test_after_300_kills_all_runs_are_as_they_should_be(warm: Warm) -> None:
    told = killed(warm, "sqlite", 300)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 300
    assert told["boundaries"] > 40
    assert told["whole"]


@pytest.mark.slow
def test_on_every_server_as_well(warm: Warm, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("see above")
    told = killed(warm, url, 40)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 40


@pytest.mark.slow
def test_a_saver_that_promises_too_early_is_found_out(warm: Warm) -> None:
    told = killed(warm, "sqlite", 40, "hasty")
    assert told["failures"] != []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_after_10_000_kills_all_runs_are_as_they_should_be(warm: Warm, seed: int) -> None:
    told = killed(warm, "sqlite", 1_000, seed=seed + 100)
    assert told["failures"] == [], told["stderr"]
    assert told["kills"] >= 1_000
    assert told["whole"]
