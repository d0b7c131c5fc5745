"""No subtask that waits for a person keeps another waiting inside a step."""

from itertools import permutations

import pytest

from kapelle.graphs import manager_worker
from kapelle.nodes.agent import as_agent
from kapelle.state.approval import Escalation
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
