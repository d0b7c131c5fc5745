"""Chat models are tested over real HTTP against the loopback server that ships in `drills`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from pydantic import BaseModel, Field

from kapelle.drills import LoopbackModel, Request
from kapelle.drills.answers import Answer
from kapelle.state.task import Task

Scripted = Callable[[Sequence[Answer] | Callable[[Request], Answer]], LoopbackModel]


class Report(BaseModel):
    """A report."""

    title: str = Field(min_length=1)
    pages: int = 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Starts loopback models, and closes them after the test."""
    with ExitStack() as running:
        yield lambda answers: running.enter_context(LoopbackModel(answers))


@pytest.fixture
def report() -> type[Report]:
    return Report


@pytest.fixture
def task() -> Task:
    return Task(id="write", goal="Write the report")
