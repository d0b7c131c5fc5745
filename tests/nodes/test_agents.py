"""What makes an agent: a function, a graph."""

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from kapelle.drills import VirtualClock
from kapelle.graphs import pipeline
from kapelle.nodes.agent import agent, as_agent
from kapelle.state.errors import Misbuilt
from kapelle.state.task import Brief, Result, Task
from tests.nodes.conftest import Calls

TASK = Task(id="a", goal="work", inputs={"n": 1})
BRIEF = Brief(feedback=("well?",))


class Report(BaseModel):
    """A report."""

    title: str


# ── a function ────────────────────────────────────────────────────────────────────────────────


def test_a_plain_function_is_an_agent_named_as_it_is() -> None:
    @agent
    def search(task: Task) -> str:
        """Search the web."""
        return task.goal

    assert (search.card.name, search.card.description) == ("search", "Search the web.")
    assert search.card.skills == ()
    assert search.card.output is None


def test_an_agent_can_say_more_of_itself() -> None:
    @agent(name="scout", skills=["search.web"], description="Finds.", output=Report, tier="premium")
    def search(task: Task) -> str:
        """Search the web."""
        return task.goal

    card = search.card
    assert (card.name, card.skills, card.description) == ("scout", ("search.web",), "Finds.")
    assert (card.output, card.tier) == (Report, "premium")
    assert repr(search) == "<agent scout>"


def test_an_agent_is_still_the_function_it_was() -> None:
    @agent(name="scout")
    def search(task: Task) -> str:
        """Search the web."""
        return task.goal

    assert search(TASK) == "work"
    assert search.__doc__ == "Search the web."


def test_skills_must_be_a_list() -> None:
    with pytest.raises(Misbuilt, match=r"must be a list, like \['audit'\]"):
        agent(name="w", skills="audit")(lambda task: None)


def just_task(task: Task) -> list[object]:
    return [task.goal]


def second(task: Task, brief: Brief) -> list[object]:
    return [task.goal, brief.feedback]


def second_by_any_name(task: Task, b: Brief) -> list[object]:
    return [task.goal, b.feedback]


def with_default(task: Task, brief: Brief | None = None) -> list[object]:
    return [task.goal, brief and brief.feedback]


def keyword_only(task: Task, *, brief: Brief) -> list[object]:
    return [task.goal, brief.feedback]


def after_another_default(task: Task, limit: int = 5, brief: Brief | None = None) -> list[object]:
    return [task.goal, brief and brief.feedback] if limit == 5 else []


def another_default(task: Task, limit: int = 5) -> list[object]:
    return [task.goal] if limit == 5 else []


def any_number(*given: Task) -> list[object]:
    return [each.goal for each in given]


def any_name(task: Task, **more: Any) -> list[object]:
    return [task.goal, *more]


def placed_only(task: Task, brief: Brief, /) -> list[object]:
    return [task.goal, brief.feedback]


class Thing:
    """Has methods, and can be called itself."""

    def work(self, task: Task, brief: Brief) -> list[object]:
        """Do it."""
        return [task.goal, brief.feedback]

    async def __call__(self, task: Task, brief: Brief) -> list[object]:
        """Do it."""
        return [task.goal, brief.feedback]


BRIEFED = [second, second_by_any_name, with_default, keyword_only, after_another_default,
           placed_only, Thing().work, Thing(), functools.partial(second)]  # fmt: skip


@pytest.mark.parametrize("function", [just_task, another_default, any_number, any_name])
def test_a_function_that_asks_for_the_task_gets_the_task(
    called: Calls, function: Callable[..., object]
) -> None:
    assert called(agent(function), brief=BRIEF).output == ["work"]


@pytest.mark.parametrize("function", BRIEFED)
def test_a_function_that_asks_for_the_brief_gets_it_as_well(
    called: Calls, function: Callable[..., object]
) -> None:
    assert called(agent(name="w")(function), brief=BRIEF).output == ["work", ["well?"]]


@pytest.mark.parametrize(
    "function",
    [lambda: 1, lambda *, task: 1, lambda task, brief, more: 1, lambda task, *, more: 1,
     lambda brief: 1],
)  # fmt: skip
def test_a_function_that_cannot_be_called_as_an_agent_is_misbuilt(
    function: Callable[..., object],
) -> None:
    with pytest.raises(Misbuilt, match="must take the task"):
        agent(function)


def test_a_sync_function_runs_in_a_thread_and_the_loop_goes_on(called: Calls) -> None:
    ran_in, met = [], threading.Event()

    async def loop_goes_on() -> None:
        met.set()

    @agent
    def worker(task: Task, brief: Brief) -> bool:
        ran_in.append(threading.current_thread())
        asyncio.run_coroutine_threadsafe(loop_goes_on(), loop).result(10)
        return met.is_set()

    @agent
    async def starter(task: Task, brief: Brief) -> object:
        nonlocal loop
        loop = asyncio.get_running_loop()
        return await worker.act(task, brief)

    loop: Any = None
    assert called(starter).output is True
    assert ran_in[0] is not threading.current_thread()


def test_an_async_function_runs_on_the_loop(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert worker.where == "loop"
    assert called(worker).output is True


def test_sync_functions_run_at_the_same_time(called: Calls) -> None:
    both = threading.Barrier(2, timeout=60)

    @agent
    def worker(task: Task) -> bool:
        return both.wait() in (0, 1)

    @agent
    async def pair(task: Task) -> list[object]:
        return await asyncio.gather(*(worker.act(task, Brief()) for _ in range(2)))

    assert called(pair).output == [True, True]


# ── a graph ───────────────────────────────────────────────────────────────────────────────────


def test_a_graph_is_an_agent_of_the_name_it_is_given() -> None:
    inner = as_agent(pipeline([agent(just_task)]), name="inner", skills=["x"], description="D.")
    assert (inner.card.name, inner.card.skills, inner.card.description) == ("inner", ("x",), "D.")
    assert inner.where == "graph"
    assert repr(inner) == "<agent inner, a graph>"


def test_a_graph_is_given_what_its_task_needs_and_what_was_wrong(clock: VirtualClock) -> None:
    seen: list[Task] = []

    @agent
    async def stage(task: Task) -> str:
        seen.append(task)
        return "done"

    inner = as_agent(pipeline([stage]), name="inner")
    needed = Result(task="b", status="done", output=7)
    brief = Brief(results={"b": needed}, feedback=("too short",))
    result = clock.run(inner.act(TASK, brief))
    assert result.status == "done"
    assert seen[0].goal == "work"
    assert seen[0].inputs == {"n": 1, "results": {"b": 7}, "feedback": ["too short"]}


def test_a_graph_with_nothing_to_add_is_given_the_task_as_it_is(clock: VirtualClock) -> None:
    seen: list[Task] = []

    @agent
    async def stage(task: Task) -> None:
        seen.append(task)

    clock.run(as_agent(pipeline([stage]), name="inner").act(TASK, Brief()))
    assert seen[0].inputs == {"n": 1}
