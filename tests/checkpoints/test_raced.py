"""Of many processes that advance one thread at once one goes on; nothing is done or kept twice."""

import json
import os
from typing import Any

import pytest

from tests.warm import Warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def raced(warm: Warm, url: str, many: int) -> dict[str, Any]:
    """Each race once: what the processes were told, and what was begun how often."""
    where = "sqlite" if url.startswith("sqlite") else url
    done = warm.finish("-m", "tests.checkpoints.raced", where, str(many), timeout=1_200)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert [race.pop("failed") for race in told.values()] == [[], [], []], done.stderr
    return told


def as_it_should_be(told: dict[str, Any], many: int) -> None:
    """One goes on, the others are told so, and what follows happens once."""
    assert told["resume"]["told"] == {"waiting": 1, "ThreadBusy": many - 1}
    assert set(told["resume"]["begun"].values()) == {1}
    assert told["answer"] == {
        "told": {"done": 1, "AlreadyAnswered": many - 1},
        "begun": {"last": 1},
    }
    # LangGraph alone has no lease: all are at work, and the database takes what one of them did
    assert told["bare"] == {"told": {"done": 1, "ThreadBusy": many - 1}, "begun": {"last": 1}}


@pytest.mark.slow
def test_of_many_who_resume_a_thread_or_answer_an_ask_one_goes_on(warm: Warm, url: str) -> None:
    as_it_should_be(raced(warm, url, 5), 5)


@pytest.mark.soak
@pytest.mark.parametrize("many", [2, 4, 8, 16])
def test_the_same_with_any_number_and_many_times(warm: Warm, url: str, many: int) -> None:
    for _ in range(16):
        as_it_should_be(raced(warm, url, many), many)
