"""What runs are kept in: LangGraph's saver in memory, ours, and the official one for SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from kapelle.checkpoints import Database
from tests.patterns.simulated import Crew

Saver = BaseCheckpointSaver[str]


@pytest.fixture
def crew() -> Crew:
    """Agents without a script yet."""
    return Crew()


@pytest.fixture
def memory() -> Saver:
    """The saver that forgets."""
    return InMemorySaver()


@pytest.fixture(params=["memory", "database", "official sqlite"])
async def saver(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path
) -> AsyncIterator[Saver]:
    """Each saver in turn."""
    if request.param == "memory":
        yield InMemorySaver()
    elif request.param == "database":
        async with Database(str(tmp_path / "runs.db")) as db:
            yield db.saver
    else:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as official:
            yield official
