"""Whoever drives a run keeps its lease as long as it lives."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kapelle import Database, Task, agent, arun
from kapelle.graphs import pipeline

LEASE = 0.3
MOST = 600


@pytest.fixture
def failures() -> Iterator["asyncio.Queue[str]"]:
    """What the framework warns of."""
    warnings: asyncio.Queue[str] = asyncio.Queue()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.put_nowait(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("kapelle")
    logger.addHandler(handler)
    yield warnings
    logger.removeHandler(handler)


def renamed(db: Database, old: str, new: str) -> None:
    """Give a table another name."""
    with db.connect() as connection, connection.begin():
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


@pytest.mark.anyio
async def test_a_lease_that_could_not_be_renewed_once_is_renewed_later(
    tmp_path: Path, failures: "asyncio.Queue[str]"
) -> None:
    database = Database(str(tmp_path / "lease.db"))

    @agent
    async def outlast(task: Task) -> str:
        renamed(database, "kapelle_runs", "elsewhere")
        try:
            warned = await failures.get()
        finally:
            renamed(database, "elsewhere", "kapelle_runs")
        before = (await database.runs.get("t")).lease_until
        while (await database.runs.get("t")).lease_until == before:  # noqa: ASYNC110  # a row tells nobody
            await asyncio.sleep(0)
        return warned

    with database:
        async with asyncio.timeout(MOST):
            run = await arun(pipeline([outlast]), "Work", db=database, thread="t", lease=LEASE)
    assert run.result is not None
    assert run.status == "done"
    assert "the lease of thread t could not be renewed" in str(run.result.output)
