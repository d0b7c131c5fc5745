"""A model agent asks a chat model over HTTP and gives back what it said, with what that cost."""

import asyncio
from collections.abc import Callable

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from pydantic import BaseModel

from kapelle import drills
from kapelle.nodes.agent import Unusable
from kapelle.nodes.model import ModelAgent
from kapelle.state.context import Claim
from kapelle.state.errors import Misbuilt
from kapelle.state.task import Brief, Plan, Task
from kapelle.state.verdict import Verdict

pytestmark = pytest.mark.anyio


async def test_without_an_output_it_answers_text(scripted: Callable, task: Task) -> None:
    server = scripted(["It was a dark night."])
    reply = await ModelAgent("writer", server.model()).act(task, Brief())
    assert reply.output == "It was a dark night."


async def test_usage_is_what_the_provider_reports(scripted: Callable, task: Task) -> None:
    server = scripted(["three little words"])
    usage = (await ModelAgent("writer", server.model()).act(task, Brief())).usage
    request = server.requests[0]
    told = len(request.system.split()) + len(request.prompt.split())
    assert (usage.input_tokens, usage.output_tokens, usage.calls) == (told, 3, 1)
    assert usage.micro_usd is None  # nobody said what a token costs


async def test_usage_is_estimated_if_the_provider_does_not_report_it(
    scripted: Callable, task: Task
) -> None:
    agent = ModelAgent("writer", scripted([drills.NoUsage("text " * 30)]).model())
    usage = (await agent.act(task, Brief())).usage
    assert usage.input_tokens == agent.estimate(task, Brief()).input_tokens
    assert usage.output_tokens >= 30


async def test_usage_is_there_when_langgraph_streams_the_tokens(
    scripted: Callable, task: Task
) -> None:
    server = scripted(["one two three"])
    reply = await ModelAgent("writer", server.model(streaming=True)).act(task, Brief())
    assert server.requests[0].streaming
    assert (reply.output, reply.usage.output_tokens) == ("one two three", 3)


async def test_with_an_output_it_answers_that_model(
    scripted: Callable, task: Task, report: type
) -> None:
    server = scripted([{"title": "Night", "pages": 3}])
    agent = ModelAgent("writer", server.model(), output=report)
    reply = await agent.act(task, Brief())
    assert reply.output == report(title="Night", pages=3)
    assert agent.card.output is report
    assert server.requests[0].body["tool_choice"] == "required"
    assert "calling `Report`" in server.requests[0].system


@pytest.mark.parametrize(
    "said", ['{"title": "Night"}', 'Here it is:\n```json\n{"title": "Night"}\n```']
)
async def test_json_written_as_text_will_do(
    scripted: Callable, task: Task, report: type, said: str
) -> None:
    reply = await ModelAgent("writer", scripted([said]).model(), output=report).act(task, Brief())
    assert reply.output == report(title="Night")


async def test_a_plan_and_a_verdict_are_outputs_like_any_other(
    scripted: Callable, task: Task
) -> None:
    plan = Plan(
        tasks=(Task(id="a", goal="A", inputs={"depth": 2}), Task(id="b", goal="B", needs=("a",)))
    )
    verdict = Verdict(decision="revise", redo={"a": "too short"})
    model = scripted([plan, verdict]).model()
    assert (await ModelAgent("p", model, output=Plan).act(task, Brief())).output == plan
    assert (await ModelAgent("j", model, output=Verdict).act(task, Brief())).output == verdict


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Sure! Here is your report.", r"no Report: .*text 'Sure! Here is your report\.'"),
        ({"title": ""}, "title: String should have at least 1 character"),
        ({"pages": 2}, "title: Field required"),
        (drills.Call("Report", '{"title": '), "no Report: "),
        ("", "no Report: "),
    ],
)
async def test_what_is_not_the_output_asked_for_is_unusable(
    scripted: Callable, task: Task, report: type, said: object, why: str
) -> None:
    agent = ModelAgent("writer", scripted([said]).model(), output=report)
    with pytest.raises(Unusable, match=why) as caught:
        await agent.act(task, Brief())
    assert caught.value.usage.input_tokens > 0


async def test_a_plan_that_is_no_dag_is_unusable_and_says_which_tasks(
    scripted: Callable, task: Task
) -> None:
    plan = {"tasks": [{"id": "a", "goal": "A", "needs": ["b"]}]}
    agent = ModelAgent("planner", scripted([plan]).model(), output=Plan)
    with pytest.raises(Unusable, match="task 'a' needs 'b', which is not in the plan"):
        await agent.act(task, Brief())


async def test_prose_is_repaired_when_the_feedback_is_told(
    scripted: Callable, task: Task, report: type
) -> None:
    server = scripted(["Sure!", {"title": "Night"}])
    agent = ModelAgent("writer", server.model(), output=report)
    with pytest.raises(Unusable) as caught:
        await agent.act(task, Brief())
    again = Brief(feedback=(str(caught.value),), attempt=2)
    assert (await agent.act(task, again)).output == report(title="Night")
    assert "it was the text 'Sure!'" in server.requests[1].prompt
    assert "it was the text 'Sure!'" not in server.requests[0].prompt


