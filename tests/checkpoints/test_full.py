"""A full disk: an error with a name, nothing corrupted, and the run goes on when there is room."""

import operator
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from sqlalchemy import event

from kapelle.checkpoints import Database
from kapelle.state.errors import DatabaseFailed

pytestmark = pytest.mark.anyio

CONFIG: Any = {"configurable": {"thread_id": "t1"}, "recursion_limit": 500}
STEPS = 100


class Grown(TypedDict, total=False):
    """What no compression makes small."""

    log: Annotated[list[bytes], operator.add]


def growing(begun: list[int]) -> StateGraph[Grown]:
    """Adds 20 kB a step."""

    def grow(state: Grown) -> Grown:
        begun.append(len(state["log"]))
        return {"log": [os.urandom(20_000)]}

    built = StateGraph(Grown)
    built.add_node("grow", grow)
    built.add_edge(START, "grow")
    built.add_conditional_edges(
        "grow", lambda state: END if len(state["log"]) == STEPS else "grow", ["grow", END]
    )
    return built


def whole(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        found: tuple[str] = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return found == ("ok",)


async def test_when_a_file_is_full_the_run_fails_by_name_and_goes_on_later(tmp_path: Path) -> None:
    path, begun, room = tmp_path / "full.db", list[int](), [300]
    async with Database(str(path)) as database:
        with database.connect() as connection:
            event.listen(
                connection.engine,
                "checkout",
                lambda c, *_: c.execute(f"PRAGMA max_page_count = {room[0]}"),
            )
        app = growing(begun).compile(checkpointer=database.saver)
        with pytest.raises(DatabaseFailed, match="full"):
            await app.ainvoke({"log": []}, CONFIG, durability="sync")
        assert whole(path)
        kept = await app.aget_state(CONFIG)
        room[0] = 100_000
        done = await app.ainvoke(None, CONFIG, durability="sync")
    assert done["log"][: len(kept.values["log"])] == kept.values["log"]
    assert len(done["log"]) == STEPS
    assert len(begun) <= STEPS + 1
    assert whole(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


async def test_the_same_on_a_disk_that_is_really_full(small_disk: Path) -> None:
    path, begun = small_disk / "full.db", list[int]()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_500_000)
    async with Database(str(path)) as database:
        app = growing(begun).compile(checkpointer=database.saver)
        with pytest.raises(DatabaseFailed, match=r"full|disk"):
            await app.ainvoke({"log": []}, CONFIG, durability="sync")
        kept = await app.aget_state(CONFIG)
        with pytest.raises(DatabaseFailed, match=r"full|disk"):
            await app.ainvoke(None, CONFIG, durability="sync")
    assert whole(path)
    ballast.unlink()
    make_room(small_disk)
    async with Database(str(path)) as database:
        app = growing(begun).compile(checkpointer=database.saver)
        done = await app.ainvoke(None, CONFIG, durability="sync")
    assert done["log"][: len(kept.values["log"])] == kept.values["log"]
    assert len(done["log"]) == STEPS
    assert whole(path)
