"""Which model an agent asks: by tier, role and task; another one where it is down."""

from collections.abc import Callable

import openai
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from kapelle.drills import Call, Garbage, LoopbackModel, RateLimited, ServerError
from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.model import ModelAgent, cascade
from kapelle.nodes.tiers import Tiers
from kapelle.nodes.toolbox import consequential
from kapelle.state.errors import NoModel
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Plan, Task
from kapelle.state.verdict import Verdict
from tests.patterns.simulated import Crew, Run
from tests.patterns.simulated import task as part

pytestmark = pytest.mark.anyio


class Guess(BaseModel):
    """A guess."""

    answer: str
    confidence: float


@pytest.fixture
def crew() -> Crew:
    """Agents without a model."""
    return Crew()


def tiers_of(*servers: LoopbackModel) -> Tiers:
    """Three tiers, a server each."""
    economy, standard, premium = (s.model(model=f"m{n}") for n, s in enumerate(servers))
    return Tiers(economy=economy, standard=standard, premium=premium)


@pytest.mark.parametrize(
    ("settings", "tier"),
    [
        ({"skills": ["research.web"]}, "economy"),
        ({"skills": ["formatting"]}, "economy"),
        ({"skills": ["writing"]}, "standard"),
        ({"skills": ["research", "writing"]}, "standard"),
        ({}, "standard"),
        ({"skills": ["synthesis"]}, "premium"),
        ({"output": Plan}, "premium"),
        ({"output": Verdict}, "premium"),
        ({"skills": ["research"], "tier": "premium"}, "premium"),
    ],
)
def test_an_agent_has_the_tier_its_role_needs(
    scripted: Callable, settings: dict, tier: str
) -> None:
    server = scripted([])
    agent = ModelAgent("worker", tiers_of(server, server, server), **settings)
    assert agent.card.tier == tier
    assert agent.model.model_name == f"m{['economy', 'standard', 'premium'].index(tier)}"  # type: ignore[attr-defined]


async def test_a_task_s_own_tier_decides(scripted: Callable, crew: Crew) -> None:
    servers = [scripted(["by m0"]), scripted(["by m1"]), scripted(["by m2"])]
    worker = ModelAgent("worker", tiers_of(*servers))
    plan = crew.planner([part("a", tier="economy"), part("b"), part("c", tier="premium")])
    run = await Run(manager_worker(plan=plan, workers=[worker])).go()
    assert run.result.output == {"a": "by m0", "b": "by m1", "c": "by m2"}
    models = {e.task: e.data["model"] for e in await run.events() if "model" in e.data}
    assert models == {"a": "m0", "b": "m1", "c": "m2"}


async def test_a_cascade_asks_the_dear_model_only_in_doubt(scripted: Callable, crew: Crew) -> None:
    sure = Guess(answer="cheap", confidence=0.9)
    cheap = scripted(lambda r: sure if "do easy" in r.prompt else Guess(answer="?", confidence=0.2))
    dear = scripted([Guess(answer="dear", confidence=0.95)])
    tiers = Tiers(economy=cheap.model(), premium=dear.model())
    workers = cascade("guesser", tiers, output=Guess)
    assert [w.card.name for w in workers] == ["guesser-economy", "guesser-premium"]
    plan = crew.planner([part("easy"), part("hard")])
    team = manager_worker(plan=plan, workers=workers, policy=Policy(min_confidence=0.5))
    output: dict = (await Run(team).go()).result.output  # type: ignore[assignment]
    assert {t: o["answer"] for t, o in output.items()} == {"easy": "cheap", "hard": "dear"}
    assert (len(cheap.requests), len(dear.requests)) == (2, 1)
    assert "only 20% sure" in dear.requests[0].prompt


@pytest.mark.parametrize("down", [ServerError(), RateLimited(), Garbage(), ServerError(503)])
async def test_another_provider_answers_where_one_is_down(
    scripted: Callable, task: Task, down: object
) -> None:
    sick, well = scripted([down]), scripted(["first", "second"])
    worker = ModelAgent("worker", [sick.model(model="a"), well.model(model="b")])
    reply = await worker.act(task, Brief())
    assert (reply.output, reply.model) == ("first", "b")
    assert (await worker.act(task, Brief())).output == "second"
    assert len(sick.requests) == 1, "it rests for a while"


async def test_a_request_that_is_wrong_is_not_sent_to_another(
    scripted: Callable, task: Task
) -> None:
    first, second = scripted([ServerError(400)]), scripted(["never"])
    worker = ModelAgent("worker", [first.model(), second.model()])
    with pytest.raises(openai.BadRequestError):
        await worker.act(task, Brief())
    assert not second.requests


async def test_where_all_are_down_the_last_error_counts(scripted: Callable, task: Task) -> None:
    both = [scripted([ServerError()]), scripted([ServerError(503)])]
    with pytest.raises(openai.InternalServerError) as caught:
        await ModelAgent("worker", [s.model() for s in both]).act(task, Brief())
    assert caught.value.status_code == 503


