"""A stream of items flows through a pipeline, each for itself and none waiting for another."""

import asyncio
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import FunctionAgent, agent, as_agent
from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


def streamed(stages: list[Any], saver: object, *items: Any, **more: Any) -> Run:
    """A run of a pipeline on these items."""
    run = Run(pipeline(stages, policy=more.pop("policy", QUICK), **more), saver)
    run.task = Task(goal="all of them", inputs={"items": list(items), "tone": "warm"})
    return run


def doing(name: str, crew: Crew, **by_item: object) -> FunctionAgent:
    """An agent that says its name and the item; or what the script has for it, errors raised."""
    seen: dict[str, int] = {}

    @agent(name=name)
    async def work(task: Task) -> object:
        thing = str(task.inputs["item"])
        crew.by.append((name, thing))
        seen[thing] = seen.get(thing, 0) + 1
        answer = by_item.get(thing, f"{name} {thing}")
        if isinstance(answer, list):
            answer = answer[min(seen[thing], len(answer)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return work


async def test_what_came_of_each_item_leaves_in_the_order_of_the_items(
    crew: Crew, saver: Saver
) -> None:
    result = (await streamed([doing("find", crew), doing("say", crew)], saver, *"abc").go()).result
    assert (result.status, result.output) == ("done", ["say a", "say b", "say c"])
    assert result.usage.calls == 6


async def test_without_items_there_is_nothing_to_do(crew: Crew, saver: Saver) -> None:
    result = (await streamed([doing("find", crew)], saver).go()).result
    assert (result.status, result.output) == ("done", [])


async def test_a_stream_longer_than_the_policy_allows_is_refused(crew: Crew, memory: Saver) -> None:
    run = streamed([doing("find", crew)], memory, *"abc", policy=change(max_tasks=2))
    result = (await run.go()).result
    assert (result.status, crew.by) == ("refused", [])


async def test_one_bad_item_costs_no_other(crew: Crew, saver: Saver) -> None:
    stages = [doing("find", crew), doing("say", crew, b=ValueError("no")), doing("last", crew)]
    result = (await streamed(stages, saver, *"abc").go()).result
    assert (result.status, result.output) == ("partial", ["last a", None, "last c"])
    assert result.missing == ("1/say", "1/last")
    assert result.parts["1"].output == {"find": "find b"}
    assert result.failure is not None
    assert result.failure.message == "say raised ValueError: no"


async def test_items_are_sent_back_and_stopped_each_for_itself(crew: Crew, saver: Saver) -> None:
    def gate(output: object) -> object:
        if output == "hopeless":
            return Verdict(decision="stop", reason="hopeless")
        return output != "bad" or "bad"

    stage = doing("say", crew, a=["bad", "good"], b="hopeless")
    result = (await streamed([stage], saver, *"abc", gates=gate).go()).result
    assert result.output == ["good", None, "say c"]
    assert sorted(crew.by) == [("say", "a"), ("say", "a"), ("say", "b"), ("say", "c")]


async def test_an_item_that_turns_to_a_person_holds_up_no_other(crew: Crew, saver: Saver) -> None:
    ask = Escalation(question="Send it?", evidence="a draft")
    stages = [doing("say", crew, a=ask, c=ask), doing("last", crew)]
    run = await streamed(stages, saver, *"abc").go()
    assert set(run.asks) == {"0/say", "2/say"}
    assert ("last", "b") in crew.by
    await run.answer("0/say")
    assert set(run.asks) == {"2/say"}
    assert ("last", "a") in crew.by, "the other ask holds up nothing either"
    await run.answer("2/say", decision="reject", reason="no")
    assert run.result.output == ["last a", "last b", None]
    assert len(crew.by) == len(set(crew.by)) == 5, "nothing was done twice"


async def test_no_more_items_flow_at_once_than_the_policy_says(crew: Crew, memory: Saver) -> None:
    at_work, most, three = 0, 0, asyncio.Barrier(3)

    @agent(name="busy")
    async def busy(task: Task) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await three.wait()
        at_work -= 1

    await streamed([busy], memory, *range(9), policy=change(parallel=3)).go()
    assert most == 3


async def test_a_budget_holds_for_all_items_together(crew: Crew, memory: Saver) -> None:
    run = streamed([doing("say", crew)], memory, *"abcde", policy=change(budget=Budget(calls=3)))
    result = (await run.go()).result
    assert (result.status, len(crew.by), len(result.missing)) == ("partial", 3, 2)


async def test_a_person_is_asked_once_for_all_items_the_budget_stopped(
    crew: Crew, saver: Saver
) -> None:
    stages = [doing("find", crew), doing("say", crew)]
    policy = change(budget=Budget(calls=6), on_budget="ask")
    run = await streamed(stages, saver, *"abcde", policy=policy).go()
    (ask,) = run.asks.values()
    assert ask.value.evidence["add"] == {"tokens": 0, "calls": 4}
    assert len(ask.value.evidence["missing"]) == 4
    await run.answer()
    assert (run.result.status, run.result.output) == ("done", [f"say {item}" for item in "abcde"])
    assert len(crew.by) == len(set(crew.by)) == run.result.usage.calls == 10, "nothing twice"


async def test_what_is_added_too_little_of_is_asked_for_again(crew: Crew, saver: Saver) -> None:
    policy = change(budget=Budget(calls=2), on_budget="ask", parallel=1)
    run = await streamed([doing("say", crew)], saver, *"abcde", policy=policy).go()
    await run.answer(decision="edit", value={"calls": 2})
    (ask,) = run.asks.values()
    assert ask.value.evidence["missing"] == ["4/say"]
    await run.answer()
    assert (run.result.status, len(crew.by)) == ("done", 5)


async def test_a_stream_nobody_adds_to_leaves_what_it_has(crew: Crew, saver: Saver) -> None:
    stages = [doing("find", crew), doing("say", crew)]
    policy = change(budget=Budget(calls=3), on_budget="ask", parallel=1)
    run = await streamed(stages, saver, *"abc", policy=policy).go()
    await run.answer(decision="reject", reason="enough")
    result = run.result
    assert (result.status, result.output) == ("partial", ["say a", None, None])
    assert result.missing == ("1/say", "2/find", "2/say")
    assert result.parts["1"].output == {"find": "find b"}
    assert result.failure is not None
    assert result.failure.wanted == Usage(calls=3)
    assert len(crew.by) == 3


async def test_an_item_goes_on_at_its_judge_with_what_it_was_told_and_what_was_made_of_it(
    crew: Crew, saver: Saver
) -> None:
    judge = crew.judge(Verdict(decision="revise", reason="too short"))
    policy = change(budget=Budget(calls=3), on_budget="ask", parallel=1)
    stage = doing("say", crew, a=["short", "long"])
    run = await streamed([stage], saver, "a", gates=judge, policy=policy).go()
    assert [name for name, _ in crew.by] == ["say", "critic", "say"]
    assert run.asks["task"].value.evidence["missing"] == ["0/say"]
    await run.answer()
    assert run.result.output == ["long"]
    assert [name for name, _ in crew.by] == ["say", "critic", "say", "critic"]
    assert run.result.usage.calls == 4


async def test_an_item_a_person_is_asked_about_and_one_the_budget_stopped_are_two_asks(
    crew: Crew, saver: Saver
) -> None:
    stages = [doing("say", crew, a=Escalation(question="Send it?", evidence="a draft"))]
    policy = change(budget=Budget(calls=2), on_budget="ask", parallel=1)
    run = await streamed(stages, saver, *"abc", policy=policy).go()
    assert set(run.asks) == {"0/say"}
    await run.answer()
    assert set(run.asks) == {"task"}
    await run.answer()
    assert run.result.output == ["a draft", "say b", "say c"]


async def test_a_team_may_be_a_stage_of_each_item(crew: Crew, saver: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("x"), task("y", "x")]), workers=[crew.worker()], policy=QUICK
    )
    stages = [as_agent(team, name="team"), crew.worker("last")]
    result = (await streamed(stages, saver, 1, 2).go()).result
    assert (result.status, len(crew.by)) == ("done", 8)


