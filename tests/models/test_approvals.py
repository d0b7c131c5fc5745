"""A model's tools with consequences: approved by a person, bound to what was shown, used once."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from pydantic import BaseModel

from kapelle.checkpoints import Database
from kapelle.drills import Call, LoopbackModel, Request
from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import as_agent
from kapelle.nodes.conversing import Conversing, gated
from kapelle.nodes.effect import NotDone, effect
from kapelle.nodes.model import ModelAgent
from kapelle.nodes.toolbox import consequential
from kapelle.state.ballot import Plurality
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task
from tests.patterns.simulated import Crew, Run
from tests.patterns.simulated import task as part

pytestmark = pytest.mark.anyio

POLICY = Policy(timeout=60, backoff=0, attempts=2)
ASKING = POLICY.model_copy(update={"approve_tools": ("send_*",)})


@pytest.fixture
def crew() -> Crew:
    """Agents without a model."""
    return Crew()


@pytest.fixture(params=["memory", "database", "official sqlite"])
async def saver(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path
) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """What runs are kept in."""
    if request.param == "memory":
        yield InMemorySaver()
        return
    if request.param == "official sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as official:
            yield official
        return
    async with Database(str(tmp_path / "runs.db")) as db:
        yield db.saver


class Office:
    """A mail tool and what it sent; the n-th sending may go wrong."""

    def __init__(self, *wrong: Exception | None) -> None:
        self.sent: list[tuple[str, str]] = []
        self.looked = 0
        self._wrong = list(wrong)

    @property
    def tools(self) -> list[BaseTool]:
        """What the model may call: one tool with consequences, one without."""

        @tool
        async def send_mail(to: str, text: str) -> str:
            """Send a mail."""
            self.sent.append((to, text))
            wrong = self._wrong.pop(0) if self._wrong else None
            if wrong is not None:
                raise wrong
            return f"receipt #{len(self.sent)}"

        @tool
        def look_up(name: str) -> str:
            """Look an address up."""
            self.looked += 1
            return f"{name}@example.org"

        return [send_mail, look_up]


def mail(to: str = "ann", text: str = "hello") -> Call:
    """A call of the mail tool."""
    return Call("send_mail", {"to": to, "text": text})


def in_team(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """As a worker."""
    return manager_worker(plan=crew.planner([part("a")]), workers=[worker], policy=policy)


def in_line(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """As a stage."""
    return pipeline([worker], policy=policy)


def in_swarm(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """As a peer."""
    return swarm([worker], rule=Plurality(), policy=policy)


def in_tree(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """As a leaf two levels down, beside another."""
    chart = {"inner": {"clerk": worker, "other": crew.worker("other")}}
    return hierarchy(chart, merge=dict, policy=policy)


def in_market(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """As who is awarded the task."""
    return marketplace([worker], policy=policy)


def deep_within(crew: Crew, worker: ModelAgent, policy: Policy) -> Any:
    """Deep within: the only stage of a line within a team within a line."""
    line = as_agent(pipeline([worker], policy=policy), name="inner")
    team = manager_worker(plan=crew.planner([part("a")]), workers=[line], policy=policy)
    return pipeline([as_agent(team, name="team")], policy=policy)


PATTERNS = [in_team, in_line, in_swarm, in_tree, in_market, deep_within]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
async def test_an_approved_call_is_made_once_and_the_model_goes_on(
    scripted: Callable, crew: Crew, saver: BaseCheckpointSaver[str], pattern: Any
) -> None:
    office = Office()
    server = scripted([Call("look_up", {"name": "ann"}), mail(), "I sent it."])
    run = Run(pattern(crew, ModelAgent("clerk", server.model(), tools=office.tools), ASKING), saver)
    await run.go()
    (ask,) = run.final["__interrupt__"]
    (action,) = ask.value.evidence["action_requests"]
    assert action["name"] == "send_mail"
    assert action["args"] == {"to": "ann", "text": "hello"}
    assert (ask.value.by, office.sent, office.looked) == ("clerk", [], 1)
    await run.answer()
    assert "I sent it." in str(run.result.output)
    assert (office.sent, office.looked) == ([("ann", "hello")], 1), "once, and nothing again"
    assert len(server.requests) == 3, "the conversation was not begun anew"
    assert server.requests[2].tool_results == ["ann@example.org", "receipt #1"]


ANSWERS: list[tuple[dict[str, Any], list[tuple[str, str]], str]] = [
    (
        {"decision": "edit", "value": {"to": "bob", "text": "hello"}},
        [("bob", "hello")],
        'ann changed the arguments to {"to": "bob", "text": "hello"}. receipt #1',
    ),
    (
        {"decision": "edit", "value": {"args": {"to": "bob", "text": "x"}}},
        [("bob", "x")],
        'ann changed the arguments to {"to": "bob", "text": "x"}. receipt #1',
    ),
    ({"decision": "edit", "value": "bob"}, [], "ann gave arguments that are no JSON object"),
    ({"decision": "edit", "value": {"to": 7}}, [], "ValidationError"),
    ({"decision": "reject", "reason": "too early"}, [], "ann rejected this call: too early"),
    ({"decision": "respond", "value": "she is away"}, [], "she is away"),
]


@pytest.mark.parametrize(("answer", "sent", "told"), ANSWERS)
async def test_what_a_person_says_is_what_the_model_is_told(
    scripted: Callable, crew: Crew, answer: dict[str, Any], sent: object, told: str
) -> None:
    office = Office()
    server = scripted([mail(), "very well"])
    worker = ModelAgent("clerk", server.model(), tools=office.tools)
    run = await Run(in_team(crew, worker, ASKING), InMemorySaver()).go()
    await run.answer(**answer)
    assert run.result.output == "very well"
    assert office.sent == sent
    assert told in server.requests[1].tool_results[0]


async def test_of_several_calls_each_is_answered_by_itself(
    scripted: Callable, crew: Crew, saver: BaseCheckpointSaver[str]
) -> None:
    office = Office()
    calls = [mail("ann"), Call("look_up", {"name": "x"}), mail("bob"), mail("cyd")]
    server = scripted([calls, "done"])
    worker = ModelAgent("clerk", server.model(), tools=office.tools)
    run = await Run(in_team(crew, worker, ASKING), saver).go()
    says = {"ann": "approve", "bob": "reject", "cyd": "approve"}
    while asks := run.final.get("__interrupt__"):
        assert office.sent == [], "nothing before all are answered"
        to = asks[0].value.evidence["action_requests"][0]["args"]["to"]
        run.final["__interrupt__"] = asks[:1]
        await run.answer(decision=says.pop(to))  # type: ignore[arg-type]
    assert sorted(office.sent) == [("ann", "hello"), ("cyd", "hello")]
    first, found, second, third = server.requests[1].tool_results
    assert (found, first[:7], third[:7]) == ("x@example.org", "receipt", "receipt")
    assert "rejected" in second


async def test_a_mark_on_the_tool_asks_without_a_policy(scripted: Callable, crew: Crew) -> None:
    office = Office()
    send, look = office.tools
    worker = ModelAgent(
        "clerk",
        scripted([mail(), "done"]).model(),
        tools=[consequential(approve=True)(send), look],
    )
    run = await Run(in_team(crew, worker, POLICY), InMemorySaver()).go()
    await run.answer()
    assert office.sent == [("ann", "hello")]


async def test_tools_without_consequences_need_no_gate() -> None:
    agent = ModelAgent("clerk", LoopbackModel([]).model(), tools=Office().tools)
    assert gated(agent, POLICY) is agent
    assert isinstance(gated(agent, ASKING), Conversing)


async def test_the_gate_is_in_the_drawing(crew: Crew) -> None:
    agent = ModelAgent("clerk", LoopbackModel([]).model(), tools=Office().tools)
    drawn = in_team(crew, agent, ASKING).compile().get_graph(xray=True)
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert ("clerk:think", "clerk:approve") in edges
    assert ("clerk:approve", "clerk:use") in edges


async def test_a_tool_in_doubt_asks_whether_it_happened(
    scripted: Callable, crew: Crew, saver: BaseCheckpointSaver[str]
) -> None:
    office = Office(TimeoutError("no answer"))
    server = scripted([mail(), "done"])
    send = consequential(office.tools[0])
    run = Run(in_team(crew, ModelAgent("clerk", server.model(), tools=[send]), POLICY), saver)
    await run.go()
    (ask,) = run.final["__interrupt__"]
    assert ask.value.question == "Did 'send_mail' happen?"
    await run.answer(decision="edit", value="it arrived")
    assert (run.result.output, len(office.sent)) == ("done", 1)
    assert server.requests[1].tool_results == ["it arrived"]


async def test_a_tool_that_surely_did_nothing_is_the_model_s_to_judge(
    scripted: Callable, crew: Crew
) -> None:
    office = Office(NotDone("the mail server is closed"))
    server = scripted([mail(), mail(), "done"])
    send = consequential(office.tools[0])
    run = Run(in_team(crew, ModelAgent("clerk", server.model(), tools=[send]), POLICY))
    await run.go()
    assert server.requests[2].tool_results == ["NotDone: the mail server is closed", "receipt #2"]


async def test_the_same_call_twice_in_one_conversation_is_two(
    scripted: Callable, crew: Crew
) -> None:
    office = Office()
    server = scripted([[mail(), mail()], mail(), "done"])
    send = consequential(office.tools[0])
    await Run(in_team(crew, ModelAgent("clerk", server.model(), tools=[send]), POLICY)).go()
    assert len(office.sent) == 3


async def test_another_agent_s_same_call_for_the_same_task_is_the_same(
    scripted: Callable, crew: Crew
) -> None:
    office = Office()
    send = consequential(office.tools[0])
    bad = ModelAgent("bad", scripted([mail()]).model(), tools=[send])  # then the script has run out
    good = ModelAgent("good", scripted([mail(), "done"]).model(), tools=[send])
    team = manager_worker(plan=crew.planner([part("a")]), workers=[bad, good], policy=POLICY)
    run = await Run(team).go()
    assert (run.result.output, len(office.sent)) == ("done", 1)


async def test_a_langchain_tool_can_have_effects_of_its_own(scripted: Callable, crew: Crew) -> None:
    sent: list[str] = []

    @tool
    def charge(customer: str) -> str:
        """Charge a customer."""
        return str(effect(f"charge:{customer}").once_sync(lambda: sent.append(customer) or "paid"))

    server = scripted(
        [Call("charge", {"customer": "7"}), Call("charge", {"customer": "7"}), "done"]
    )
    await Run(in_team(crew, ModelAgent("clerk", server.model(), tools=[charge]), POLICY)).go()
    assert sent == ["7"]
    assert server.requests[2].tool_results == ["paid", "paid"]


class Summary(BaseModel):
    """A summary."""

    sent: int
    confidence: float = 1.0


async def test_the_answer_proper_is_validated_repaired_and_paid_for(
    scripted: Callable, crew: Crew
) -> None:
    office = Office()

    def answers(request: Request) -> Any:
        said: Sequence[Any] = [
            mail(),
            Call("Summary", {"sent": "many"}),
            Summary(sent=1, confidence=0.8),
        ]
        return said[request.number - 1]

    server = scripted(answers)
    send = consequential(office.tools[0])
    worker = ModelAgent("clerk", server.model(), tools=[send], output=Summary)
    run = await Run(pipeline([worker], policy=POLICY)).go()
    assert run.result.output == {"sent": 1, "confidence": 0.8}
    assert run.result.confidence == 0.8
    assert "the answer is no Summary" in server.requests[2].prompt
    assert run.result.usage.calls == 3
    assert [a.failure.kind if a.failure else "" for a in run.result.attempts] == ["", "invalid", ""]


async def test_a_model_that_never_answers_is_stopped(scripted: Callable, crew: Crew) -> None:
    send = consequential(Office().tools[0])
    server = scripted(lambda request: mail(text=str(request.number)))
    worker = ModelAgent("clerk", server.model(), tools=[send], max_steps=3)
    run = await Run(pipeline([worker], policy=POLICY)).go()
    assert run.result.failure is not None
    assert "no answer within 3 steps" in run.result.failure.message


async def test_outside_of_a_pattern_no_tool_that_needs_approval_is_used(
    scripted: Callable, task: Task
) -> None:
    office = Office()
    server = scripted([mail(), "done"])
    send = consequential(approve=True)(office.tools[0])
    await ModelAgent("clerk", server.model(), tools=[send]).act(task, Brief())
    assert office.sent == []
    assert "a person must approve it" in server.requests[1].tool_results[0]
