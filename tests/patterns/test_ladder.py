"""Work its author is not sure of climbs: the next tier, the judge, a person; in every pattern."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Agent, agent
from kapelle.nodes.climbing import Ladder, ladder
from kapelle.nodes.effect import effect
from kapelle.nodes.estimating import estimate
from kapelle.state.approval import Escalation
from kapelle.state.ballot import Plurality
from kapelle.state.budget import Budget
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Reply, Task, Tier
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

SURE = QUICK.model_copy(update={"min_confidence": 0.8})

Pattern = Callable[[Agent, Policy, Crew, Agent | None], Any]


def in_team(worker: Agent, policy: Policy, crew: Crew, judge: Agent | None) -> Any:
    """It is the only worker."""
    plan = crew.planner([task("a")])
    return manager_worker(plan=plan, workers=[worker], judge=judge, policy=policy)


def in_line(worker: Agent, policy: Policy, crew: Crew, judge: Agent | None) -> Any:
    """It has the only stage."""
    return pipeline([worker], gates=judge, policy=policy)


def in_market(worker: Agent, policy: Policy, crew: Crew, judge: Agent | None) -> Any:
    """It is the only bidder."""
    return marketplace([worker], judge=judge, policy=policy)


def in_swarm(worker: Agent, policy: Policy, crew: Crew, judge: Agent | None) -> Any:
    """It is the only peer."""
    return swarm([worker], rule=Plurality(), policy=policy)


def in_tree(worker: Agent, policy: Policy, crew: Crew, judge: Agent | None) -> Any:
    """It is the only team."""
    return hierarchy({worker.card.name: worker}, merge=only, policy=policy)


def only(outputs: dict[str, object]) -> object:
    """The one output there is."""
    (output,) = outputs.values()
    return output


EVERY: list[Pattern] = [in_team, in_line, in_market, in_swarm, in_tree]
JUDGED: list[Pattern] = [in_team, in_line, in_market]


class Tower:
    """Agents of several tiers, each as sure as it is said to be, and who was asked."""

    def __init__(self, **sure: object) -> None:
        self.asked: list[str] = []
        self.told: dict[str, tuple[str, ...]] = {}
        tiers: list[Tier] = ["economy", "standard", "premium"]
        pairs = zip(sure.items(), tiers, strict=False)
        self.agents = [self._rung(name, tier, how) for (name, how), tier in pairs]

    @property
    def ladder(self) -> Ladder:
        """They as one agent."""
        return ladder("guesser", self.agents)

    def _rung(self, name: str, tier: Tier, how: Any) -> Agent:
        @agent(name=name, tier=tier)
        async def guess(task: Task, brief: Brief) -> object:
            self.asked.append(name)
            self.told[name] = brief.feedback
            if isinstance(how, Exception):
                raise how
            if isinstance(how, Escalation):
                return how
            return Reply(output=f"by {name}", confidence=how)

        return guess


@pytest.mark.parametrize("pattern", EVERY)
async def test_the_next_tier_is_asked_until_one_is_sure(
    crew: Crew, saver: Saver, pattern: Pattern
) -> None:
    tower = Tower(low=0.1, middle=0.5, high=0.9)
    run = await Run(pattern(tower.ladder, SURE, crew, None), saver).go()
    assert (run.result.status, run.result.output) == ("done", "by high")
    assert tower.asked == ["low", "middle", "high"]
    assert tower.told["high"] == ("middle was only 50% sure of its answer",)
    climbs = [e.agent for e in await run.events() if e.what == "to the next tier"]
    assert climbs == ["low", "middle"]
    assert run.result.usage.calls == 3 + crew.calls, "and who plans"


@pytest.mark.parametrize("pattern", EVERY)
async def test_a_tier_that_is_sure_is_the_last_that_is_asked(crew: Crew, pattern: Pattern) -> None:
    tower = Tower(low=0.85, middle=0.9, high=1.0)
    run = await Run(pattern(tower.ladder, SURE, crew, None)).go()
    assert (run.result.output, tower.asked) == ("by low", ["low"])


@pytest.mark.parametrize("pattern", EVERY)
async def test_what_no_tier_is_sure_of_goes_to_a_person(
    crew: Crew, saver: Saver, pattern: Pattern
) -> None:
    tower = Tower(low=0.1, high=0.6)
    run = await Run(pattern(tower.ladder, SURE, crew, None), saver).go()
    (ask,) = run.asks.values()
    assert "only 60% sure" in ask.value.question
    await run.answer()
    assert (run.result.output, tower.asked) == ("by high", ["low", "high"])


@pytest.mark.parametrize("pattern", JUDGED)
async def test_before_the_person_the_judge_looks_at_it(crew: Crew, pattern: Pattern) -> None:
    tower, judge = Tower(low=0.1, high=0.6), crew.judge(Verdict(decision="accept", score=0.95))
    run = await Run(pattern(tower.ladder, SURE, crew, judge)).go()
    assert (run.result.output, run.result.status) == ("by high", "done")
    assert tower.asked == ["low", "high"]
    assert "critic" in [name for name, _ in crew.by]


@pytest.mark.parametrize("pattern", EVERY)
async def test_where_the_higher_tier_fails_what_there_was_is_not_lost(
    crew: Crew, saver: Saver, pattern: Pattern
) -> None:
    tower = Tower(low=0.3, high=ValueError("down"))
    run = await Run(pattern(tower.ladder, SURE, crew, None), saver).go()
    (ask,) = run.asks.values()
    assert ask.value.evidence == "by low"
    assert "The next tier: high raised ValueError: down" in ask.value.reason
    await run.answer()
    assert run.result.output == "by low"


@pytest.mark.parametrize("pattern", EVERY)
async def test_a_tier_that_turns_to_a_person_is_the_last(
    crew: Crew, saver: Saver, pattern: Pattern
) -> None:
    tower = Tower(low=0.3, middle=Escalation(question="May I?", evidence="this"), high=0.9)
    run = await Run(pattern(tower.ladder, SURE, crew, None), saver).go()
    (ask,) = run.asks.values()
    assert ask.value.question == "May I?"
    await run.answer()
    assert (run.result.output, tower.asked) == ("this", ["low", "middle"])


async def test_it_begins_at_the_task_s_own_tier(crew: Crew) -> None:
    tower = Tower(low=0.1, middle=0.9, high=0.9)
    plan = crew.planner([task("a", tier="standard")])
    await Run(manager_worker(plan=plan, workers=[tower.ladder], policy=SURE)).go()
    assert tower.asked == ["middle"]


async def test_without_a_confidence_to_reach_only_the_first_works(crew: Crew) -> None:
    tower = Tower(low=0.1, high=0.9)
    run = await Run(in_line(tower.ladder, QUICK, crew, None)).go()
    assert (run.result.output, tower.asked) == ("by low", ["low"])


async def test_a_team_then_turns_to_workers_above_its_highest_tier(crew: Crew) -> None:
    tower, above = Tower(low=0.1, middle=0.2), Tower(a=0.0, b=0.0, expert=0.9)
    workers = [tower.ladder, above.agents[1], above.agents[2]]
    run = await Run(
        manager_worker(plan=crew.planner([task("a")]), workers=workers, policy=SURE)
    ).go()
    assert run.result.output == "by expert"
    assert (tower.asked, above.asked) == (["low", "middle"], ["expert"]), "b's tier had its turn"


async def test_each_step_is_an_edge_of_the_drawing(crew: Crew) -> None:
    for pattern in EVERY:
        graph = pattern(Tower(low=0, middle=0, high=0).ladder, SURE, crew, None)
        edges = {(e.source, e.target) for e in graph.compile().get_graph(xray=True).edges}
        assert {("guesser:low", "guesser:middle"), ("guesser:middle", "guesser:high")} <= edges


@pytest.mark.parametrize("limited", ["budget", "per_task", "per_agent"])
async def test_all_tiers_are_paid_from_what_the_one_may_use(
    crew: Crew, saver: Saver, limited: str
) -> None:
    tower = Tower(low=0.1, middle=0.2, high=0.9)
    policy = SURE.model_copy(update={limited: Budget(calls=2)})
    run = await Run(in_line(tower.ladder, policy, crew, None), saver).go()
    assert tower.asked == ["low", "middle"]
    assert list(run.asks), "the third has no room, and the second is not sure"


async def test_what_has_no_room_is_asked_for_in_the_accounts_around_it(
    crew: Crew, saver: Saver
) -> None:
    policy = SURE.model_copy(update={"budget": Budget(calls=0), "on_budget": "ask"})
    tower = Tower(low=0.9, high=1.0)
    run = await Run(in_line(tower.ladder, policy, crew, None), saver).go()
    (ask,) = run.asks.values()
    assert ask.value.evidence["to"] == [""], "the run's; it has none of its own"
    await run.answer(value={"add": {"calls": 1}})
    assert run.result.output == "by low"


async def test_no_more_of_them_work_at_once_than_of_other_agents(crew: Crew) -> None:
    at_work = most = 0

    @agent(name="only", tier="economy")
    async def slow(task: Task) -> Reply:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return Reply(output="x", confidence=0.9)

    worker = ladder("guesser", [slow, Tower(high=1.0).agents[0]])
    plan = crew.planner([task(f"t{n}") for n in range(9)])
    policy = SURE.model_copy(update={"parallel": 3})
    run = await Run(manager_worker(plan=plan, workers=[worker], policy=policy)).go()
    assert (run.result.status, most) == ("done", 3)


async def test_an_effect_happens_once_though_two_tiers_do_the_task(crew: Crew) -> None:
    sent: list[str] = []

    def doer(name: str, tier: Tier, sure: float) -> Agent:
        @agent(name=name, tier=tier)
        async def work(task: Task) -> Reply:
            receipt = await effect("mail").once(lambda: sent.append(name) or name)
            return Reply(output=receipt, confidence=sure)

        return work

    worker = ladder("clerk", [doer("low", "economy", 0.1), doer("high", "premium", 0.9)])
    run = await Run(in_line(worker, SURE, crew, None)).go()
    assert (run.result.output, sent) == ("low", ["low"])


async def test_its_estimate_is_of_the_first_at_least_and_of_all_at_most(crew: Crew) -> None:
    def calls(min_confidence: float) -> tuple[int, int, int]:
        policy = QUICK.model_copy(update={"min_confidence": min_confidence})
        worker = Tower(low=0, middle=0, high=0).ladder
        found = estimate(pipeline([worker], policy=policy), Task(goal="guess")).team
        assert found.expected.messages == 2, "nobody but its caller hears of its tiers"
        rounds = 1 + policy.rounds
        return (
            found.least.usage.calls,
            found.expected.usage.calls,
            found.most.usage.calls // rounds,
        )

    assert calls(0.3) == (1, 1, 3), "of confidences spread evenly, three in ten climb"
    assert calls(0.6) == (1, 2, 3), "and of these six in ten, which is less than half of all"
    assert calls(0.8) == (1, 3, 3)


def test_a_ladder_needs_agents_with_names_of_their_own() -> None:
    (one,) = Tower(low=0).agents
    for agents in ([], [one, one]):
        with pytest.raises(Misbuilt, match="names of their own"):
            ladder("guesser", agents)


# ── bidders of several tiers in a market


def bidding(name: str, tier: Tier, how: object, price: int) -> Agent:
    """An agent that is so sure of what it does, at a price."""

    @agent(name=name, tier=tier, price=price)
    async def work(task: Task) -> object:
        if isinstance(how, Exception):
            raise how
        return Reply(output=f"by {name}", confidence=float(str(how)))

    return work


async def contracted(run: Run) -> list[str]:
    """Who was awarded the task, in order."""
    return [e.agent for e in await run.events() if e.what == "awarded"]


@pytest.mark.parametrize("judged", [False, True])
async def test_doubtful_work_of_a_contractor_goes_to_a_bidder_of_a_higher_tier(
    crew: Crew,
    saver: Saver,
    judged: bool,  # noqa: FBT001 - by name
) -> None:
    bidders = [
        bidding("cheap", "economy", 0.2, 1),
        bidding("other", "economy", 0.9, 2),
        bidding("dear", "premium", 0.9, 90),
    ]
    judge = crew.judge() if judged else None
    run = await Run(marketplace(bidders, judge=judge, policy=SURE), saver).go()
    assert (run.result.status, run.result.output) == ("done", "by dear")
    assert await contracted(run) == ["cheap", "dear"], "not to the other of its tier"
    assert [name for name, _ in crew.by] == ["critic"] * judged, (
        "the judge sees what climbs no more"
    )
    climbs = [e.agent for e in await run.events() if e.what == "to the next tier"]
    assert climbs == ["cheap"]
    assert run.result.usage.calls == 2 + judged


async def test_what_no_bidder_is_sure_of_goes_to_a_person(crew: Crew, saver: Saver) -> None:
    bidders = [bidding("cheap", "economy", 0.2, 1), bidding("dear", "premium", 0.5, 90)]
    run = await Run(marketplace(bidders, policy=SURE), saver).go()
    (ask,) = run.asks.values()
    assert "dear is only 50% sure" in ask.value.question
    await run.answer()
    assert run.result.output == "by dear"


async def test_where_the_bid_of_the_higher_tier_does_not_count_a_person_is_asked(
    crew: Crew, saver: Saver
) -> None:
    bidders = [bidding("cheap", "economy", 0.2, 1), bidding("dear", "premium", 0.9, 90)]
    policy = SURE.model_copy(update={"max_price": 10})
    run = await Run(marketplace(bidders, policy=policy), saver).go()
    (ask,) = run.asks.values()
    assert ask.value.evidence == "by cheap"


async def test_each_of_many_tasks_climbs_by_itself(crew: Crew, saver: Saver) -> None:
    bidders = [bidding("cheap", "economy", 0.2, 1), bidding("dear", "premium", 0.9, 90)]
    run = Run(marketplace(bidders, policy=SURE), saver)
    run.task = Task(goal="all", inputs={"tasks": [{"id": i, "goal": i} for i in "ab"]})
    await run.go()
    assert run.result.output == {"a": "by dear", "b": "by dear"}
