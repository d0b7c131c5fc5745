"""A service in a process of its own, over HTTP, as its users meet it."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.warm import ROOT, Process, Warm

LONG = 240.0
"""Seconds after which a test no longer waits for what must happen."""


T = TypeVar("T")
Run = dict[str, Any]
"""A run as the service shows it."""


class Served:
    """A service in a process of its own, which can be ended and started again on the same port.

    The socket listens in the test's process, so that requests wait until the service answers.
    """

    def __init__(self, app: str, folder: Path, warm: Warm) -> None:
        self._warm = warm
        self._app = app
        self._folder = folder
        self._socket = socket.create_server(("127.0.0.1", 0))
        port = self._socket.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG)
        self._process = self._started()

    def restart(self, how: signal.Signals) -> None:
        """End the process and start another."""
        self.end(how)
        self._process = self._started()

    def end(self, how: signal.Signals) -> None:
        """End the process, and wait until it is gone."""
        self._process.send_signal(how)
        self._process.wait(LONG)
        self._process.close()

    def close(self) -> None:
        """End all."""
        self._process.close()
        self.client.close()
        self._socket.close()

    def start(self, task: str) -> Run:
        """Start a run; the run, once it is over or waits for a person."""
        answer = self.client.post("/runs", json={"task": task})
        assert answer.status_code == 202, answer.text
        return self.stopped(answer.json()["thread"])

    def answer(self, ask: str, decision: str = "approve", by: str = "ann") -> httpx.Response:
        """Answer an ask."""
        return self.client.post(f"/asks/{ask}", json={"decision": decision, "by": by})

    def run(self, thread: str) -> Run:
        """The run as it stands."""
        run: Run = self.client.get(f"/runs/{thread}").json()
        return run

    def stopped(self, thread: str) -> Run:
        """The run, once it is over or waits for a person."""
        return until(lambda: _unless(self.run(thread), "running"))

    def ended(self, thread: str) -> Run:
        """The run, once it is over."""
        return until(lambda: _unless(self.run(thread), "running", "waiting"))

    def _started(self) -> Process:
        number = self._socket.fileno()
        words = ["-m", "uvicorn", self._app, "--fd", str(number), "--log-level=error"]
        return self._warm.start(
            *words,
            cwd=self._folder,
            env={
                **os.environ,
                "KAPELLE_DB": str(self._folder / "service.db"),
                "PYTHONPATH": str(ROOT),
            },
            pass_fds=[number],
        )


def until(happened: Callable[[], T | None]) -> T:
    """What `happened` gives once it gives something."""
    deadline = time.monotonic() + LONG
    while not (outcome := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return outcome


def _unless(run: Run, *statuses: str) -> Run | None:
    return None if run["status"] in statuses else run
