"""Whoever serves the same database goes on with what another process left behind."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from kapelle import Database, Runs, Task, agent
from kapelle.graphs import pipeline
from kapelle.runs import Graph


@agent
def double(task: Task) -> str:
    """A team's work."""
    return task.goal * 2


GRAPHS: dict[str, Graph] = {"team": pipeline([double])}


def misfit() -> Graph:
    """A graph that takes messages, not a task."""
    graph: Graph = StateGraph(MessagesState)
    graph.add_node("listen", lambda state: {})
    graph.add_edge(START, "listen")
    return graph


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh database."""
    with Database(str(tmp_path / "recover.db")) as opened:
        yield opened


async def left_behind(database: Database, thread: str, graph: str = "team") -> None:
    """A run whose process died at once."""
    opened = await database.runs.open(
        thread,
        graph=graph,
        target={},
        task=Task(goal=thread),
        holder="a process that died",
        lease_seconds=-1,
    )
    assert opened.status == "running"


@pytest.mark.anyio
async def test_a_run_that_was_left_behind_is_finished(database: Database) -> None:
    await left_behind(database, "ab")
    [run] = await Runs(database, GRAPHS).recover()
    assert (run.thread, run.result and run.result.output) == ("ab", "abab")


@pytest.mark.anyio
async def test_processes_that_recover_at_once_share_the_work_and_none_fails(
    database: Database,
) -> None:
    threads = [f"thread-{n}" for n in range(5)]
    for thread in threads:
        await left_behind(database, thread)
    fronts = [Runs(database, GRAPHS) for _ in range(3)]
    shares = await asyncio.gather(*(front.recover() for front in fronts))
    assert {run.thread for share in shares for run in share} == set(threads)
    for thread in threads:
        events = await database.journal.read(thread)
        assert [e.agent for e in events if e.kind == "attempt"] == ["double"]


@pytest.mark.anyio
async def test_a_run_that_can_not_go_on_holds_up_no_other(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await left_behind(database, "broken", graph="no-such-input")
    await left_behind(database, "whole")
    graphs = {**GRAPHS, "no-such-input": misfit()}
    assert [run.thread for run in await Runs(database, graphs).recover()] == ["whole"]
    assert "broken" in caplog.text


@pytest.mark.anyio
async def test_runs_of_graphs_that_are_not_served_here_are_left_alone(database: Database) -> None:
    await left_behind(database, "foreign", graph="elsewhere")
    assert await Runs(database, GRAPHS).recover() == []
    assert (await database.runs.get("foreign")).status == "running"
