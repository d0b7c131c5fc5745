"""No subtask that waits for a person keeps another waiting inside a step."""

from itertools import permutations

import pytest

from kapelle.graphs import manager_worker, marketplace, pipeline
from kapelle.nodes.agent import agent, as_agent
from kapelle.state.approval import Escalation
from kapelle.state.offer import Offer
from kapelle.state.task import Reply, Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")


async def test_work_a_person_wants_again_is_done_while_another_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b"), task("c", "a")]
    worker = crew.worker(a=[ASK, "thought through"], b=ASK)
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, saver).go()
    await run.answer("a", decision="respond", value="think")
    assert set(run.asks) == {"b"}
    assert (crew.did["a"], crew.did["c"]) == (2, 1), "and what needs it as well"
    assert crew.briefs["a"][1].feedback == ("ann says: think",)
    assert crew.briefs["c"][0].results["a"].output == "thought through"
    await run.answer("b")
    assert run.result.output == {"b": "a thought", "c": "c(a)"}
    assert crew.did == {"task": 1, "a": 2, "b": 1, "c": 1}
    assert run.result.usage.calls == crew.calls


async def test_what_is_asked_after_an_approval_is_listed_while_another_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b"), task("c", "a"), task("d", "c")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[crew.worker(a=ASK, b=ASK, c=ASK)], policy=QUICK
    )
    run = await Run(team, saver).go()
    await run.answer("a")
    assert set(run.asks) == {"b", "c"}
    await run.answer("c", decision="edit", value="C")
    assert set(run.asks) == {"b"}
    assert crew.did["d"] == 1
    await run.answer("b")
    assert run.result.output == {"b": "a thought", "d": "d(c)"}
    assert crew.did == dict.fromkeys(["task", *"abcd"], 1)


@pytest.mark.parametrize("order", list(permutations(["x", "b"])))
async def test_an_ask_inside_a_nested_team_holds_back_no_ask_beside_it(
    crew: Crew, saver: Saver, order: tuple[str, ...]
) -> None:
    nested = manager_worker(
        plan=crew.planner([task("x")], name="inner planner"),
        workers=[crew.worker("inner worker", x=ASK)], policy=QUICK,
    )  # fmt: skip
    plan = [task("a", agent="inner"), task("b", agent="worker"), task("c", "b", agent="worker")]
    workers = [crew.worker(b=ASK), as_agent(nested, name="inner")]
    run = await Run(
        manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK), saver
    ).go()
    assert set(run.asks) == {"x", "b"}
    for n, name in enumerate(order):
        await run.answer(name)
        assert crew.did["c"] == int("b" in order[: n + 1])
    assert run.result.output == {"a": "a thought", "c": "c(b)"}
    assert crew.did["b"] == crew.did["x"] == crew.did["c"] == 1


async def test_work_that_is_refused_or_fails_when_done_again_blocks_what_needs_it(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b"), task("c", "a"), task("d"), task("e", "d")]
    worker = crew.worker(a=[ASK, ValueError("no")], b=ASK, d=ASK)
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, memory).go()
    await run.answer("a", decision="respond", value="think")
    await run.answer("d", decision="reject")
    await run.answer("b")
    assert (run.result.status, run.result.output) == ("partial", {"b": "a thought"})
    assert run.result.missing == ("a", "c", "d", "e")


async def test_a_second_agent_does_what_a_first_failed_at_while_an_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("x"), task("y", "b")]
    workers = [crew.worker("ann", a=ASK, b=ValueError("no"), x=ASK), crew.worker("bob", a=ASK)]
    run = await Run(
        manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK), saver
    ).go()
    await run.answer("a")
    assert set(run.asks) == {"x"}
    assert [name for name, part in crew.by if part == "b"] == ["ann", "bob"]
    assert crew.did["y"] == 1, "and what needs it is done as well"
    await run.answer("x")
    assert run.result.output == {"x": "a thought", "y": "y(b)"}
    assert crew.did == {"task": 1, "a": 1, "b": 1, "x": 1, "y": 1}
    told = [e.what for e in await run.events() if e.task == "b"]
    assert told.count("reassigned") == 1


async def test_what_nobody_could_do_is_asked_while_another_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("x")]
    worker = crew.worker(a=ASK, b=ValueError("no"), x=ASK)
    limits = QUICK.model_copy(update={"on_failure": "ask"})
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=limits)
    run = await Run(team, saver).go()
    await run.answer("a")
    assert set(run.asks) == {"b", "x"}
    await run.answer("b", decision="edit", value="B")
    await run.answer("x")
    assert run.result.output == {"b": "B", "x": "a thought"}


async def test_a_person_may_want_work_done_again_more_than_once_in_a_step(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("x")]
    worker = crew.worker(a=[ASK, ASK, ASK, "at last"], x=ASK)
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, saver).go()
    for n in range(3):
        assert set(run.asks) == {"a", "x"}
        await run.answer("a", decision="respond", value=n)
    assert set(run.asks) == {"x"}
    assert crew.briefs["a"][3].feedback == ("ann says: 0", "ann says: 1", "ann says: 2")
    assert crew.did["b"] == 1
    await run.answer("x")
    assert run.result.output == {"b": "b(a)", "x": "a thought"}
    assert run.result.usage.calls == crew.calls


