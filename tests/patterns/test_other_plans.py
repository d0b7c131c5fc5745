"""Another plan: a person wants it, the work stalls, it is too dear. What is finished stays."""

from typing import Any

import pytest

from kapelle.graphs import manager_worker
from kapelle.nodes.agent import Agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget
from kapelle.state.policy import Policy
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

FIRST = [task("a"), task("b", "a"), task("lost")]
NO = ValueError("no")


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


def replanning(crew: Crew, *plans: object, **more: Any) -> Pattern:
    """A team that loses `lost` and has its plans approved."""
    return manager_worker(
        plan=crew.planner(*plans),
        workers=[crew.worker(lost=NO)],
        policy=change(replans=1, approve_plan=True, **more),
    )


# ── what a person says about a plan ───────────────────────────────────────────────────────────


async def test_what_is_finished_and_unchanged_is_not_redone_when_a_person_wants_another_plan(
    crew: Crew, saver: Saver
) -> None:
    second = [task("a", goal="do a otherwise"), task("b", "a")]
    third = [task("a"), task("b", "a"), task("c")]
    run = await Run(replanning(crew, FIRST, second, third), saver).go()
    await run.answer()  # the first plan; `lost` fails, so a second one is proposed
    assert [t["id"] for t in run.asks["task"].value.evidence["tasks"]] == ["a", "b"]
    await run.answer(decision="respond", value="leave a as it was")
    await run.answer()
    assert run.result.output == {"b": "b(a)", "c": "c()"}
    assert (crew.did["a"], crew.did["b"], crew.did["c"]) == (1, 1, 1)


async def test_the_planner_keeps_hearing_what_went_wrong_and_what_was_said(
    crew: Crew, memory: Saver
) -> None:
    run = await Run(replanning(crew, FIRST, [task("a")]), memory).go()
    await run.answer()
    for said in ("shorter", "shorter still"):
        await run.answer(decision="respond", value=said)
    told = crew.briefs["task"][-1].feedback
    assert [said.partition(":")[0] for said in told] == [
        "subtask 'lost' was not done",
        "ann says",
        "ann says",
    ]


async def test_a_person_who_refuses_a_second_plan_is_left_what_was_finished_by_the_first(
    crew: Crew, saver: Saver
) -> None:
    run = await Run(replanning(crew, FIRST, [task("c")]), saver).go()
    await run.answer()
    await run.answer(decision="reject", reason="enough")
    assert (run.result.status, run.result.output) == ("refused", {"b": "b(a)"})
    assert run.result.missing == ("lost",)
    assert run.result.failure is not None
    assert run.result.failure.message == "ann rejected it: enough"
    assert run.result.usage.calls == crew.calls


async def test_a_second_plan_is_worked_by_only_once_it_is_approved(
    crew: Crew, saver: Saver
) -> None:
    run = await Run(replanning(crew, FIRST, [task("c", "a"), task("a")]), saver).go()
    await run.answer()
    assert crew.did["c"] == 0
    await run.answer()
    assert (run.result.status, run.result.output) == ("done", "c(a)")
    assert crew.did["a"] == 1


async def test_approving_what_a_planner_asks_has_it_plan_and_not_work_on_as_before(
    crew: Crew, saver: Saver
) -> None:
    asks = Escalation(question="May I leave `lost` out?")
    team = manager_worker(
        plan=crew.planner(FIRST, asks, [task("a"), task("b", "a")]),
        workers=[crew.worker(lost=NO)], policy=change(replans=1),
    )  # fmt: skip
    run = await Run(team, saver).go()
    assert run.asks["task"].value.question == "May I leave `lost` out?"
    await run.answer(reason="you may")
    assert (run.result.status, run.result.output) == ("done", "b(a)")
    assert crew.briefs["task"][-1].feedback[-1] == "ann says: you may"
    assert crew.did["a"] == 1


async def test_a_plan_that_a_planner_shows_with_its_question_is_worked_by_if_approved(
    crew: Crew, saver: Saver
) -> None:
    shown: Any = [t.model_dump(mode="json") for t in (task("a"), task("b", "a"))]
    asks = Escalation(question="Is this dear plan all right?", evidence={"tasks": shown})
    team = manager_worker(plan=crew.planner(asks), workers=[crew.worker()], policy=QUICK)
    run = await (await Run(team, saver).go()).answer()
    assert run.result.output == "b(a)"
    assert crew.did["task"] == 1


