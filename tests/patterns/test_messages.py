"""Agents that write to each other: counted, limited, delivered at the next step, read as data."""

from typing import Any

import pytest

from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import agent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.message import Channel, Message
from kapelle.state.policy import Policy
from kapelle.state.task import Reply, Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio


def writes(output: str, to: str, act: Any = "inform", **more: Any) -> Reply:
    """A reply with a message."""
    message = Message(receiver=to, performative=act, body=output, **more)
    return Reply(output=output, messages=(message,))


def two(crew: Crew, policy: Policy, one: dict[str, Any], other: dict[str, Any]) -> Pattern:
    """A coder and a tester."""
    return manager_worker(
        plan=crew.planner([task("code", agent="coder"), task("test", agent="tester")]),
        workers=[crew.worker("coder", **one), crew.worker("tester", **other)],
        policy=policy,
    )


TALK = QUICK.model_copy(update={"channels": (Channel(between=("coder", "tester")),)})


async def test_a_request_is_delivered_at_the_next_step_and_answered(
    crew: Crew, saver: Saver
) -> None:
    asks = writes("Rename it", "coder", "request", sender="boss")
    run = await Run(two(crew, TALK, {}, {"test": asks}), saver).go()
    first, second = crew.briefs["code"]
    assert (first.messages, first.peers) == ((), ("tester",))
    (letter,) = second.messages
    assert (letter.sender, letter.receiver, letter.task) == ("tester", "coder", "test")
    assert crew.did == {"code": 2, "test": 1, "task": 1}
    told = [e for e in await run.events() if e.kind == "message" and e.what == "request"]
    assert ("tester", "coder") in [(e.agent, e.data["to"]) for e in told]


async def test_who_has_no_channel_cannot_write(crew: Crew, memory: Saver) -> None:
    graph = two(crew, QUICK, {}, {"test": writes("psst", "coder", "request")})
    await Run(graph, memory).go()
    assert crew.did["code"] == 1
    assert crew.briefs["code"][0].peers == ()


FLOOD = Reply(output="x", messages=tuple(Message(receiver="coder", body=n) for n in range(12)))
ASKING = TALK.model_copy(update={"on_messages": "ask"})


async def test_messages_beyond_a_limit_are_missing_and_journaled(crew: Crew, memory: Saver) -> None:
    run = await Run(two(crew, TALK, {}, {"test": FLOOD}), memory).go()
    dropped = [e for e in await run.events() if e.what == "dropped"]
    assert [e.why for e in dropped] == ["a reply may have 10 messages"] * 2
    assert (run.result.status, run.result.missing) == ("partial", ("test/11@1", "test/12@1"))
    assert run.result.output == {"code": "code()", "test": "x"}
    assert run.result.failure is not None
    assert run.result.failure.kind == "messages"


async def test_a_person_lets_messages_beyond_a_limit_pass(crew: Crew, saver: Saver) -> None:
    flood = FLOOD.model_copy(
        update={"messages": (*FLOOD.messages, Message(receiver="coder", performative="request"))}
    )
    run = await Run(two(crew, ASKING, {}, {"test": flood}), saver).go()
    shown = run.asks["task"].value
    assert (shown.about, len(shown.evidence)) == ("messages", 3)
    assert shown.evidence[0] == {
        "id": "test/11@1", "from": "tester", "to": "coder", "body": "10",
        "why": "a reply may have 10 messages",
    }  # fmt: skip
    await run.answer()
    assert run.result.status == "done"
    assert len(crew.briefs["code"][1].messages) == 13, "all in one brief"


async def test_a_person_who_keeps_messages_back_is_asked_once(crew: Crew, memory: Saver) -> None:
    run = await Run(two(crew, ASKING, {}, {"test": FLOOD}), memory).go()
    await run.answer(decision="reject")
    assert (run.result.status, crew.did) == ("partial", {"code": 1, "test": 1, "task": 1})


async def test_agents_that_keep_writing_come_to_an_end(crew: Crew, memory: Saver) -> None:
    ping, pong = writes("ping", "tester", "request"), writes("pong", "coder", "request")
    run = await Run(two(crew, TALK, {"code": ping}, {"test": pong}), memory).go()
    assert run.result.status == "done"
    assert crew.did["code"] <= 1 + TALK.rounds
    assert crew.did["test"] <= 1 + TALK.rounds


# ── on a line ─────────────────────────────────────────────────────────────────────────────────

OPEN = QUICK.model_copy(update={"channels": (Channel(),)})


def line(crew: Crew, policy: Policy = OPEN, **stages: object) -> Pattern:
    """Stages, each with what it answers."""
    workers = [crew.worker(name, anything=answer) for name, answer in stages.items()]
    return pipeline(workers, policy=policy)