async def test_tools_go_on_with_the_model_that_answers(scripted: Callable, task: Task) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    sick, well = scripted([ServerError()]), scripted([Call("add", {"a": 1, "b": 2}), "3"])
    worker = ModelAgent("worker", [sick.model(), well.model()], tools=[add])
    assert (await worker.act(task, Brief())).output == "3"


def test_tiers_without_a_model_are_none() -> None:
    with pytest.raises(NoModel, match="give at least one"):
        ModelAgent("worker", Tiers())


async def test_an_agent_with_tiers_goes_up_by_itself_where_it_is_not_sure(
    scripted: Callable,
) -> None:
    cheap = scripted([Guess(answer="?", confidence=0.2)])
    dear = scripted([Guess(answer="dear", confidence=0.95)])
    tiers = Tiers(standard=cheap.model(model="m1"), premium=dear.model(model="m2"))
    worker = ModelAgent("guesser", tiers, output=Guess)
    run = await Run(pipeline([worker], policy=Policy(min_confidence=0.5))).go()
    output: dict = run.result.output  # type: ignore[assignment]
    assert output["answer"] == "dear"
    assert [attempt.model for attempt in run.result.attempts] == ["m1", "m2"]
    assert "only 20% sure" in dear.requests[0].prompt


@pytest.mark.parametrize(
    "settings", [{"output": Guess, "tier": "standard"}, {}], ids=["chosen", "says not how sure"]
)
async def test_a_chosen_tier_stays_and_so_does_who_says_not_how_sure_it_is(
    scripted: Callable, settings: dict
) -> None:
    cheap, dear = scripted([Guess(answer="?", confidence=0.2)]), scripted([])
    tiers = Tiers(standard=cheap.model(), premium=dear.model())
    worker = ModelAgent("guesser", tiers, **settings)
    assert worker.rungs(Policy(min_confidence=0.5)) == [worker]


def test_tiers_that_share_a_model_are_one_step(scripted: Callable) -> None:
    one, other = scripted([]).model(), scripted([]).model()
    worker = ModelAgent("guesser", Tiers(economy=one, standard=one, premium=other), output=Guess)
    rungs = worker.at("economy").rungs(Policy(min_confidence=0.5))
    assert [str(rung.card.tier) for rung in rungs] == ["economy", "premium"]


async def test_tools_that_a_person_approves_work_at_each_tier(scripted: Callable) -> None:
    @consequential(approve=True)
    def send(to: str) -> str:
        """Send it."""
        return f"sent to {to}"

    cheap = scripted([Guess(answer="?", confidence=0.2)])
    dear = scripted([Call("send", {"to": "ann"}), Guess(answer="sent", confidence=0.9)])
    tiers = Tiers(standard=cheap.model(), premium=dear.model())
    worker = ModelAgent("clerk", tiers, output=Guess, tools=[send])
    run = await Run(pipeline([worker], policy=Policy(min_confidence=0.5)), InMemorySaver()).go()
    (ask,) = run.final["__interrupt__"]
    assert ask.value.evidence["action_requests"][0]["args"] == {"to": "ann"}
    await run.answer()
    assert run.result.output["answer"] == "sent"  # type: ignore[call-overload,index]
    assert len(cheap.requests) == 1, "what was begun before the question is not repeated"


async def test_what_one_tier_has_done_to_the_world_the_next_does_not_do_again(
    scripted: Callable,
) -> None:
    sent: list[str] = []

    @consequential
    def send(to: str) -> str:
        """Send it."""
        sent.append(to)
        return f"sent to {to}"

    call = Call("send", {"to": "ann"})
    cheap = scripted([call, Guess(answer="?", confidence=0.2)])
    dear = scripted([call, Guess(answer="sent", confidence=0.9)])
    tiers = Tiers(standard=cheap.model(), premium=dear.model())
    worker = ModelAgent("clerk", tiers, output=Guess, tools=[send])
    run = await Run(pipeline([worker], policy=Policy(min_confidence=0.5))).go()
    assert run.result.output["answer"] == "sent"  # type: ignore[call-overload,index]
    assert sent == ["ann"]
    assert dear.requests[1].tool_results == ["sent to ann"]


async def test_nor_does_the_same_tier_when_its_work_is_sent_back(scripted: Callable) -> None:
    sent: list[str] = []

    @consequential
    def send(to: str) -> str:
        """Send it."""
        sent.append(to)
        return f"sent to {to}"

    call = Call("send", {"to": "ann"})
    answers = [Guess(answer="curt", confidence=0.9), Guess(answer="kind", confidence=0.9)]
    server = scripted([call, answers[0], call, answers[1]])
    tiers = Tiers(standard=server.model(), premium=scripted([]).model())
    worker = ModelAgent("clerk", tiers, output=Guess, tools=[send])
    line = pipeline(
        [worker],
        gates=lambda output: output["answer"] == "kind" or "be kind",
        policy=Policy(min_confidence=0.5),
    )
    run = await Run(line).go()
    assert run.result.output["answer"] == "kind"  # type: ignore[call-overload,index]
    assert sent == ["ann"]