async def test_doubtful_work_goes_up_the_ladder_while_an_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    @agent(name="cheap", tier="economy", skills=["y"])
    async def cheap(task: Task) -> Reply:
        return Reply(output="perhaps", confidence=0.1)

    @agent(name="dear", tier="premium", skills=["y"])
    async def dear(task: Task) -> Reply:
        return Reply(output="likely", confidence=0.4)

    inner = pipeline([crew.worker("asking", anything=ASK)], policy=QUICK)
    workers = [cheap, dear, as_agent(inner, name="graph", skills=["x"])]
    plan = [task("a", skills=["x"]), task("b", skills=["y"]), task("c", "b", skills=["y"])]
    limits = QUICK.model_copy(update={"min_confidence": 0.8})
    judge = crew.judge(Verdict(decision="accept", score=0.9))
    team = manager_worker(plan=crew.planner(plan), workers=workers, judge=judge, policy=limits)
    run = await Run(team, saver).go()
    assert len(run.asks) == 1, "of the graph"
    told = [(e.what, e.task) for e in await run.events()]
    assert ("to the next tier", "b") in told
    assert ("accept", "b") in told, "the judge looked at it"
    await run.answer()
    assert run.result.status == "done"


def tasks(*ids: str) -> Task:
    """A task for a market: these, side by side."""
    return Task(goal="all of it", inputs={"tasks": [{"id": i, "goal": f"do {i}"} for i in ids]})


def bids(**prices: int) -> dict[str, Offer]:
    """The cheapest gets all it can do."""
    return {name: Offer(price=price) for name, price in prices.items()}


async def test_a_market_awards_anew_what_failed_while_an_ask_is_open(
    crew: Crew, saver: Saver
) -> None:
    hesitant = pipeline([crew.worker("stage", anything=ASK)], policy=QUICK)
    agents = [
        crew.worker("ann", b=ValueError("no"), anything="by ann"),
        crew.worker("bob", anything="by bob"),
        as_agent(hesitant, name="graph"),
    ]

    def by_graph(task: Task) -> Offer:
        return Offer(price=0) if task.id == "a" else Offer(decline="no")

    offers = {**bids(ann=1, bob=2), "graph": by_graph}
    run = Run(marketplace(agents, bids=offers, policy=QUICK), saver)
    run.task = tasks("a", "b", "c")
    await run.go()
    assert len(run.asks) == 1, "of the graph"
    assert [name for name, part in crew.by if part == "b"] == ["ann", "bob"]
    await run.answer()
    assert run.result.output == {"a": "a thought", "b": "by bob", "c": "by ann"}
    assert run.result.usage.calls == crew.calls + 3, "with what the graph's bids took"
    measured = [(e.agent, e.data["score"]) for e in await run.events() if e.what == "measured"]
    assert sorted(measured) == [("ann", 0), ("ann", 1), ("bob", 1), ("graph", 1)]


async def test_each_task_of_a_market_asks_and_is_called_for_again_by_itself(
    crew: Crew, saver: Saver
) -> None:
    agents = [crew.worker("ann", a=[ASK, ASK, "A"], b=ASK, c=[ValueError("no"), "C"])]
    limits = QUICK.model_copy(update={"on_failure": "ask"})
    run = Run(marketplace(agents, policy=limits), saver)
    run.task = tasks("a", "b", "c")
    await run.go()
    assert set(run.asks) == {"a", "b", "c"}
    await run.answer("a", decision="respond", value="think")
    assert set(run.asks) == {"a", "b", "c"}, "it asked again"
    await run.answer("a", decision="respond", value="think again")
    await run.answer("c", decision="respond", value="there is another price")
    assert set(run.asks) == {"b"}
    assert crew.briefs["c"][1].feedback[-1] == "ann says: there is another price"
    await run.answer("b")
    assert run.result.output == {"a": "A", "b": "a thought", "c": "C"}
    events = await run.events()
    assert sum(e.what == "cfp" and e.task == "c" for e in events) == 2
    assert sum(e.kind == "run" for e in events) == 1
    assert run.result.usage.calls == crew.calls


async def test_a_person_who_holds_a_market_keeps_no_judge_from_the_others(
    crew: Crew, saver: Saver
) -> None:
    verdicts = [Verdict(decision="revise", reason="no"), Verdict(decision="accept")]
    agents = [crew.worker("ann", a=ASK, b="by ann"), crew.worker("bob", b="by bob")]
    graph = marketplace(agents, bids=bids(ann=1, bob=2), judge=crew.judge(*verdicts), policy=QUICK)
    run = Run(graph, saver)
    run.task = tasks("a", "b")
    await run.go()
    assert set(run.asks) == {"a"}
    assert [name for name, part in crew.by if part == "b"] == ["ann", "critic", "bob", "critic"]
    await run.answer("a")
    assert run.result.output == {"a": "a thought", "b": "by bob"}
    assert run.result.usage.calls == crew.calls
