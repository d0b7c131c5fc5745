"""`cpu=True`: work in another process, where the function can be found again."""

import asyncio
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from kapelle.graphs import manager_worker
from kapelle.nodes import elsewhere
from kapelle.nodes.agent import agent
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task

pytestmark = pytest.mark.anyio


@agent(cpu=True)
def far(task: Task, brief: Brief) -> list[object]:
    return [os.getpid(), task.goal, brief.attempt]


class Odd(Exception):
    """An error pickle can write and not read."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)
        self.code = code


@agent(cpu=True)
def breaks(task: Task) -> None:
    raise Odd("odd", 3)


@agent(cpu=True)
def dies(task: Task) -> None:
    os._exit(3)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator such as people write."""

    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> list[object]:
        return ["traced", function(*given, **named)]

    return wrapper


@agent(cpu=True)
@traced
def wrapped(task: Task) -> int:
    return os.getpid()


async def test_it_works_in_another_process_with_task_and_brief() -> None:
    assert far.where == "process"
    pid, goal, attempt = await far.act(Task(goal="work"), Brief(attempt=2))  # type: ignore[misc]
    assert pid != os.getpid()
    assert (goal, attempt) == ("work", 2)

    word, pid = await wrapped.act(Task(goal="work"), Brief())  # type: ignore[misc]
    assert word == "traced", "the decorator comes along"
    assert pid != os.getpid()

    with pytest.raises(RuntimeError, match="Odd: odd"):
        await breaks.act(Task(goal="work"), Brief())
    with pytest.raises(RuntimeError, match="its worker process died"):
        await dies.act(Task(goal="work"), Brief())
    assert (await far.act(Task(goal="again"), Brief()))[1] == "again"  # type: ignore[index]


@agent(cpu=True)
def slow(task: Task) -> int:
    deadline = time.monotonic() + float(task.inputs["seconds"])  # type: ignore[arg-type]
    while time.monotonic() < deadline:
        pass
    return os.getpid()


def test_in_a_notebook_s_loop_no_cell_and_no_node_takes_the_workers_of_another_with_it() -> None:
    """Its loop runs for ever, without a task at its root."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def cell() -> object:
        policy = Policy(attempts=1, backoff=0)
        parts = [Task(id=str(n), goal="x", inputs={"seconds": n / 2}) for n in range(2)]
        team = manager_worker(plan=agent(name="plan")(lambda task: parts), workers=[slow],
                              policy=policy)  # fmt: skip
        return (await team.compile().ainvoke({"task": Task(goal="work")}))["result"]

    try:
        for _ in range(2):
            made = asyncio.run_coroutine_threadsafe(cell(), loop).result(240)
            assert made.status == "done", made  # type: ignore[attr-defined]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Thing:
    """Has a method."""

    def work(self, task: Task) -> str:
        """Do it."""
        return threading.current_thread().name


def test_what_cannot_be_found_from_another_process_falls_back_to_a_thread() -> None:
    def closure(task: Task) -> None:
        return

    namespace: dict[str, Any] = {}
    exec(compile("def cell(task): return 1", "<ipython-input-1>", "exec"), namespace)  # noqa: S102
    for function in (closure, lambda task: 1, namespace["cell"], Thing().work,
                     functools.partial(closure), len):  # fmt: skip
        assert agent(name="w", cpu=True)(function).where == "thread"
        with pytest.raises(elsewhere.NoAddress):
            elsewhere.address(function)


async def test_work_that_fell_back_is_done_all_the_same() -> None:
    name = await agent(name="w", cpu=True)(Thing().work).act(Task(goal="work"), Brief())
    assert name != threading.main_thread().name


def test_async_functions_stay_on_the_loop() -> None:
    @agent(cpu=True)
    async def worker(task: Task) -> None:
        return

    assert worker.where == "loop"


def test_a_module_is_taken_from_its_file_if_another_has_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "json.py"
    mine.write_text("def answer(): return 42\n")
    assert elsewhere.perform(("json", str(mine.resolve()), "answer"), (), {}) == 42
    import json  # noqa: PLC0415

    assert hasattr(json, "loads"), "the other is as it was"


SCRIPT = dedent(
    """
    import os
    from pydantic import BaseModel
    from kapelle.graphs import pipeline
    from kapelle.nodes.agent import agent
    from kapelle.state.policy import Policy
    from kapelle.state.task import Task

    class Report(BaseModel):
        pid: int

    @agent(cpu=True, output=Report)
    def work(task):
        return Report(pid=os.getpid())

    def main():
        final = pipeline([work], policy=Policy(attempts=1)).compile().invoke(
            {"task": Task(goal="work")}
        )
        result = final["result"]
        print(result.failure.message if result.failure else result.output["pid"] != os.getpid())

    """
)


GUARDED = f'{SCRIPT}if __name__ == "__main__":\n    main()\n'

LOADER = dedent(
    """
    import importlib.util, sys

    if __name__ == "__main__":
        spec = importlib.util.spec_from_file_location("a_target", sys.argv[1])
        module = sys.modules["a_target"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main()
    """
)
"""Loads a file by its path, as a command line does."""


ENDLESS = dedent(
    """
    import asyncio, threading
    from kapelle.graphs import pipeline
    from kapelle.nodes.agent import agent
    from kapelle.state.policy import Policy
    from kapelle.state.task import Task

    @agent
    def never(task):
        threading.Event().wait()

    async def main():
        team = pipeline([never], policy=Policy(attempts=1, timeout=0.1)).compile()
        return (await team.ainvoke({"task": Task(goal="work")}))["result"]

    if __name__ == "__main__":
        print(asyncio.run(main()).failure.kind)
    """
)


SCRIPTS = {
    "endless": ENDLESS,
    "guarded": GUARDED,
    "by path": LOADER,
    "unguarded": f"{SCRIPT}main()\n",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Each script in a process, all at once."""
    folder = tmp_path_factory.mktemp("scripts")
    target = folder / "target.py"
    target.write_text(SCRIPT)
    with ExitStack() as running:
        started = {}
        for name, text in SCRIPTS.items():
            script = folder / f"{name}.py"
            script.write_text(text)
            command = [sys.executable, str(script), str(target)]
            started[name] = running.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            )
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guarded", "by path"])
def test_models_of_a_script_and_of_a_file_loaded_by_its_path_come_back(
    scripts: dict[str, subprocess.Popen[str]], name: str
) -> None:
    said, _ = scripts[name].communicate(timeout=240)
    assert said.strip() == "True"


@pytest.mark.slow
def test_a_script_that_starts_a_run_when_imported_is_told_so(
    scripts: dict[str, subprocess.Popen[str]],
) -> None:
    said, _ = scripts["unguarded"].communicate(timeout=240)
    assert said.strip() == (
        'work raised Misbuilt: put what starts a run under `if __name__ == "__main__":`'
    )


@pytest.mark.slow
def test_a_sync_agent_that_never_returns_does_not_keep_a_program_from_ending(
    scripts: dict[str, subprocess.Popen[str]],
) -> None:
    said, _ = scripts["endless"].communicate(timeout=240)
    assert said.strip() == "timeout"