async def test_a_stream_may_be_a_part_of_a_team(crew: Crew, saver: Saver) -> None:
    line = as_agent(pipeline([doing("say", crew, b=ValueError("no"))], policy=QUICK), name="line")
    plan = [task("all", inputs={"items": ["a", "b"]}), task("after", "all", agent="other")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[line, crew.worker("other")], policy=QUICK
    )
    result = (await Run(team, saver).go()).result
    assert crew.briefs["after"][0].results["all"].output == ["say a", None]
    assert result.missing == ("all/1/say",)


@pytest.mark.parametrize("parallel", [10, 1])
def test_no_item_waits_for_another_between_stages(parallel: int) -> None:
    clock = VirtualClock()
    seconds = [[5.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 5.0], [2.0, 2.0, 2.0]]

    def working(number: int) -> FunctionAgent:
        @agent(name=f"stage {number}")
        async def work(task: Task) -> None:
            times: Any = task.inputs["item"]
            await clock.sleep(times[number])

        return work

    run = streamed([working(n) for n in range(3)], None, *seconds, policy=change(parallel=parallel))
    clock.run(run.go())
    expected = max(map(sum, seconds)) if parallel > 1 else sum(map(sum, seconds))
    assert clock.passed == pytest.approx(expected, abs=0.1)  # what a thread takes is real