async def test_an_empty_text_is_unusable(scripted: Callable, task: Task) -> None:
    with pytest.raises(Unusable, match="empty"):
        await ModelAgent("writer", scripted([" "]).model()).act(task, Brief())


async def test_an_answer_that_was_cut_off_is_unusable(scripted: Callable, task: Task) -> None:
    agent = ModelAgent("writer", scripted([drills.Truncated("half")]).model(), max_tokens=9)
    with pytest.raises(Unusable, match="cut off at 9 tokens"):
        await agent.act(task, Brief())


async def test_the_limit_of_tokens_is_sent(scripted: Callable, task: Task) -> None:
    server = scripted(lambda _: "ok")
    await ModelAgent("a", server.model(), max_tokens=77).act(task, Brief())
    await ModelAgent("b", server.model(max_tokens=5), max_tokens=77).act(task, Brief())
    assert [r.body["max_completion_tokens"] for r in server.requests] == [77, 5]


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (drills.RateLimited(2), openai.RateLimitError, 429),
        (drills.ServerError(500), openai.InternalServerError, 500),
        (drills.ServerError(401), openai.AuthenticationError, 401),
        (drills.Cut(), openai.APIConnectionError, None),
        (drills.Garbage(), ValueError, None),
    ],
)
async def test_errors_of_the_provider_come_through_as_they_are(
    scripted: Callable, task: Task, fault: object, error: type, status: int | None
) -> None:
    with pytest.raises(error) as caught:
        await ModelAgent("writer", scripted([fault]).model()).act(task, Brief())
    assert getattr(caught.value, "status_code", None) == status


async def test_a_silent_model_waits_until_it_is_cancelled(scripted: Callable, task: Task) -> None:
    agent = ModelAgent("writer", scripted([drills.Slow()]).model())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.act(task, Brief()), 0.1)


async def test_confidence_and_claims_in_the_output_are_the_replys_own(
    scripted: Callable, task: Task
) -> None:
    class Finding(BaseModel):
        text: str
        confidence: float
        claims: tuple[Claim, ...] = ()

    finding = Finding(text="x", confidence=0.4, claims=(Claim(key="colour", value="red"),))
    agent = ModelAgent("finder", scripted([finding]).model(), output=Finding)
    reply = await agent.act(task, Brief())
    assert (reply.confidence, reply.claims) == (0.4, finding.claims)


async def test_the_estimate_covers_the_prompt_and_the_longest_answer(
    scripted: Callable, task: Task
) -> None:
    server = scripted(["ok"])
    agent = ModelAgent("writer", server.model(), max_tokens=1_000)
    told = agent.estimate(task, Brief())
    used = (await agent.act(task, Brief())).usage
    assert used.input_tokens <= told.input_tokens < 1_000
    assert (told.output_tokens, told.calls) == (1_000, 1)
    more = agent.estimate(task.model_copy(update={"goal": "long " * 3_000}), Brief())
    assert more.input_tokens > 4_000
    assert len(server.requests) == 1  # nothing was fetched to estimate


async def test_a_model_that_cannot_call_tools_is_shown_the_schema(task: Task, report: type) -> None:
    model = FakeListChatModel(responses=['{"title": "Night"}'])
    agent = ModelAgent("writer", model, output=report)
    assert (await agent.act(task, Brief())).output == report(title="Night")
    assert '"title"' in agent.messages(task, Brief())[0].text


async def test_a_model_that_cannot_call_tools_gets_none() -> None:
    def look() -> str:
        """Look."""
        return "seen"

    with pytest.raises(Misbuilt, match="the model of finder can't call tools"):
        ModelAgent("finder", FakeListChatModel(responses=[]), tools=[look])


def test_an_agent_works_in_one_event_loop_after_another(task: Task) -> None:
    with drills.LoopbackModel(lambda _: "ok", keep_alive=True) as server:
        agents = [ModelAgent(name, server.model()) for name in ("one", "two")]
        replies = [asyncio.run(agent.act(task, Brief())) for agent in agents * 3]
    assert [r.output for r in replies] == ["ok"] * 6


async def test_many_tasks_at_once_each_get_their_own_answer(scripted: Callable) -> None:
    server = scripted(lambda request: request.prompt.split()[-1])
    agent = ModelAgent("echo", server.model())
    tasks = [Task(id=f"t{i}", goal=f"say w{i}") for i in range(50)]
    replies = await asyncio.gather(*(agent.act(t, Brief()) for t in tasks))
    assert [r.output for r in replies] == [f"w{i}" for i in range(50)]


def test_skills_given_as_one_word_are_refused(scripted: Callable) -> None:
    with pytest.raises(Misbuilt, match=r"must be a list, like \['writing'\]"):
        ModelAgent("writer", scripted([]).model(), skills="writing")
