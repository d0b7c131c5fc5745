"""A market calls for proposals, awards by the deadline, and asks a person where nobody is left."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from kapelle.drills import VirtualClock
from kapelle.graphs import marketplace
from kapelle.nodes.agent import FunctionAgent, agent
from kapelle.nodes.measuring import known_outcomes
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Choice, Escalation
from kapelle.state.budget import Budget
from kapelle.state.errors import Misbuilt
from kapelle.state.event import Event
from kapelle.state.offer import Offer
from kapelle.state.skills import Ontology
from kapelle.state.task import Reply, Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")
ASKING = QUICK.model_copy(update={"on_failure": "ask", "agents_per_task": 2})


def cheap(price: int, **more: Any) -> Offer:
    """An offer at this price."""
    return Offer(price=price, **more)


def messages(events: list[Event]) -> Counter[str]:
    """How many messages there were, by performative."""
    return Counter(e.what for e in events if e.kind == "message")


def told(events: list[Event], what: str) -> list[str]:
    """Who was told this, in order."""
    return [str(e.data["to"]) for e in events if e.kind == "message" and e.what == what]


def awarded(events: list[Event]) -> list[str]:
    """Who got something, in order."""
    return [e.agent for e in events if e.kind == "choice" and e.what == "awarded"]


def stored(graph: Pattern, saver: Saver, store: InMemoryStore, **more: Any) -> Run:
    """A run with a store."""
    run = Run(graph, saver, **more)
    run.graph = graph.compile(checkpointer=saver, store=store)
    return run


def in_virtual_time(work: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    """Do it on a virtual clock."""
    clock = VirtualClock()
    clock.run(work(clock))


# ── happy ─────────────────────────────────────────────────────────────────────────────────────


async def test_the_best_bid_gets_the_task(crew: Crew, everywhere: Saver) -> None:
    bids = {"dear": cheap(900), "fair": cheap(500), "cheap": cheap(100)}
    graph = marketplace([crew.worker(name) for name in bids], bids=bids, policy=QUICK)
    run = await Run(graph, everywhere).go()
    assert (run.result.task, run.result.status, run.result.agent) == ("task", "done", "cheap")
    assert crew.by == [("cheap", "task")]
    assert crew.briefs["task"][0].context.goal == "all of it"
    assert run.result.usage.calls == 1
    assert messages(await run.events()) == {
        "cfp": 3, "propose": 3, "reject-proposal": 2, "accept-proposal": 1, "inform": 1
    }  # fmt: skip


async def test_without_a_saver_it_works_as_well(crew: Crew) -> None:
    assert (await Run(marketplace([crew.worker()], policy=QUICK)).go()).result.output == "task()"


@pytest.mark.parametrize("rule", ["best_value", "vickrey", "assignment", "sequential"])
async def test_each_rule_awards(crew: Crew, saver: Saver, rule: Any) -> None:
    bids = {"a": cheap(300), "b": cheap(200)}
    graph = marketplace([crew.worker(n) for n in bids], bids=bids, rule=rule, policy=QUICK)
    run = await Run(graph, saver).go()
    (award,) = [e for e in await run.events() if e.what == "awarded"]
    assert award.agent == "b"
    assert award.data["price"] == (300 if rule == "vickrey" else 200)


async def test_a_bid_comes_from_the_card_a_function_or_an_agent(crew: Crew, memory: Saver) -> None:
    card = agent(name="card", price=700, seconds=2, confidence=0.9)(lambda task: "by card")
    others = [crew.worker("function"), crew.worker("model")]
    bids = {"function": lambda task: Offer(price=len(task.goal)), "model": crew.worker(
        "model", task=Reply(output={"price": 50, "confidence": 0.4}))}  # fmt: skip
    run = await Run(marketplace([card, *others], bids=bids, policy=QUICK), memory).go()
    offers = {e.agent: e.data["offer"] for e in await run.events() if e.what == "propose"}
    assert offers == {
        "card": {"price": 700, "seconds": 2.0, "confidence": 0.9, "decline": ""},
        "function": {"price": 9, "seconds": 0.0, "confidence": None, "decline": ""},
        "model": {"price": 50, "seconds": 0.0, "confidence": 0.4, "decline": ""},
    }
    assert run.result.agent == "card", "it is the surest, and that outweighs its price"


async def test_only_those_are_called_whose_skills_fit(crew: Crew, memory: Saver) -> None:
    ontology = Ontology.parse("{math: {algebra: , geometry: }, writing: }")
    skills = {"a": ["algebra"], "g": ["geometry"], "w": ["writing"], "m": ["math"]}
    agents = [crew.worker(name, has) for name, has in skills.items()]
    run = Run(marketplace(agents, ontology=ontology, policy=QUICK), memory)
    run.task = Task(goal="solve", skills=("math",))
    assert told(await (await run.go()).events(), "cfp") == ["a", "g", "m"]
    run.task = Task(goal="solve", skills=("algebra",))
    again = [e for e in await (await run.go()).events() if e.data.get("to") == "a"]
    assert run.result.agent == "a"
    assert len([e for e in again if e.what == "cfp"]) == 2


# ── the deadline ──────────────────────────────────────────────────────────────────────────────


def test_three_propose_one_declines_one_is_silent_thirteen_messages(crew: Crew) -> None:
    async def silent(task: Task) -> None:
        await asyncio.sleep(10**6)

    async def thoughtful(task: Task) -> Offer:
        await asyncio.sleep(7)
        return cheap(50)

    bids = {
        "a": thoughtful,
        "b": cheap(60),
        "c": cheap(70),
        "d": Offer(decline="busy"),
        "e": silent,
    }

    async def work(clock: VirtualClock) -> None:
        graph = marketplace([crew.worker(n) for n in bids], bids=bids, deadline=10, policy=QUICK)
        run = Run(graph, InMemorySaver())
        run.services = replace(run.services, clock=clock)
        events = await (await run.go()).events()
        assert messages(events) == {
            "cfp": 5, "propose": 3, "refuse": 1, "reject-proposal": 2, "accept-proposal": 1,
            "inform": 1,
        }  # fmt: skip
        assert sum(messages(events).values()) == 13
        (award,) = [e for e in events if e.what == "awarded"]
        assert (award.agent, award.at) == ("a", 10), "at the deadline, and not later"
        assert int(clock.passed) == 10

    in_virtual_time(work)


def test_once_all_have_answered_it_is_awarded_at_once(crew: Crew) -> None:
    async def thoughtful(task: Task) -> Offer:
        await asyncio.sleep(7)
        return cheap(50)

    async def work(clock: VirtualClock) -> None:
        graph = marketplace([crew.worker("a")], bids={"a": thoughtful}, deadline=100, policy=QUICK)
        await Run(graph, InMemorySaver()).go()
        assert int(clock.passed) == 7

    in_virtual_time(work)


def test_a_late_bid_is_rejected_however_good(crew: Crew) -> None:
    async def work(clock: VirtualClock) -> None:
        async def hogging(task: Task) -> Offer:
            clock.passed += 11  # it does not let go of the process
            return cheap(1)

        bids = {"late": hogging, "punctual": cheap(10**6)}
        graph = marketplace([crew.worker(n) for n in bids], bids=bids, deadline=10, policy=QUICK)
        run = await Run(graph, InMemorySaver()).go()
        events = await run.events()
        assert run.result.agent == "punctual"
        assert told(events, "reject-proposal") == ["late"]
        (why,) = [e.why for e in events if e.what == "reject-proposal"]
        assert why == "it came after 11 s; the deadline was 10 s"

    in_virtual_time(work)


def test_a_bid_that_comes_after_the_award_is_rejected_and_says_so(crew: Crew) -> None:
    async def slow(task: Task) -> Offer:
        await asyncio.sleep(15)
        return cheap(1)

    async def never(task: Task) -> Offer:
        await asyncio.sleep(10**6)
        return cheap(1)

    async def busy() -> str:
        await asyncio.sleep(7)
        return "done"

    async def work(clock: VirtualClock) -> None:
        bids = {"slow": slow, "never": never, "punctual": cheap(10**6)}
        agents = [crew.worker("punctual", task=busy), crew.worker("slow"), crew.worker("never")]
        limits = QUICK.model_copy(update={"timeout": 10**7})
        run = Run(marketplace(agents, bids=bids, deadline=10, policy=limits), InMemorySaver())
        run.services = replace(run.services, clock=clock)
        events = await (await run.go()).events()
        assert run.result.agent == "punctual"
        (award,) = [e for e in events if e.what == "awarded"]
        assert int(award.at) == 10, "nobody waits for it"
        (late,) = [e for e in events if e.what == "propose" and e.agent == "slow"]
        (no,) = [e for e in events if e.what == "reject-proposal"]
        assert (no.data["to"], int(no.at), int(late.at)) == ("slow", 15, 15)
        assert re.fullmatch(r"it came after 15[.\d]* s; the deadline was 10 s", no.why)
        assert late.why == no.why
        assert messages(events) == {
            "cfp": 3, "propose": 2, "reject-proposal": 1, "accept-proposal": 1, "inform": 1
        }  # fmt: skip
        assert int(clock.passed) == 17, "who never answers holds up nobody"
        assert len(asyncio.all_tasks()) == 1, "nor is at work when the market is over"

    in_virtual_time(work)


def test_who_did_not_begin_a_bid_by_the_deadline_makes_none(crew: Crew) -> None:
    began: list[str] = []

    async def slow(task: Task) -> Offer:
        began.append(task.id)
        await asyncio.sleep(15)
        return cheap(1)

    async def busy() -> str:
        await asyncio.sleep(100)
        return "done"

    async def work(clock: VirtualClock) -> None:
        bids = {"a": slow, "b": slow, "punctual": cheap(10)}
        agents = [crew.worker("punctual", task=busy), crew.worker("a"), crew.worker("b")]
        limits = QUICK.model_copy(update={"timeout": 1000, "parallel": 1})
        graph = marketplace(agents, bids=bids, deadline=10, policy=limits)
        await Run(graph, InMemorySaver()).go()
        assert (int(clock.passed), began) == (110, ["task"])

    in_virtual_time(work)


async def test_a_deadline_with_nobody_is_a_state(crew: Crew, everywhere: Saver) -> None:
    bids = {"a": Offer(decline="busy"), "b": lambda task: None}
    graph = marketplace([crew.worker(n) for n in bids], bids=bids, policy=QUICK)
    result = (await Run(graph, everywhere).go()).result
    assert (result.status, crew.by) == ("failed", [])
    assert result.failure is not None
    assert result.failure.kind == "nobody"
    assert result.failure.message == "of 2 that were called, 2 declined"


async def test_a_skill_nobody_knows_is_answered_with_the_nearest(crew: Crew, memory: Saver) -> None:
    run = Run(marketplace([crew.worker("w", ["research.web"])], policy=QUICK), memory)
    run.task = Task(goal="look", skills=("reserch.web",))
    failure = (await run.go()).result.failure
    assert failure is not None
    assert "nobody knows the skill 'reserch.web'; the nearest are 'research.web'" in failure.message


async def test_a_bid_above_what_the_policy_allows_does_not_count(crew: Crew, memory: Saver) -> None:
    bids = {"dear": cheap(1001), "fair": cheap(1000)}
    limits = QUICK.model_copy(update={"max_price": 1000})
    run = await Run(marketplace([crew.worker(n) for n in bids], bids=bids, policy=limits), memory
                    ).go()  # fmt: skip
    assert run.result.agent == "fair"
    assert told(await run.events(), "reject-proposal") == ["dear"]


@pytest.mark.parametrize("broken", [ValueError("no"), "a lot", {"price": -1}])
async def test_who_fails_to_make_a_bid_declines(crew: Crew, memory: Saver, broken: object) -> None:
    bids = {"broken": crew.worker("broken", anything=broken), "sound": cheap(500)}
    run = await Run(marketplace([crew.worker(n) for n in bids], bids=bids, policy=QUICK), memory
                    ).go()  # fmt: skip
    assert run.result.agent == "sound"
    assert messages(await run.events())["refuse"] == 1


async def test_a_bidder_can_neither_bid_for_another_nor_see_other_bids(
    crew: Crew, memory: Saver
) -> None:
    bidder = crew.worker("sly", anything={"price": 1, "agent": "other"})
    graph = marketplace([crew.worker("sly"), crew.worker("other")], bids={"sly": bidder},
                        policy=QUICK)  # fmt: skip
    run = await Run(graph, memory).go()
    assert run.result.agent == "other", "an offer with more in it than an offer is none"
    assert crew.briefs["task"][0].results == {}


# ── stuck ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_failure_is_awarded_to_the_next_best_then_a_person_is_asked(
    crew: Crew, everywhere: Saver
) -> None:
    bids = {"a": cheap(1), "b": cheap(2), "c": cheap(3)}
    agents = [crew.worker(n, task=ValueError(f"{n} broke")) for n in bids]
    run = await Run(marketplace(agents, bids=bids, policy=ASKING), everywhere).go()
    assert [name for name, _ in crew.by] == ["a", "b"], "as many as the policy allows"
    assert crew.briefs["task"][1].feedback == ("a raised ValueError: a broke",)
    ask = run.asks["task"].value
    assert ask.reason == "a, b failed at it: b raised ValueError: b broke"
    assert messages(await run.events())["failure"] == 2
    result = (await run.answer(decision="edit", value="by hand")).result
    assert (result.status, result.output, result.agent) == ("done", "by hand", "ann")


async def test_by_default_what_nobody_does_goes_to_a_person(crew: Crew, saver: Saver) -> None:
    run = await Run(marketplace([crew.worker("a")], bids={"a": lambda task: None}), saver).go()
    assert run.asks["task"].value.offers == ("edit", "reject", "respond")
    result = (await run.answer(decision="reject", reason="never mind")).result
    assert result.status == "refused"


async def test_a_person_may_have_it_called_again(crew: Crew, saver: Saver) -> None:
    bidder = crew.worker("a", anything=[{"decline": "busy"}, {"price": 5}])
    run = await Run(marketplace([crew.worker("a")], bids={"a": bidder}, policy=ASKING), saver).go()
    result = (await run.answer(decision="respond", value="it is urgent")).result
    assert (result.status, result.agent) == ("done", "a")
    assert messages(await run.events())["cfp"] == 2
    assert "ann says: it is urgent" in crew.briefs["task"][-1].feedback
    assert result.usage.calls == 3


async def test_a_dear_award_waits_for_a_person(crew: Crew, saver: Saver) -> None:
    limits = QUICK.model_copy(update={"ask_above": Budget(usd=2)})
    graph = marketplace([crew.worker("a")], bids={"a": cheap(3_000_000)}, policy=limits)
    run = await Run(graph, saver).go()
    assert crew.by == []
    assert run.asks["task"].value.question == "Award 'task' to a for $3.00?"
    assert messages(await run.events())["accept-proposal"] == 0
    assert (await run.answer()).result.agent == "a"


@pytest.mark.parametrize(
    ("decision", "more", "left", "score"),
    [
        ("approve", {}, ("done", "a thought", 1), 1),
        ("edit", {"value": "mine"}, ("done", "mine", 1), 0),
        ("reject", {"reason": "dull"}, ("refused", "a thought", 1), 0),
        ("respond", {"value": "think"}, ("done", "thought through", 2), 1),
    ],
)
async def test_a_contractor_may_turn_to_a_person(
    crew: Crew, everywhere: Saver, decision: Choice, more: Any, left: object, score: float
) -> None:
    store = InMemoryStore()
    worker = crew.worker("a", task=[ASK, "thought through"])
    run = await stored(marketplace([worker], policy=QUICK), everywhere, store).go()
    assert run.asks["task"].value.about == "result"
    assert await known_outcomes(store, "a") == []
    result = (await run.answer(decision=decision, **more)).result
    assert (result.status, result.output, crew.calls) == left
    (outcome,) = await known_outcomes(store, "a")
    assert outcome.score == score


async def test_a_judge_s_verdict_is_what_is_measured(crew: Crew, saver: Saver) -> None:
    store = InMemoryStore()
    bids = {"a": cheap(1), "b": cheap(2)}
    judge = crew.judge(
        Verdict(decision="revise", reason="shallow"), Verdict(decision="accept", score=0.75)
    )
    graph = marketplace([crew.worker(n) for n in bids], bids=bids, judge=judge, policy=QUICK)
    run = await stored(graph, saver, store).go()
    assert (run.result.agent, run.result.usage.calls) == ("b", 4)
    assert [o.score for n in bids for o in await known_outcomes(store, n)] == [0, 0.75]
    assert crew.briefs["task"][2].feedback == ("shallow",)


async def test_what_a_judge_refused_is_not_thrown_away(crew: Crew, memory: Saver) -> None:
    judge = crew.worker("critic", anything=Verdict(decision="revise", reason="shallow"))
    result = (await Run(marketplace([crew.worker("a")], judge=judge, policy=QUICK), memory).go()
              ).result  # fmt: skip
    assert (result.status, result.output) == ("failed", "task()")
    assert result.failure is not None
    assert result.failure.message == "a failed at it: shallow"


async def test_a_judge_may_turn_to_a_person(crew: Crew, saver: Saver) -> None:
    judge = crew.judge(Verdict(decision="ask", reason="delicate"))
    run = await Run(marketplace([crew.worker("a")], judge=judge, policy=QUICK), saver).go()
    assert (run.asks["task"].value.reason, run.asks["task"].value.evidence) == (
        "delicate",
        "task()",
    )
    assert (await run.answer()).result.status == "done"


# ── many tasks at once ────────────────────────────────────────────────────────────────────────


def lots(*tasks: Task) -> Task:
    """A task that has others in it."""
    return Task(id="all", goal="all", inputs={"tasks": [t.model_dump(mode="json") for t in tasks]})


async def test_many_tasks_are_awarded_at_once(crew: Crew, everywhere: Saver) -> None:
    prices = {("a", "x"): 1, ("a", "y"): 2, ("b", "x"): 2, ("b", "y"): 9}

    def bidder(name: str) -> Callable[[Task], Offer]:
        return lambda task: cheap(prices[name, task.id])

    agents = [crew.worker("a"), crew.worker("b")]
    bids = {name: bidder(name) for name in "ab"}
    run = Run(marketplace(agents, bids=bids, rule="assignment", policy=QUICK), everywhere)
    run.task = lots(task("x"), task("y"))
    result = (await run.go()).result
    assert (result.status, result.output) == ("done", {"x": "x()", "y": "y()"})
    assert sorted(crew.by) == [("a", "y"), ("b", "x")], "2 + 2 is less than 1 + 9"


async def test_one_failure_costs_the_others_nothing(crew: Crew, saver: Saver) -> None:
    agents = [crew.worker("a", y=ValueError("no")), crew.worker("b", y=ValueError("no"))]
    run = Run(marketplace(agents, policy=QUICK), saver)
    run.task = lots(task("x"), task("y"), task("z"))
    result = (await run.go()).result
    assert (result.status, result.output) == ("partial", {"x": "x()", "z": "z()"})
    assert result.missing == ("y",)
    assert Counter(t for _, t in crew.by) == {"x": 1, "y": 2, "z": 1}
    assert result.usage.calls == 4


async def test_asks_of_several_tasks_are_answered_in_any_order(crew: Crew, saver: Saver) -> None:
    run = Run(marketplace([crew.worker("a", x=ASK, y=ASK)], policy=QUICK), saver)
    run.task = lots(task("x"), task("y"), task("z"))
    await run.go()
    assert set(run.asks) == {"x", "y"}
    assert crew.did == {"x": 1, "y": 1, "z": 1}
    await run.answer("y", decision="edit", value="Y")
    await run.answer("x", decision="reject")
    assert run.result.output == {"y": "Y", "z": "z()"}
    assert crew.calls == 3, "nothing is done twice"


async def test_tasks_that_need_each_other_are_not_for_a_market(crew: Crew, memory: Saver) -> None:
    run = Run(marketplace([crew.worker()], policy=QUICK), memory)
    run.task = lots(task("x"), task("y", "x"))
    result = (await run.go()).result
    assert (result.status, crew.by) == ("refused", [])
    assert result.failure is not None
    assert "task 'y' needs x" in result.failure.message


async def test_the_urgent_begins_first(crew: Crew, memory: Saver) -> None:
    run = Run(marketplace([crew.worker()], policy=QUICK.model_copy(update={"parallel": 1})), memory)
    run.task = lots(task("x"), task("y", priority=5), task("z", priority=9))
    await run.go()
    assert [t for _, t in crew.by] == ["z", "y", "x"]


# ── reputation ────────────────────────────────────────────────────────────────────────────────


async def test_reputation_is_shared_by_runs_and_decides(crew: Crew, saver: Saver) -> None:
    store = InMemoryStore()
    bids = {"boaster": cheap(1, confidence=0.99), "honest": cheap(1, confidence=0.7)}
    agents = [crew.worker("boaster", task=ValueError("oh")), crew.worker("honest")]
    graph = marketplace(agents, bids=bids, policy=QUICK)
    first = await stored(graph, saver, store, thread="one").go()
    assert awarded(await first.events()) == ["boaster", "honest"]
    second = await stored(graph, saver, store, thread="two").go()
    assert awarded(await second.events()) == ["honest"]
    assert second.final["result"].agent == "honest"


async def test_an_agent_is_judged_by_its_record_in_the_wider_skill(
    crew: Crew, memory: Saver
) -> None:
    store = InMemoryStore()
    agents = [
        crew.worker(n, ["math.algebra", "math.sums"], one=ValueError("no") if n == "a" else "fine")
        for n in "ab"
    ]
    bids = {"a": cheap(1), "b": cheap(2)}
    graph = marketplace(agents, bids=bids, policy=QUICK)
    run = stored(graph, memory, store)
    run.task = Task(id="one", goal="add", skills=("math.sums",))
    assert awarded(await (await run.go()).events()) == ["a", "b"]
    other = stored(graph, memory, store, thread="t2")
    other.task = Task(id="two", goal="solve", skills=("math.algebra",))
    assert awarded(await (await other.go()).events()) == ["b"]


async def test_a_second_task_on_the_thread_starts_afresh(crew: Crew, saver: Saver) -> None:
    store = InMemoryStore()
    run = await stored(marketplace([crew.worker("a")], policy=QUICK), saver, store).go()
    run.task = Task(goal="something else")
    result = (await run.go()).result
    assert result.usage.calls == 1
    assert len(await known_outcomes(store, "a")) == 2, "another award is another outcome"


async def test_a_run_without_a_store_remembers_for_itself(crew: Crew, saver: Saver) -> None:
    bids = {"a": cheap(1), "b": cheap(2)}
    agents = [crew.worker("a", task=ValueError("no")), crew.worker("b", task=ValueError("no"))]
    run = await Run(marketplace(agents, bids=bids, policy=ASKING), saver).go()
    await run.answer(decision="respond", value="again")
    records = (await run.graph.aget_state(run.config)).values["records"]
    assert records["a"].overall.bad == 1


# ── who may enter ─────────────────────────────────────────────────────────────────────────────


async def test_who_is_admitted_from_the_registry_bids_and_works(crew: Crew, saver: Saver) -> None:
    run = Run(marketplace([crew.worker("own")], admits=["guest"], policy=QUICK,
                          bids={"own": cheap(9)}), saver)  # fmt: skip
    for name in ("guest", "stranger"):
        run.services.registry.admit(crew.worker(name))
    await run.go()
    assert told(await run.events(), "cfp") == ["guest", "own"], "no stranger is called"
    assert run.result.agent == "guest"


async def test_a_name_in_the_market_is_nobody_else_s(crew: Crew, memory: Saver) -> None:
    own = crew.worker("own", task="genuine")
    run = Run(marketplace([own], admits=["own"], policy=QUICK), memory)
    run.services.registry.admit(crew.worker("own", task="false"))
    assert (await run.go()).result.output == "genuine"


async def test_a_guest_that_is_gone_costs_it_the_award_not_its_name(
    crew: Crew, memory: Saver
) -> None:
    store = InMemoryStore()

    class Fickle:
        """A registry that knows its guest until it is to work."""

        asked = 0

        def find(self, task: Task, ontology: object = None) -> list[FunctionAgent]:
            self.asked += 1
            return [crew.worker("guest")] if self.asked < 3 else []

    run = stored(
        marketplace([crew.worker("own")], admits=["guest"], policy=QUICK, bids={"own": cheap(9)}),
        memory, store,
    )  # fmt: skip
    run.services = replace(run.services, registry=Fickle())  # type: ignore[arg-type]
    assert (await run.go()).result.agent == "own"
    assert await known_outcomes(store, "guest") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rule": "cheapest"}, "there is no rule 'cheapest'"),
        ({"bids": {"x": Offer()}}, "bids for .'x'."),
        ({"bids": {"a": 3}}, "can't bid"),
        ({"deadline": 0}, "the deadline is 0 s"),
        ({"ontology": Ontology(parents={"maths": None})}, "'math'; the nearest is 'maths'"),
    ],
)
def test_a_market_that_cannot_work_is_not_built(crew: Crew, more: Any, said: str) -> None:
    with pytest.raises(Misbuilt, match=said):
        marketplace([crew.worker("a", ["math"])], **more)


def test_a_market_needs_somebody(crew: Crew) -> None:
    with pytest.raises(Misbuilt, match="no agent"):
        marketplace([])
    with pytest.raises(Misbuilt, match="award"):
        marketplace([crew.worker("award")])


# ── stopped and gone on ───────────────────────────────────────────────────────────────────────


async def goes_on(run: Run) -> None:
    """What `resume` does."""
    run.final = await run.graph.ainvoke(None, run.config, context=run.services, durability="sync")


class Broken(Exception):
    """The process ends here."""


@pytest.mark.parametrize("when", ["announce", "bid", "award", "a", "settle"])
async def test_interrupted_anywhere_it_goes_on_and_records_once(
    crew: Crew, everywhere: Saver, when: str
) -> None:
    store = InMemoryStore()
    bids = {"a": cheap(1), "b": cheap(2)}
    graph = marketplace([crew.worker(n) for n in bids], bids=bids, policy=QUICK)
    run = stored(graph, everywhere, store)
    plain = run.graph
    run.graph = graph.compile(checkpointer=everywhere, store=store, interrupt_after=[when])
    await run.go()
    run.graph = plain
    await goes_on(run)
    assert run.result.agent == "a"
    assert crew.calls == 1
    (outcome,) = await known_outcomes(store, "a")
    assert outcome.score == 1


async def test_settled_twice_an_award_is_measured_once(crew: Crew, memory: Saver) -> None:
    class Frail(InMemoryStore):
        """It keeps what it is given, and then the process ends."""

        frail = True

        async def abatch(self, ops: Any) -> Any:
            ops = list(ops)
            kept = await super().abatch(ops)
            if self.frail and any("reputation" in getattr(op, "namespace", ()) for op in ops):
                self.frail = False
                raise Broken
            return kept

    store = Frail()
    run = stored(marketplace([crew.worker("a")], policy=QUICK), memory, store)
    with pytest.raises(Broken):
        await run.go()
    assert len(await known_outcomes(store, "a")) == 1
    await goes_on(run)
    assert run.result.status == "done"
    assert len(await known_outcomes(store, "a")) == 1
    assert crew.calls == 1
