"""What `park` stands on: an interrupt without a question (LangGraph says never to raise it)."""

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from kapelle.nodes.gating import park
from tests.patterns.conftest import Saver

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
