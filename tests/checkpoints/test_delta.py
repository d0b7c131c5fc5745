"""Delta channels: what ours finds in a few queries is what LangGraph's own walk finds."""

from itertools import chain
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph

from kapelle.checkpoints import Database, delta

pytestmark = pytest.mark.anyio


def extend(old: Any, new: Any) -> list[str]:
    return [*old, *chain(*new)]


class State(TypedDict, total=False):
    """Two logs of which only the changes are stored, with different snapshots, and a count."""

    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]
    rare: Annotated[list[str], DeltaChannel(extend)]
    count: int


def graph() -> StateGraph[State]:
    def step(state: State) -> State:
        number = state.get("count", 0) + 1
        told: State = {"count": number, "log": [str(number)]}
        return {**told, "rare": [str(number)]} if number % 3 == 0 else told

    def beside(state: State) -> State:
        return {"log": [f"beside {state.get('count', 0)}"]}

    built = StateGraph(State)
    built.add_node("step", step)
    built.add_node("beside", beside)
    built.add_edge(START, "step")
    built.add_edge("step", "beside")
    built.add_conditional_edges(
        "beside", lambda s: "step" if s["count"] % 15 else END, ["step", END]
    )
    return built


CONFIG: Any = {"configurable": {"thread_id": "t1"}}


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_every_checkpoint_has_the_history_langgraph_would_walk_to(
    database: Database, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "PAGE", page)
    app = graph().compile(checkpointer=database.saver)
    await app.ainvoke({"log": ["given"]}, CONFIG)
    configs = [found.config async for found in database.saver.alist(CONFIG)]
    await app.ainvoke({"log": ["branch"]}, configs[7])
    configs += [found.config async for found in database.saver.alist(CONFIG, limit=3)]
    for config in [CONFIG, *configs[::4]]:
        asked: Any = {"config": config, "channels": ["log", "rare", "count", "absent"]}
        walked = await BaseCheckpointSaver.aget_delta_channel_history(database.saver, **asked)
        assert await database.saver.aget_delta_channel_history(**asked) == walked
        assert database.saver.get_delta_channel_history(**asked) == walked


async def test_nothing_is_read_for_no_channels_and_unknown_threads(database: Database) -> None:
    saver = database.saver
    assert saver.get_delta_channel_history(config=CONFIG, channels=[]) == {}
    found = await saver.aget_delta_channel_history(config=CONFIG, channels=["log"])
    assert found == {"log": {"writes": []}}
