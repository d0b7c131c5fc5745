"""What all tests share."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.warm import Warm

# Always the same values, so that what failed once fails again; and none fails for a slow machine.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

SERVERS = {"PostgreSQL": "KAPELLE_TEST_POSTGRES", "MariaDB": "KAPELLE_TEST_MARIADB"}
"""Servers that tests use when a variable holds their URL."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """LangGraph runs on asyncio, so nothing is tested on trio."""
    return "asyncio"


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Begins processes that have imported everything."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    with Warm() as interpreter:
        yield interpreter


def pytest_collection_finish() -> None:
    """Have collections of garbage leave out what was imported: it stays for all tests."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly which servers nothing was tested on."""
    for server, variable in SERVERS.items():
        if not os.environ.get(variable):
            terminalreporter.write_line(
                f"NOT TESTED on {server}: {variable} is not set (.ci/run sets it)",
                yellow=True,
                bold=True,
            )
