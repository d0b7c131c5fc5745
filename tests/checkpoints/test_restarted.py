"""PostgreSQL stopped and started in the middle of a run: it goes on, or fails and resumes."""

import operator
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from kapelle.checkpoints import Database, patience
from kapelle.state.approval import Approval
from kapelle.state.errors import DatabaseFailed, UnknownAsk
from kapelle.state.task import Task

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CONFIG: Any = {"configurable": {"thread_id": "t1"}, "recursion_limit": 200}
STEPS = 60


class Server:
    """A PostgreSQL of our own, which may be stopped; reached by a socket in its folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql+psycopg://postgres@/postgres?host={self._folder}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = f"-h '' -k {self._folder} -c shared_buffers=16MB"
        self._run("pg_ctl", "-w", "-l", f"{self._folder}/log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it as if the power had gone."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), *words, "-D", str(self._folder)]
        as_whom = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd="/", timeout=240, **out, **as_whom)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Server]:
    """A server for these tests alone."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (found[-1] if found else None)
    if initdb is None:
        pytest.skip("there is no initdb here, so no PostgreSQL that may be stopped")
    with tempfile.TemporaryDirectory() as name:
        if os.getuid() == 0:
            shutil.chown(name, pwd.getpwnam("postgres").pw_uid)
        server = Server(Path(initdb).parent, Path(name))
        yield server


@pytest.fixture
def server(cluster: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """It runs when a test begins, and is waited for however slowly it starts."""
    monkeypatch.setattr(patience, "PATIENCE", 120.0)
    cluster.start()
    yield cluster
    cluster.stop()


class Counted(TypedDict, total=False):
    """Which steps were done."""

    log: Annotated[list[int], operator.add]


def counting(meanwhile: Callable[[int], object]) -> StateGraph[Counted]:
    """Counts its steps; something happens meanwhile."""

    def count(state: Counted) -> Counted:
        meanwhile(len(state["log"]))
        return {"log": [len(state["log"])]}

    built = StateGraph(Counted)
    built.add_node("count", count)
    built.add_edge(START, "count")
    built.add_conditional_edges(
        "count", lambda state: END if len(state["log"]) == STEPS else "count", ["count", END]
    )
    return built


async def test_a_run_goes_on_when_the_server_was_restarted(server: Server) -> None:
    restarts: list[threading.Thread] = []

    def restart() -> None:
        server.stop()
        server.start()

    def meanwhile(step: int) -> None:
        if step in (10, 30):
            for before in restarts:
                before.join()
            restarts.append(threading.Thread(target=restart))
            restarts[-1].start()

    async with Database(server.url, tenant="goes on") as database:
        app = counting(meanwhile).compile(checkpointer=database.saver)
        done = await app.ainvoke({"log": []}, CONFIG, durability="sync")
        for thread in restarts:
            thread.join()
        assert done["log"] == [*range(STEPS)]
        assert (await app.aget_state(CONFIG)).values == done
        history = [s.values.get("log", []) async for s in app.aget_state_history(CONFIG)]
        assert [len(log) for log in history] == [*range(STEPS, -1, -1), 0]


async def test_a_run_whose_server_stays_away_fails_by_name_and_resumes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    def meanwhile(step: int) -> None:
        if step == 20 and not stopped:
            stopped.append(step)
            server.stop()

    async with Database(server.url, tenant="resumes") as database:
        app = counting(meanwhile).compile(checkpointer=database.saver)
        with monkeypatch.context() as hurried:
            hurried.setattr(patience, "PATIENCE", 0.2)
            with pytest.raises(DatabaseFailed):
                await app.ainvoke({"log": []}, CONFIG, durability="sync")
            with pytest.raises(DatabaseFailed):
                await database.inbox.pending()
        server.start()
        done = await app.ainvoke(None, CONFIG, durability="sync")
        assert done["log"] == [*range(STEPS)]


async def test_what_could_happen_twice_is_not_tried_again_but_told(server: Server) -> None:
    """Everything that is asked of it works again as soon as the server is back."""
    async with Database(server.url, tenant="told") as database:
        work: Any = {"graph": "g", "target": {}, "task": Task(goal="x")}
        await database.runs.open("t1", **work, holder="a", lease_seconds=30)
        server.stop()
        server.start()
        with pytest.raises(UnknownAsk):
            await database.inbox.claim("abc", Approval(decision="approve", by="ann"))
        assert (await database.runs.get("t1")).holder == "a"
        assert await database.runs.release("t1", "a", 1, status="waiting")
        database.store.put(("a",), "k", {"v": 1})
        assert database.store.get(("a",), "k") is not None
