"""What `park` stands on: an interrupt without a question (LangGraph says never to raise it)."""

import gc
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, Send, interrupt

from kapelle.graphs import manager_worker
from kapelle.nodes.board import Board
from kapelle.nodes.gating import park
from kapelle.state.approval import Escalation
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio


def _union(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    return {**(old or {}), **(new or {})}


class Seen(TypedDict):
    """What was written."""

    seen: Annotated[dict[str, str], _union]


async def test_a_parked_node_lists_no_ask_writes_nothing_and_runs_again(saver: Saver) -> None:
    ran: list[str] = []
    answered: list[str] = []

    async def asks(state: Seen) -> dict[str, Any]:
        ran.append("asks")
        answered.append(interrupt("Well?"))
        return {"seen": {"asks": answered[0]}}

    async def parks(state: Seen) -> dict[str, Any]:
        ran.append("parks")
        if not answered:
            raise park()
        return {"seen": {"parks": "done"}}

    async def works(state: Seen) -> dict[str, Any]:
        ran.append("works")
        return {"seen": {"works": "done"}}

    async def after(state: Seen) -> dict[str, Any]:
        ran.append("after")
        return {}

    graph = StateGraph(Seen)
    for node in (asks, parks, works, after):
        graph.add_node(node.__name__, node)
    names = ["asks", "parks", "works"]
    graph.add_conditional_edges(START, lambda state: [Send(n, state) for n in names], names)
    for name in names:
        graph.add_edge(name, "after")
    graph.add_edge("after", END)
    compiled = graph.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "t1"}}

    final = await compiled.ainvoke({"seen": {}}, config, durability="sync")
    (ask,) = final["__interrupt__"]
    assert ask.value == "Well?"
    assert sorted(ran) == ["asks", "parks", "works"]

    kept = await saver.aget_tuple(config)
    assert kept is not None
    tasks = {task.name: task for task in (await compiled.aget_state(config)).tasks}
    assert tasks["parks"].interrupts == ()
    assert tasks["parks"].error is None
    written = {task for task, _, _ in kept.pending_writes or ()}
    assert tasks["parks"].id not in written, "nothing is written for it"
    assert tasks["works"].id in written

    ran.clear()
    final = await compiled.ainvoke(Command(resume={ask.id: "yes"}), config, durability="sync")
    assert "__interrupt__" not in final
    assert sorted(ran) in (["after", "asks", "parks"], ["after", "asks", "parks", "parks"])
    assert final["seen"] == {"asks": "yes", "parks": "done", "works": "done"}


async def test_a_step_of_parked_nodes_alone_ends_without_an_ask_and_stays_resumable(
    saver: Saver,
) -> None:
    ready: list[bool] = []

    async def parks(state: Seen) -> dict[str, Any]:
        if not ready:
            raise park()
        return {"seen": {"parks": "done"}}

    graph = StateGraph(Seen)
    graph.add_node("parks", parks)
    graph.add_edge(START, "parks")
    compiled = graph.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "t1"}}
    final = await compiled.ainvoke({"seen": {}}, config, durability="sync")
    assert not final.get("__interrupt__")
    assert (await compiled.aget_state(config)).next == ("parks",)
    ready.append(True)
    assert (await compiled.ainvoke(None, config))["seen"] == {"parks": "done"}


async def test_a_run_that_is_told_to_stop_finishes_what_is_begun_and_parks_the_rest(
    crew: Crew, saver: Saver
) -> None:
    control = RunControl()

    async def stops() -> str:
        control.request_drain()
        return "a"

    plan = [task("a"), task("b", "a"), task("c", "b")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker(a=stops)], policy=QUICK)
    run = Run(team, saver)
    given = {"task": run.task}
    final = await run.graph.ainvoke(
        given, run.config, context=run.services, durability="sync", control=control
    )
    assert not final.get("__interrupt__")
    assert final.get("result") is None
    assert crew.did == {"task": 1, "a": 1}
    run.final = await run.graph.ainvoke(None, run.config, context=run.services, durability="sync")
    assert run.result.output == "c(b)"
    assert crew.did == {"task": 1, "a": 1, "b": 1, "c": 1}


async def test_a_run_that_ended_leaves_no_board_behind(crew: Crew, memory: Saver) -> None:
    plan = [task("a"), task("b", "a")]
    worker = crew.worker(a=Escalation(question="Well?"))
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    gc.collect()
    before = _boards()
    await (await Run(team, memory).go()).answer()
    gc.collect()
    assert _boards() == before


def _boards() -> int:
    return sum(isinstance(thing, Board) for thing in gc.get_objects())
