"""Breakers and the ladder in a team: a sick agent is spared, a hopeless task and a doubt climb."""

from dataclasses import replace
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from kapelle.drills import VirtualClock
from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Agent, agent
from kapelle.nodes.breaking import SPACE
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.measuring import known_outcomes
from kapelle.state.ballot import Plurality
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard, identity
from kapelle.state.task import Reply, Result, Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

SURE = QUICK.model_copy(update={"min_confidence": 0.8})


# ── a task that many failed at ────────────────────────────────────────────────────────────────


async def test_when_three_agents_failed_a_person_sees_their_attempts(
    crew: Crew, saver: Saver
) -> None:
    workers = [crew.worker(n, a=ValueError(f"{n} can't")) for n in ("ann", "bob", "cyd", "dan")]
    team = manager_worker(plan=crew.planner([task("a")]), workers=workers, policy=QUICK)
    run = await Run(team, saver).go()
    shown = run.asks["a"].value.evidence["attempts"]
    assert [(side["agent"], side["failure"]) for side in shown] == [
        ("ann", "raised"), ("bob", "raised"), ("cyd", "raised"),
    ]  # fmt: skip
    assert "bob can't" in shown[1]["message"]
    await run.answer(decision="edit", value="I did it myself")
    assert run.result.output == "I did it myself"


async def test_what_fewer_agents_failed_at_is_left_out_as_before(crew: Crew) -> None:
    workers = [crew.worker(n, a=ValueError("no")) for n in ("ann", "bob")]
    plan = crew.planner([task("a"), task("b")])
    result = (await Run(manager_worker(plan=plan, workers=workers, policy=QUICK)).go()).result
    assert (result.status, result.missing) == ("partial", ("a",))


def in_team(crew: Crew, workers: list[Agent]) -> Any:
    """All are workers."""
    return manager_worker(plan=crew.planner([task("a")]), workers=workers, policy=QUICK)


def in_market(crew: Crew, workers: list[Agent]) -> Any:
    """All may bid."""
    return marketplace(workers, policy=QUICK)


def in_swarm(crew: Crew, workers: list[Agent]) -> Any:
    """All vote."""
    return swarm(workers, rule=Plurality(), policy=QUICK)


def in_line(crew: Crew, workers: list[Agent]) -> Any:
    """The first has the only stage."""
    return pipeline(workers[:1], policy=QUICK)


def in_tree(crew: Crew, workers: list[Agent]) -> Any:
    """The first has the only leaf."""
    return hierarchy({"only": workers[0]}, merge=dict, policy=QUICK)


@pytest.mark.parametrize(
    ("pattern", "failing", "asks"),
    [(in_team, 3, True), (in_team, 2, False), (in_market, 3, True), (in_market, 2, False),
     (in_swarm, 3, True), (in_swarm, 2, False), (in_line, 3, False), (in_tree, 3, False)],
)  # fmt: skip
async def test_in_every_pattern_a_person_is_asked_when_three_different_agents_failed(
    crew: Crew, memory: Saver, pattern: Any, failing: int, *, asks: bool
) -> None:
    workers = [crew.worker(name, anything=ValueError("no")) for name in "xyz"[:failing]]
    run = await Run(pattern(crew, workers), memory).go()
    assert bool(run.asks) == asks
    assert asks or run.result.status == "failed"


# ── an agent that keeps failing ───────────────────────────────────────────────────────────────

FRAGILE = QUICK.model_copy(update={"breaker_window": 4, "agents_per_task": 2, "parallel": 1})


def a_crowd(crew: Crew, many: int, *workers: Agent, policy: Policy = FRAGILE) -> Any:
    """A team with so many parts."""
    plan = crew.planner([task(f"t{n}") for n in range(many)])
    return manager_worker(plan=plan, workers=workers, policy=policy)


async def test_a_sick_agent_is_left_alone_and_others_do_its_work(crew: Crew) -> None:
    sick, well = crew.worker("sick", anything=ConnectionError("down")), crew.worker("well")
    run = await Run(a_crowd(crew, 20, sick, well)).go()
    assert run.result.status == "done"
    assert [name for name, _ in crew.by].count("sick") == 2, "half a window"
    told = [e.what for e in await run.events() if e.agent == "sick" and "breaker" in e.what]
    assert told == ["breaker opened"]


