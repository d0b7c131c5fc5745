"""A model agent carries out the tools its model calls, and tells the model what came of it."""

import asyncio
import threading
from collections.abc import Callable

import openai
import pytest
from langchain_core.tools import tool
from langgraph.errors import GraphInterrupt

from kapelle.drills import Call, Request, ServerError
from kapelle.nodes.agent import Unusable
from kapelle.nodes.model import ModelAgent
from kapelle.nodes.toolbox import MOST_CALLS, MOST_CHARS
from kapelle.state.errors import Misbuilt
from kapelle.state.task import Brief, Task

pytestmark = pytest.mark.anyio


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    if word == "unknown":
        raise KeyError(word)
    return f"{word} means something"


async def test_tools_are_called_and_their_results_told(scripted: Callable, task: Task) -> None:
    server = scripted([[Call("add", {"a": 1, "b": 2}), Call("look_up", {"word": "x"})], "done"])
    agent = ModelAgent("worker", server.model(), tools=[add, look_up])
    reply = await agent.act(task, Brief())
    assert reply.output == "done"
    assert list(server.requests[0].tools) == ["add", "look_up"]
    assert server.requests[1].tool_results == ["3", "x means something"]


async def test_usage_is_the_sum_of_all_steps_and_one_call(scripted: Callable, task: Task) -> None:
    server = scripted([Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4}), "it is 7"])
    usage = (await ModelAgent("worker", server.model(), tools=[add]).act(task, Brief())).usage
    words = [
        sum(len((m.get("content") or "").split()) for m in r.messages) for r in server.requests
    ]
    assert (usage.input_tokens, usage.calls) == (sum(words), 1)


async def test_tools_and_an_output_go_together(
    scripted: Callable, task: Task, report: type
) -> None:
    server = scripted([Call("add", {"a": 1, "b": 2}), report(title="Sum", pages=3)])
    agent = ModelAgent("worker", server.model(), tools=[add], output=report)
    assert (await agent.act(task, Brief())).output == report(title="Sum", pages=3)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (Call("look_up", {"word": "unknown"}), "KeyError: 'unknown'"),
        (Call("add", {"a": "one"}), "validation error"),
        (Call("remove", {}), "there is no tool 'remove'; there are: add, look_up"),
        (Call("add", '{"a": 1'), "not done: "),
    ],
)
async def test_what_goes_wrong_with_a_tool_is_told_to_the_model(
    scripted: Callable, task: Task, call: Call, told: str
) -> None:
    server = scripted([call, "never mind"])
    reply = await ModelAgent("worker", server.model(), tools=[add, look_up]).act(task, Brief())
    assert reply.output == "never mind"
    assert told in server.requests[1].tool_results[0]


async def test_a_model_that_never_stops_calling_is_stopped(scripted: Callable, task: Task) -> None:
    server = scripted(lambda _: Call("add", {"a": 1, "b": 2}))
    agent = ModelAgent("worker", server.model(), tools=[add], max_steps=3)
    with pytest.raises(Unusable, match="no answer within 3 steps") as caught:
        await agent.act(task, Brief())
    assert len(server.requests) == 3
    assert caught.value.usage.output_tokens > 0


async def test_a_try_stays_within_the_tokens_reserved_for_it(
    scripted: Callable, task: Task
) -> None:
    @tool
    def read() -> str:
        """Read a long page."""
        return "word " * 9_000

    agent = ModelAgent(
        "worker", scripted(lambda _: Call("read")).model(), tools=[read], max_tokens=50
    )
    with pytest.raises(Unusable, match="tokens reserved for one try") as caught:
        await agent.act(task, Brief())
    assert caught.value.usage.tokens <= agent.estimate(task, Brief()).tokens


async def test_a_tool_cannot_flood_the_prompt(scripted: Callable, task: Task) -> None:
    @tool
    def read() -> str:
        """Read a long page."""
        return "x" * (2 * MOST_CHARS)

    server = scripted([Call("read"), "done"])
    await ModelAgent("worker", server.model(), tools=[read]).act(task, Brief())
    (shown,) = server.requests[1].tool_results
    assert len(shown) < MOST_CHARS + 100
    assert shown.endswith(f"… (cut: {2 * MOST_CHARS} characters)")


