"""What these tests stand on: a fresh database each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.checkpoints import Database


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a fresh database can be made."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A fresh database."""
    with Database(url) as opened:
        yield opened