async def test_when_it_is_left_alone_between_two_tries_its_own_failure_is_what_is_told(
    crew: Crew,
) -> None:
    policy = FRAGILE.model_copy(update={"attempts": 4, "agents_per_task": 1})
    line = pipeline([crew.worker("sick", anything=ConnectionError("down"))], policy=policy)
    result = (await Run(line).go()).result
    assert result.failure is not None
    assert result.failure.message == "sick raised ConnectionError: down"
    (part,) = result.parts.values() or [result]
    assert [a.failure and a.failure.kind for a in part.attempts] == ["raised", "raised"]


async def test_the_next_run_knows_through_the_store_and_does_not_ask_it(crew: Crew) -> None:
    store = InMemoryStore()
    sick, well = crew.worker("sick", anything=ConnectionError("down")), crew.worker("well")
    for thread in ("one", "two"):
        run = Run(a_crowd(crew, 8, sick, well), thread=thread)
        run.graph.store = store
        await run.go()
    (item,) = await store.asearch(SPACE)
    assert (item.key, item.value["open"]) == (identity(sick.card), True)
    assert [name for name, _ in crew.by].count("sick") == 2


async def test_after_a_while_it_gets_one_call_and_is_well_again(crew: Crew) -> None:
    policy = FRAGILE.model_copy(update={"breaker_probe": 30.0})
    store, broken, clock = InMemoryStore(), [True], VirtualClock()

    @agent(name="a sick")
    async def sick(task: Task) -> str:
        crew.by.append(("a sick", task.id))
        if broken[0]:
            raise ConnectionError("down")
        return "well"

    for thread in ("one", "two", "three"):
        run = Run(a_crowd(crew, 8, sick, crew.worker("well"), policy=policy), thread=thread)
        run.graph.store = store
        run.services = replace(run.services, clock=clock)
        await run.go()
        broken[0] = False
        clock.passed += 60
        crew.by.append(("--", thread))
    calls = [name for name, _ in crew.by if name in ("a sick", "--")]
    first, second, third, *_ = " ".join(calls).split("--")
    assert first.split().count("sick") == 2
    assert second.split().count("sick") == 1, "a probe"
    assert third.split().count("sick") == 4, "its share"


async def test_with_nobody_else_its_work_fails_at_once_and_says_why(crew: Crew) -> None:
    sick = crew.worker("sick", anything=ConnectionError("down"))
    run = await Run(a_crowd(crew, 10, sick)).go()
    assert crew.did["planner"] == 0
    assert [name for name, _ in crew.by].count("sick") == 2
    failures = {e.what for e in await run.events() if e.kind == "attempt" and e.agent == "sick"}
    assert failures == {"raised", "unavailable"}


async def broke(store: InMemoryStore, name: str, **more: Any) -> None:
    """Another run saw an agent fail too often, just now."""
    broken = {"open": True, "since": in_memory().clock.now(), "recent": []}
    await store.aput(SPACE, identity(AgentCard(name=name, **more)), broken)


async def test_a_namesake_is_not_left_alone_for_what_another_did(crew: Crew) -> None:
    store = InMemoryStore()
    await broke(store, "ann", skills=("math",))
    run = Run(a_crowd(crew, 2, crew.worker("ann"), crew.worker("bob")))
    run.graph.store = store
    await run.go()
    assert {name for name, _ in crew.by} == {"ann", "bob", "planner"}


@pytest.mark.parametrize("alone", [False, True])
async def test_a_market_calls_a_sick_agent_only_where_nobody_else_is_able(
    crew: Crew,
    alone: bool,  # noqa: FBT001 - by name
) -> None:
    store = InMemoryStore()
    await broke(store, "sick")
    others = [] if alone else [crew.worker("well")]
    run = Run(marketplace([crew.worker("sick"), *others], policy=QUICK))
    run.graph.store = store
    await run.go()
    called = [e.data["to"] for e in await run.events() if e.what == "cfp"]
    assert called == (["sick"] if alone else ["well"])
    spared = [e.agent for e in await run.events() if e.what == "not called"]
    assert spared == ([] if alone else ["sick"])
    assert run.result.status == ("failed" if alone else "done")
    assert await known_outcomes(store, "sick") == [], "it was not called, so nothing is measured"


async def test_a_swarm_asks_a_sick_peer_last_and_does_without_it(crew: Crew) -> None:
    store = InMemoryStore()
    await broke(store, "a sick")
    peers = [crew.worker(name, anything="yes") for name in ("a sick", "b", "c")]
    run = Run(swarm(peers, rule=Plurality(), policy=QUICK))
    run.graph.store = store
    assert (await run.go()).result.output == "yes"
    asked = [e.data["due"] for e in await run.events() if e.what == "asked"]
    assert asked == [["b/1", "c/2"]]


