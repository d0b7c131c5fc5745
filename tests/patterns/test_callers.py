"""Sync or async, streamed or not, in a running loop or not: it is the same run."""

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import agent, as_agent
from kapelle.nodes.pattern import CompiledPattern
from kapelle.state.approval import Approval, Escalation
from kapelle.state.event import Event
from kapelle.state.task import Task
from tests.patterns.simulated import QUICK, Crew, task

GIVEN = {"task": Task(goal="all of it")}

CONFIG: Any = {"configurable": {"thread_id": "t1"}}


@pytest.fixture
def team(crew: Crew) -> CompiledPattern:
    """Two parts, kept in memory."""
    plan = [task("a"), task("b", "a")]
    graph = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=QUICK)
    return graph.compile(checkpointer=InMemorySaver())


def test_sync_code_may_invoke(team: CompiledPattern) -> None:
    assert team.invoke(GIVEN, CONFIG)["result"].output == "b(a)"


def test_sync_code_may_invoke_inside_a_running_loop(team: CompiledPattern) -> None:
    async def cell() -> object:
        return team.invoke(GIVEN, CONFIG)["result"].output

    assert asyncio.run(cell()) == "b(a)"


def test_a_sync_agent_may_invoke_another_graph(crew: Crew) -> None:
    inner = pipeline([crew.worker("inner")], policy=QUICK).compile()

    @agent
    def outer(task: Task) -> object:
        return inner.invoke({"task": task})["result"].output

    assert pipeline([outer], policy=QUICK).compile().invoke(GIVEN)["result"].output == "inner()"


def _told(chunks: list[Any]) -> list[tuple[str, str, str]]:
    assert all(isinstance(chunk, Event) for chunk in chunks)
    return [(e.kind, e.what, e.task) for e in chunks]


EXPECTED = {
    ("choice", "planned", "task"),
    ("choice", "assigned", "a"),
    ("choice", "assigned", "b"),
    ("message", "request", "a"),
    ("message", "inform", "b"),
    ("attempt", "done", "a"),
    ("attempt", "done", "b"),
    ("run", "done", "task"),
}


def test_events_are_streamed_to_sync_callers(team: CompiledPattern) -> None:
    told = _told(list(team.stream(GIVEN, CONFIG, stream_mode="custom")))
    assert set(told) >= EXPECTED
    assert told[-1] == ("run", "done", "task")


@pytest.mark.anyio
async def test_events_are_streamed_to_async_callers(team: CompiledPattern) -> None:
    told = _told([c async for c in team.astream(GIVEN, CONFIG, stream_mode="custom")])
    assert set(told) >= EXPECTED


def test_a_stream_left_early_stops_the_run(team: CompiledPattern, crew: Crew) -> None:
    events = team.stream(GIVEN, CONFIG, stream_mode="custom")
    next(iter(events))
    events.close()  # type: ignore[attr-defined]
    assert crew.did["b"] == 0


def test_events_of_nested_graphs_are_streamed_with_subgraphs(crew: Crew) -> None:
    inner = as_agent(pipeline([crew.worker("stage")], policy=QUICK), name="inner")
    line = pipeline([inner], policy=QUICK).compile()
    seen = list(line.stream(GIVEN, stream_mode="custom", subgraphs=True))
    assert any(place and event.task == "stage" for place, event in seen)


def test_sync_code_may_answer(crew: Crew) -> None:
    ask = Escalation(question="Well?", evidence=1)
    line = pipeline([crew.worker("only", only=ask)], policy=QUICK)
    compiled = line.compile(checkpointer=InMemorySaver())
    (asked,) = compiled.invoke(GIVEN, CONFIG)["__interrupt__"]
    answer = Approval(decision="approve", by="ann").model_dump()
    assert compiled.invoke(Command(resume={asked.id: answer}), CONFIG)["result"].output == 1


def test_an_answer_of_the_wrong_shape_is_refused_and_the_ask_stays(crew: Crew) -> None:
    ask = Escalation(question="Well?", evidence=1)
    line = pipeline([crew.worker("only", only=ask)], policy=QUICK)
    compiled = line.compile(checkpointer=InMemorySaver())
    (asked,) = compiled.invoke(GIVEN, CONFIG)["__interrupt__"]
    with pytest.raises(Exception, match="decision"):
        compiled.invoke(Command(resume={asked.id: {"decision": "perhaps"}}), CONFIG)
    (again,) = compiled.invoke(None, CONFIG)["__interrupt__"]
    assert again.id == asked.id
    assert crew.did["only"] == 1


def test_the_steps_of_a_run_are_limited(team: CompiledPattern) -> None:
    with pytest.raises(Exception, match="limit of 2"):
        team.invoke(GIVEN, {**CONFIG, "recursion_limit": 2})
