"""What runs are kept in: LangGraph's savers in memory and for SQLite, and ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from kapelle.checkpoints import Database
from tests.checkpoints.conftest import VARIABLES, made, url_of
from tests.patterns.simulated import Crew

__all__ = ["made"]

Saver = BaseCheckpointSaver[str]


@pytest.fixture
def crew() -> Crew:
    """Agents without a script yet."""
    return Crew()


@pytest.fixture
def memory() -> Saver:
    """The saver that forgets."""
    return InMemorySaver()


OFFICIAL = "official sqlite"


@pytest.fixture(params=["memory", "sqlite", pytest.param(OFFICIAL, marks=pytest.mark.soak)])
async def saver(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path, made: dict[str, str]
) -> AsyncIterator[Saver]:
    """One that forgets and one that does not, for all that is the same with each."""
    async with _opened(request.param, tmp_path, made) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite", OFFICIAL, *VARIABLES])
async def everywhere(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path, made: dict[str, str]
) -> AsyncIterator[Saver]:
    """Each saver in turn; on a server's, every test is a tenant of its own."""
    async with _opened(request.param, tmp_path, made) as opened:
        yield opened


@asynccontextmanager
async def _opened(kind: str, folder: Path, made: dict[str, str]) -> AsyncIterator[Saver]:
    if kind == "memory":
        yield InMemorySaver()
    elif kind == OFFICIAL:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as official:
            yield official
    else:
        async with Database(url_of(kind, folder, made), tenant=uuid4().hex) as db:
            yield db.saver
