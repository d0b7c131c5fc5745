"""What the tests of the command line look at."""

import time
from collections.abc import Callable

MOST = 240.0
"""Seconds that anything may take before a test gives up."""


def until(true: Callable[[], object], what: str) -> None:
    """Look until something is true."""
    deadline = time.monotonic() + MOST
    while not true():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)


def is_one_line(text: str) -> bool:
    """Whether an error is as errors here are."""
    return text.startswith("kapelle: ") and text.count("\n") == 1 and text.endswith("\n")