async def test_a_later_stage_reads_what_an_earlier_one_wrote_to_it(
    crew: Crew, saver: Saver
) -> None:
    first = writes("Mind the gap", "c", sender="boss", task="elsewhere")
    run = await Run(line(crew, a=first, b="-", c="-"), saver).go()
    assert [[m.body for m in crew.briefs[name][0].messages] for name in "abc"] == [
        [], [], ["Mind the gap"]
    ]  # fmt: skip
    (letter,) = crew.briefs["c"][0].messages
    assert (letter.sender, letter.task, crew.briefs["c"][0].peers) == ("a", "a", ("a", "b"))
    told = [(e.agent, e.data["to"]) for e in await run.events() if e.what == "inform"]
    assert told == [("a", "c")]
    assert (run.result.status, run.result.messages) == ("done", ())


async def test_a_request_calls_an_earlier_stage_back_and_all_behind_it_works_again(
    crew: Crew, saver: Saver
) -> None:
    asks = writes("Rename it", "b", "request")
    run = await Run(line(crew, a="-", b=["x", "y"], c=["-", "-"], d=[asks, "done"]), saver).go()
    assert crew.did == {"a": 1, "b": 2, "c": 2, "d": 2}
    assert [m.body for m in crew.briefs["b"][1].messages] == ["Rename it"]
    assert [b.results["b"].output for b in crew.briefs["d"]] == ["x", "y"]
    assert run.result.output == "done"
    assert [e.task for e in await run.events() if e.what == "reopened"] == ["b"]


async def test_whoever_works_later_as_well_is_not_called_back(crew: Crew, memory: Saver) -> None:
    asks = writes("Rename it", "a", "request")
    first, second = crew.worker("a", anything="-"), crew.worker("b", anything=asks)
    await Run(pipeline([first, second, first], policy=OPEN), memory).go()
    assert crew.did == {"a 1": 1, "b": 1, "a 2": 1}
    assert [m.body for m in crew.briefs["a 2"][0].messages] == ["Rename it"]


async def test_stages_that_keep_calling_each_other_come_to_an_end(
    crew: Crew, memory: Saver
) -> None:
    run = await Run(line(crew, a="-", b=writes("Again!", "a", "request")), memory).go()
    assert run.result.status == "done"
    assert crew.did["a"] == 1 + OPEN.rounds


async def test_a_stage_without_a_channel_cannot_write(crew: Crew, memory: Saver) -> None:
    graph = line(crew, TALK, a=writes("psst", "c"), b="-", c="-")
    run = await Run(graph, memory).go()
    assert crew.briefs["c"][0].messages == ()
    assert [e.why for e in await run.events() if e.what == "dropped"] == ["a may not write to c"]
    assert run.result.status == "done"


MANY = Reply(output="x", messages=tuple(Message(receiver="b", body=n) for n in range(12)))


async def test_messages_beyond_a_limit_are_missing_of_their_line(crew: Crew, memory: Saver) -> None:
    run = Run(line(crew, a=MANY, b="-"), memory)
    run.task = Task(goal="all", inputs={"items": [1, 2]})
    await run.go()
    assert run.result.status == "partial"
    assert run.result.missing == ("0/0/a/11@1", "0/0/a/12@1", "1/1/a/11@1", "1/1/a/12@1")
    assert run.result.failure is not None
    assert run.result.failure.kind == "messages"
    assert run.result.output == ["-", "-"]


@pytest.mark.parametrize(
    ("decision", "read", "status"), [("approve", 12, "done"), ("reject", 10, "partial")]
)
async def test_a_person_may_let_messages_of_a_stage_pass(
    crew: Crew, saver: Saver, decision: Any, read: int, status: str
) -> None:
    policy = OPEN.model_copy(update={"on_messages": "ask"})
    run = await Run(line(crew, policy, a=MANY, b="-"), saver).go()
    assert [ask.value.about for ask in run.asks.values()] == ["messages"]
    await run.answer(decision=decision)
    assert (run.result.status, len(crew.briefs["b"][0].messages)) == (status, read)
    assert crew.did == {"a": 1, "b": 1}


async def test_a_graph_finds_what_was_written_to_it_in_its_task(crew: Crew, memory: Saver) -> None:
    seen: list[object] = []

    @agent
    async def inside(task: Task) -> str:
        seen.append(task.inputs.get("messages"))
        return "-"

    inner = as_agent(pipeline([inside], policy=QUICK), name="inner")
    first = crew.worker("a", anything=writes("Mind the gap", "inner"))
    await Run(pipeline([first, inner], policy=OPEN), memory).go()
    assert seen == [[{"from": "a", "act": "inform", "task": "a", "body": "Mind the gap"}]]