async def test_the_number_of_calls_at_once_is_limited(scripted: Callable, task: Task) -> None:
    done: list[int] = []

    @tool
    async def count(i: int) -> str:
        """Count."""
        done.append(i)
        return "counted"

    calls = [Call("count", {"i": i}) for i in range(MOST_CALLS + 2)]
    server = scripted([calls, "done"])
    await ModelAgent("worker", server.model(), tools=[count]).act(task, Brief())
    assert len(done) == MOST_CALLS
    assert (
        server.requests[1].tool_results[-2:]
        == [f"not done: the limit is {MOST_CALLS} calls at once"] * 2
    )


async def test_sync_tools_do_not_block_the_event_loop(scripted: Callable, task: Task) -> None:
    here, there = threading.current_thread(), []
    loop, free = asyncio.get_running_loop(), threading.Event()

    @tool
    def wait() -> str:
        """Wait until the event loop had its turn."""
        there.append(threading.current_thread())
        loop.call_soon_threadsafe(free.set)
        return "free" if free.wait(60) else "blocked"

    server = scripted([Call("wait"), "done"])
    await ModelAgent("worker", server.model(), tools=[wait]).act(task, Brief())
    assert server.requests[1].tool_results == ["free"]
    assert there != [here]


async def test_tools_of_one_answer_work_at_the_same_time(scripted: Callable, task: Task) -> None:
    met = asyncio.Barrier(2)

    @tool
    async def meet() -> str:
        """Wait for another."""
        async with asyncio.timeout(60):
            await met.wait()
        return "met"

    server = scripted([[Call("meet"), Call("meet")], "done"])
    await ModelAgent("worker", server.model(), tools=[meet]).act(task, Brief())
    assert server.requests[1].tool_results == ["met", "met"]


async def test_an_interrupt_within_a_tool_is_no_error_of_it(scripted: Callable, task: Task) -> None:
    @tool
    async def ask() -> str:
        """Ask a person."""
        raise GraphInterrupt

    agent = ModelAgent("worker", scripted([Call("ask")]).model(), tools=[ask])
    with pytest.raises(GraphInterrupt):
        await agent.act(task, Brief())


async def test_an_error_of_the_provider_tells_what_earlier_steps_used(
    scripted: Callable, task: Task
) -> None:
    def answer(request: Request) -> object:
        return Call("add", {"a": 1, "b": 2}) if request.number == 1 else ServerError()

    agent = ModelAgent("worker", scripted(answer).model(), tools=[add])
    with pytest.raises(openai.InternalServerError) as caught:
        await agent.act(task, Brief())
    assert caught.value.usage.input_tokens > 0  # type: ignore[attr-defined]


def test_a_plain_function_is_a_tool(scripted: Callable) -> None:
    def search(query: str) -> str:
        """Search."""
        return query

    ModelAgent("worker", scripted([]).model(), tools=[search])


def test_a_function_without_a_docstring_is_no_tool(scripted: Callable) -> None:
    def search(query: str) -> str:
        return query

    with pytest.raises(Misbuilt, match=r"can't be a tool: .*docstring"):
        ModelAgent("worker", scripted([]).model(), tools=[search])


def test_two_tools_cannot_share_a_name(scripted: Callable) -> None:
    @tool("add")
    def other() -> str:
        """Another."""
        return ""

    with pytest.raises(Misbuilt, match="two tools are called 'add'"):
        ModelAgent("worker", scripted([]).model(), tools=[add, other])


def test_a_tool_cannot_have_the_outputs_name(scripted: Callable, report: type) -> None:
    @tool("Report")
    def other() -> str:
        """Another."""
        return ""

    with pytest.raises(Misbuilt, match="a tool can't be called 'Report'"):
        ModelAgent("worker", scripted([]).model(), tools=[other], output=report)
