"""Every ledger there is: in memory, and in SQL on each kind of database that is there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from kapelle.checkpoints import Database
from kapelle.nodes.in_memory import MemoryLedger
from kapelle.nodes.services import Ledger
from tests.checkpoints.conftest import VARIABLES, made, url_of

__all__ = ["made"]

Made = dict[str, str]

Ledgers = Callable[[], Ledger]


@pytest.fixture(params=["memory", "sqlite", *VARIABLES])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, made: Made) -> Iterator[Ledger]:
    """A ledger."""
    if request.param == "memory":
        yield MemoryLedger()
        return
    with Database(url_of(request.param, tmp_path, made)) as database:
        yield database.ledger


@pytest.fixture(params=["sqlite", *VARIABLES])
def ledgers(request: pytest.FixtureRequest, tmp_path: Path, made: Made) -> Iterator[Ledgers]:
    """Further ledgers on the same database, as further processes have them."""
    url = url_of(request.param, tmp_path, made)
    with ExitStack() as opened:
        yield lambda: opened.enter_context(Database(url)).ledger


@pytest.fixture
def book() -> str:
    """The name of a new book."""
    return f"t-{uuid4().hex}"