# ── work its author is not sure of ────────────────────────────────────────────────────────────


def unsure(name: str, tier: Any, sure: float) -> Agent:
    """An agent that is so sure."""

    @agent(name=name, tier=tier, skills=["guess"])
    async def work(task: Task) -> Reply:
        return Reply(output=f"by {name}", confidence=sure)

    return work


def ladder(crew: Crew, *workers: Agent, judge: Agent | None = None) -> Any:
    """A team of two parts, one needing the other."""
    plan = crew.planner([task("a", skills=("guess",)), task("b", "a", agent="last")])
    return manager_worker(
        plan=plan, workers=[*workers, crew.worker("last")], judge=judge, policy=SURE
    )


async def test_doubtful_work_climbs_tier_by_tier_until_someone_is_sure(
    crew: Crew, saver: Saver
) -> None:
    tiers = unsure("e", "economy", 0.1), unsure("s", "standard", 0.5), unsure("p", "premium", 0.9)
    run = await Run(ladder(crew, *tiers), saver).go()
    assert run.result.output == "b(a)"
    (brief,) = crew.briefs["b"]
    assert brief.results["a"].output == "by p"
    climbs = [e.agent for e in await run.events() if e.what == "to the next tier"]
    assert climbs == ["e", "s"]


async def test_then_the_judge_lets_it_through(crew: Crew, saver: Saver) -> None:
    judge = crew.judge(Verdict(decision="accept", score=0.85))
    run = await Run(ladder(crew, unsure("e", "economy", 0.1), judge=judge), saver).go()
    assert run.result.output == "b(a)"
    assert crew.briefs["b"][0].results["a"].confidence == 0.85


async def test_then_a_person_is_asked_and_sees_what_the_judge_said(
    crew: Crew, saver: Saver
) -> None:
    judge = crew.judge(Verdict(decision="revise", reason="no sources"))
    run = await Run(ladder(crew, unsure("e", "economy", 0.1), judge=judge), saver).go()
    ask = run.asks["a"].value
    assert (ask.evidence, "The judge: no sources" in ask.reason) == ("by e", True)
    assert "e is only 10% sure" in ask.question
    await run.answer()
    assert run.result.output == "b(a)"


@pytest.mark.parametrize("pattern", ["line", "market"])
async def test_where_a_line_or_a_market_has_a_judge_it_sees_doubtful_work_first(
    crew: Crew, saver: Saver, pattern: str
) -> None:
    judge = crew.judge(
        Verdict(decision="accept", score=0.85), Verdict(decision="ask", reason="no sources")
    )
    worker = unsure("e", "economy", 0.1)
    graph: Any = (
        pipeline([worker], gates=judge, policy=SURE)
        if pattern == "line"
        else marketplace([worker], judge=judge, policy=SURE)
    )
    run = await Run(graph, saver).go()
    assert (run.result.status, run.result.confidence) == ("done", 0.85)
    await run.go({"task": task("task")})
    (ask,) = run.asks.values()
    assert "no sources" in ask.value.reason
    await run.answer()
    assert run.result.output == "by e"


async def test_what_a_judge_scores_is_the_confidence_of_the_whole(crew: Crew) -> None:
    judge = crew.judge(Verdict(decision="accept", score=0.7))
    plan = crew.planner([task("a")])
    team = manager_worker(plan=plan, workers=[crew.worker("w")], judge=judge, policy=QUICK)
    assert (await Run(team).go()).result.confidence == 0.7


async def test_without_tiers_and_judge_a_person_is_asked_at_once(crew: Crew, saver: Saver) -> None:
    run = await Run(ladder(crew, unsure("e", "economy", 0.1)), saver).go()
    assert list(run.asks) == ["a"]
    await run.answer(decision="respond", value="look again")
    assert list(run.asks) == ["a"], "it is still not sure"
    await run.answer()
    assert run.result.output == "b(a)"


async def test_a_task_goes_to_the_tier_it_needs(crew: Crew) -> None:
    plan = crew.planner([task("a", tier="premium"), task("b", tier="standard"), task("c")])
    tiers = unsure("e", "economy", 1), unsure("s", "standard", 1), unsure("p", "premium", 1)
    run = await Run(manager_worker(plan=plan, workers=tiers, policy=QUICK)).go()
    assert run.result.output == {"a": "by p", "b": "by s", "c": "by e"}
    assert isinstance(run.result, Result)