async def test_whoever_works_on_a_part_again_hears_all_that_was_said_about_it(
    crew: Crew, memory: Saver
) -> None:
    judge = crew.judge(
        Verdict(decision="revise", redo={"a": "too short"}),
        Verdict(decision="revise", redo={"a": "too long"}),
    )
    ask = Escalation(question="Well?")
    worker = crew.worker(a=[ask, "1", "2", "3"])
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[worker], judge=judge, policy=QUICK
    )
    run = await (await Run(team, memory).go()).answer(decision="respond", value="think")
    assert run.result.output == "3"
    assert crew.briefs["a"][-1].feedback == ("ann says: think", "too short", "too long")


# ── the work stalls ───────────────────────────────────────────────────────────────────────────


def stalling(crew: Crew, *drafts: object, judge: Agent | None = None, **more: Any) -> Pattern:
    """A team whose part `a` comes back like this, and is not good enough."""
    never = Verdict(decision="revise", reason="still dull", redo={"a": "dull"})
    return manager_worker(
        plan=crew.planner([task("a")], [task("z")]),
        workers=[crew.worker(a=list(drafts))],
        judge=judge or crew.worker("critic", anything=[never] * 3 + [Verdict(decision="accept")]),
        policy=change(rounds=9, **more),
    )


async def test_a_part_that_comes_back_as_it_was_has_the_plan_made_anew(
    crew: Crew, saver: Saver
) -> None:
    run = await Run(stalling(crew, "same", replans=1), saver).go()
    assert (run.result.status, run.result.output) == ("done", "z()")
    assert crew.did["a"] == 3, "the first time, and the one round that may bring nothing"
    assert crew.briefs["task"][-2].feedback == (
        "the result was sent back 3 times; the last time: still dull",
        "subtask 'a': dull",
    )
    stalled = [e for e in await run.events() if e.what == "stalled"]
    assert [e.why for e in stalled] == [crew.briefs["task"][-2].feedback[0]]


async def test_work_that_stalls_where_no_other_plan_may_be_made_is_a_person_s(
    crew: Crew, memory: Saver
) -> None:
    run = await Run(stalling(crew, "same"), memory).go()
    assert crew.did["a"] == 3
    assert (await run.answer()).result.output == "same"


async def test_work_that_gets_on_is_sent_back_as_often_as_the_policy_says(
    crew: Crew, memory: Saver
) -> None:
    run = await Run(stalling(crew, "1", "2", "3", "4", replans=1), memory).go()
    assert run.result.output == "4"
    assert crew.did["task"] == 1 + 4, "one plan, four verdicts"


# ── a plan is judged before work starts ───────────────────────────────────────────────────────


async def test_a_planner_whose_plan_is_too_dear_is_told_and_makes_a_cheaper_one(
    crew: Crew, saver: Saver
) -> None:
    dear, cheap = [task(str(n)) for n in range(9)], [task("a"), task("b")]
    policy = change(budget=Budget(calls=4), attempts=2)
    team = manager_worker(plan=crew.planner(dear, cheap), workers=[crew.worker()], policy=policy)
    run = await Run(team, saver).go()
    assert run.result.status == "done"
    assert crew.briefs["task"][1].feedback == (
        "the plan takes at least 9 calls; the budget leaves 3 of 4",
    )


async def test_a_plan_that_stays_too_dear_is_worked_on_as_far_as_it_goes_by_priority(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b", priority=1), task("c"), task("d", "c", priority=2)]
    policy = change(budget=Budget(calls=4), parallel=1)
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=policy)
    run = await Run(team, memory).go()
    assert (run.result.status, run.result.missing) == ("partial", ("a",))
    (planned,) = [e for e in await run.events() if e.what == "planned"]
    assert "at least 4 calls; the budget leaves 3 of 4" in planned.why


async def test_of_a_plan_made_anew_only_what_is_still_to_do_must_be_paid_for(
    crew: Crew, memory: Saver
) -> None:
    first, second = [task("a"), task("b"), task("lost")], [task("a"), task("b"), task("c")]
    policy = change(replans=1, budget=Budget(calls=6), on_failure="partial")
    team = manager_worker(
        plan=crew.planner(first, second), workers=[crew.worker(lost=NO)], policy=policy
    )
    run = await Run(team, memory).go()
    assert run.result.status == "done"
    assert "within the budget" in [e for e in await run.events() if e.what == "planned"][1].why


# ── priority ──────────────────────────────────────────────────────────────────────────────────


async def test_what_is_urgent_begins_first_and_so_does_what_it_needs(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b"), task("need"), task("urgent", "need", priority=9), task("c")]
    policy = change(parallel=1)
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=policy)
    await Run(team, memory).go()
    assert [t for _, t in crew.by[1:]] == ["need", "a", "urgent", "b", "c"]
    # `a` had its turn already when `need` was done
