"""Killed around an effect, a run goes on: what was written down is not repeated, doubt is asked."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kapelle import Database
from kapelle.drills import Call, Request
from tests.checkpoints.conftest import VARIABLES, made, url_of
from tests.warm import Warm

__all__ = ["made"]

SCRIPT = Path(__file__).with_name("killed_effects.py")
DOUBT = {"begun": 1, "sent": 1, "written": 0}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kind", ["sqlite", *VARIABLES])
def test_killed_around_an_effect_a_run_sends_one_mail(
    warm: Warm, kind: str, scripted: Callable, tmp_path: Path, made: dict[str, str]
) -> None:
    url = url_of(kind, tmp_path, made)
    Database(url).close()

    def answer(request: Request) -> Any:
        done = len(request.tool_results)
        return [Call("send_mail", {"to": "ann"}), Call("rest"), "sent"][done]

    server = scripted(answer)
    done = warm.finish(str(SCRIPT), server.url, str(tmp_path), url, timeout=1_200)
    assert done.returncode == 0, done.stderr
    for name, run in json.loads(done.stdout).items():
        graph, _, fatal = name.split(" ")
        told = (name, run, done.stderr)
        assert run["ended"] == [signal.SIGKILL, 0], told
        assert (run["sent"], run["status"]) == (["ann"], "done"), told
        asks = [ask.startswith("Did") for ask in run["asks"]]
        assert sum(asks) == DOUBT[fatal], told
        assert len(asks) - sum(asks) == (graph == "by_model"), told
    assert len(server.requests) == 3, "what the model had said was kept"
