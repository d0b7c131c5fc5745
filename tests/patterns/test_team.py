"""A team works on a plan without barriers, and what went wrong is a result, never an exception."""

import asyncio

import pytest

from kapelle.graphs import manager_worker
from kapelle.state.budget import Usage
from kapelle.state.context import Claim
from kapelle.state.policy import Policy
from kapelle.state.task import Plan, Reply, Task, why_not
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

DIAMOND = [task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")]


# ── the work ──────────────────────────────────────────────────────────────────────────────────


async def test_every_part_is_done_once_after_what_it_needs(crew: Crew, everywhere: Saver) -> None:
    team = manager_worker(plan=crew.planner(DIAMOND), workers=[crew.worker()], policy=QUICK)
    result = (await Run(team, everywhere).go()).result
    assert (result.status, result.output, result.missing) == ("done", "d(b,c)", ())
    assert crew.did == {"task": 1, "a": 1, "b": 1, "c": 1, "d": 1}
    order = [t for _, t in crew.by]
    assert order.index("a") < min(order.index("b"), order.index("c"))
    assert order[-1] == "d"


async def test_a_part_is_given_the_results_it_needs_and_the_goal_of_all(
    crew: Crew, memory: Saver
) -> None:
    team = manager_worker(plan=crew.planner(DIAMOND), workers=[crew.worker()], policy=QUICK)
    await Run(team, memory, goal="win").go()
    (brief,) = crew.briefs["d"]
    assert {i: r.output for i, r in brief.results.items()} == {"b": "b(a)", "c": "c(a)"}
    assert brief.context.goal == "win"
    (asked,) = crew.briefs["task"]
    assert asked.agents == {"worker": ()}


async def test_a_part_starts_when_its_own_needs_are_met_not_when_a_wave_is_over(
    crew: Crew, memory: Saver
) -> None:
    last_began = asyncio.Event()

    async def slow() -> str:
        await last_began.wait()
        return "slow"

    async def last() -> str:
        last_began.set()
        return "last"

    plan = [task("slow"), task("a"), task("b", "a"), task("c", "b")]
    worker = crew.worker(slow=slow, c=last)
    result = (
        await Run(
            manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK), memory
        ).go()
    ).result
    assert result.output == {"slow": "slow", "c": "last"}


async def test_no_more_work_at_once_than_the_policy_says(crew: Crew, memory: Saver) -> None:
    now = most = 0

    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    plan = [task(str(n)) for n in range(12)]
    worker = crew.worker(anything=work)
    policy = QUICK.model_copy(update={"parallel": 3})
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=policy)
    assert (await Run(team, memory).go()).result.status == "done"
    assert most == 3


async def test_work_goes_by_skill_and_evenly(crew: Crew, memory: Saver) -> None:
    plan = [task(f"w{n}", skills=("write",)) for n in range(4)] + [task("r", skills=("read",))]
    workers = [
        crew.worker("ann", ["write.prose"]),
        crew.worker("bob", ["write"]),
        crew.worker("cyd", ["read"]),
    ]
    await Run(manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK), memory).go()
    done = [name for name, t in crew.by if t != "task"]
    assert sorted(done) == ["ann", "ann", "bob", "bob", "cyd"]


async def test_without_a_saver_it_works_as_well(crew: Crew) -> None:
    team = manager_worker(plan=crew.planner(DIAMOND), workers=[crew.worker()], policy=QUICK)
    assert (await Run(team).go()).result.output == "d(b,c)"


async def test_a_plan_may_be_a_plan(crew: Crew, memory: Saver) -> None:
    plan = Plan(tasks=tuple(DIAMOND))
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=QUICK)
    assert (await Run(team, memory).go()).result.status == "done"


# ── what fails ────────────────────────────────────────────────────────────────────────────────


async def test_one_failing_worker_costs_no_sibling_its_result(
    crew: Crew, everywhere: Saver
) -> None:
    plan = [task("a"), task("b"), task("c", "a"), task("d", "b"), task("e", "c")]
    worker = crew.worker(a=ValueError("no"))
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    result = (await Run(team, everywhere).go()).result
    assert (result.status, result.output) == ("partial", {"d": "d(b)"})
    assert result.missing == ("a", "c", "e")
    assert {name: why_not(part) for name, part in result.parts.items()} == {
        "a": "worker raised ValueError: no",
        "c": "no result of a",
        "e": "no result of c",
    }
    assert crew.did == {"task": 1, "b": 1, "d": 1}


async def test_if_nothing_was_done_it_failed_and_says_why(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b", "a")]
    worker = crew.worker(a=ValueError("no such file"))
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output, result.missing) == ("failed", None, ("a", "b"))
    assert result.failure is not None
    assert "no such file" in result.failure.message


async def test_a_second_worker_takes_over_and_is_told_why(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b", "a"), task("c")]
    workers = [crew.worker("ann", a=ValueError("no")), crew.worker("bob")]
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK)
    result = (await Run(team, saver).go()).result
    assert result.status == "done"
    assert [name for name, t in crew.by if t == "a"] == ["ann", "bob"]
    assert crew.briefs["a"][1].feedback == ("ann raised ValueError: no",)
    assert crew.did["c"] == 1


async def test_two_workers_are_tried_and_no_third(crew: Crew, memory: Saver) -> None:
    workers = [crew.worker(name, a=ValueError("no")) for name in ("ann", "bob", "cyd")]
    two = QUICK.model_copy(update={"agents_per_task": 2, "on_failure": "partial"})
    team = manager_worker(plan=crew.planner([task("a")]), workers=workers, policy=two)
    result = (await Run(team, memory).go()).result
    assert result.status == "failed"
    assert [name for name, t in crew.by if t == "a"] == ["ann", "bob"]


async def test_text_no_database_likes_goes_through(crew: Crew, saver: Saver) -> None:
    odd = "\x00 \ud800 \U0001f600 \u202e"
    plan = [task("a"), task("b")]
    worker = crew.worker(a=ValueError(odd), b="\x00 \U0001f600 \u202e")
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    result = (await Run(team, saver).go()).result
    assert result.output == {"b": "\x00 \U0001f600 \u202e"}


async def test_usage_is_what_all_calls_used_those_done_again_too(crew: Crew, memory: Saver) -> None:
    used = Reply(output="x", usage=Usage(output_tokens=10))
    judge = crew.judge(Verdict(decision="revise", redo={"a": "too short"}))
    workers = [crew.worker("ann", a=used, b=[ValueError("no"), used]), crew.worker("bob", b=used)]
    plan = [task("a", agent="ann"), task("b", priority=1)]
    team = manager_worker(plan=crew.planner(plan), workers=workers, judge=judge, policy=QUICK)
    result = (await Run(team, memory).go()).result
    assert result.status == "done"
    assert result.usage.calls == crew.calls == 7
    assert result.usage.output_tokens == 30


# ── synthesizer and judge ─────────────────────────────────────────────────────────────────────


async def test_a_synthesizer_merges_what_was_done(crew: Crew, saver: Saver) -> None:
    merger = crew.worker("merger", task="merged")
    workers = [crew.worker(b=ValueError("no"))]
    plan = [task("a"), task("b"), task("c")]
    team = manager_worker(plan=crew.planner(plan), workers=workers, synthesize=merger, policy=QUICK)
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output, result.missing) == ("partial", "merged", ("b",))
    brief = crew.briefs["task"][1]
    assert set(brief.results) == {"a", "c"}
    assert brief.missing == {"b": "worker raised ValueError: no"}


async def test_what_was_finished_leaves_even_when_merging_failed(crew: Crew, saver: Saver) -> None:
    merger = crew.worker("merger", task=ValueError("too much"))
    team = manager_worker(
        plan=crew.planner([task("a"), task("b")]), workers=[crew.worker()], synthesize=merger,
        policy=QUICK,
    )  # fmt: skip
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output) == ("partial", {"a": "a()", "b": "b()"})
    assert result.failure is not None
    assert "too much" in result.failure.message


async def test_contradictions_are_found_decided_and_told_to_the_synthesizer(
    crew: Crew, saver: Saver
) -> None:
    def says(value: str, confidence: float) -> Reply:
        return Reply(output=value, claims=(Claim(key="db", value=value, confidence=confidence),))

    merger = crew.worker("merger", task="merged")
    worker = crew.worker(a=says("SQLite", 0.5), b=says("MariaDB", 0.9))
    plan = [task("a"), task("b")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[worker], synthesize=merger, policy=QUICK
    )
    run = await Run(team, saver).go()
    (found,) = run.result.contradictions
    assert found.decision is not None
    assert (found.decision.value, found.decision.rule) == ("MariaDB", "evidence")
    assert [(c.value, c.by, c.task) for c in found.claims] == [
        ("MariaDB", "worker", "b"),
        ("SQLite", "worker", "a"),
    ]
    (decided,) = crew.briefs["task"][1].context.decisions
    assert (decided.key, decided.value, decided.by) == ("db", "MariaDB", ("worker",))
    assert any(e.what == "decided" and "db" in e.why for e in await run.events())


async def test_a_judge_sends_back_one_part_and_all_that_built_on_it(
    crew: Crew, saver: Saver
) -> None:
    judge = crew.judge(Verdict(decision="revise", redo={"b": "too short"}))
    plan = [*DIAMOND, task("e", "a")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[crew.worker()], judge=judge, policy=QUICK
    )
    result = (await Run(team, saver).go()).result
    assert result.status == "done"
    assert {t: crew.did[t] for t in "abcde"} == {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1}
    assert crew.briefs["b"][1].feedback == ("too short",)
    assert crew.briefs["d"][1].feedback == ()
    assert crew.briefs["d"][1].results["b"].revision == 2, "it is given the new one"


async def test_a_judge_that_names_no_part_has_the_whole_merged_again(
    crew: Crew, memory: Saver
) -> None:
    judge = crew.judge(Verdict(decision="revise", reason="say more"))
    merger = crew.worker("merger", task=["short", "longer"])
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], synthesize=merger, judge=judge,
        policy=QUICK,
    )  # fmt: skip
    result = (await Run(team, memory).go()).result
    assert result.output == "longer"
    assert crew.did["a"] == 1
    assert [b.feedback for b in crew.briefs["task"]] == [(), (), (), ("say more",), ()]


async def test_a_judge_sees_all_results_the_draft_and_the_goals(crew: Crew, memory: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], judge=crew.judge(), policy=QUICK
    )
    await Run(team, memory).go()
    seen = crew.briefs["task"][-1]
    assert {i: r.output for i, r in seen.results.items()} == {"a": "a()", "task": "a()"}
    assert seen.goals == {"a": "do a"}


# ── the planner ───────────────────────────────────────────────────────────────────────────────


async def test_a_planner_that_raises_ends_in_a_failed_result(crew: Crew, saver: Saver) -> None:
    team = manager_worker(
        plan=crew.planner(ValueError("no idea")), workers=[crew.worker()], policy=QUICK
    )
    result = (await Run(team, saver).go()).result
    assert result.status == "failed"
    assert result.failure is not None
    assert result.failure.message == "planner raised ValueError: no idea"
    assert result.usage.calls == 1


async def test_a_planner_may_mend_a_plan_that_is_no_dag(crew: Crew, memory: Saver) -> None:
    planner = crew.planner([task("a", "b"), task("b", "a")], [task("a")])
    policy = QUICK.model_copy(update={"attempts": 2})
    team = manager_worker(plan=planner, workers=[crew.worker()], policy=policy)
    assert (await Run(team, memory).go()).result.status == "done"
    (flaw,) = crew.briefs["task"][1].feedback
    assert flaw.startswith("tasks wait for each other: ")


REPLANS = QUICK.model_copy(update={"replans": 1})


async def test_a_new_plan_is_made_for_what_was_lost_and_what_is_done_stays_done(
    crew: Crew, saver: Saver
) -> None:
    first = [task("a"), task("b"), task("c", "b")]
    second = [task("a"), task("b2"), task("c", "b2")]
    worker = crew.worker(b=ValueError("no"))
    team = manager_worker(plan=crew.planner(first, second), workers=[worker], policy=REPLANS)
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output) == ("done", {"a": "a()", "c": "c(b2)"})
    assert {t: crew.did[t] for t in ("a", "b2", "c")} == {"a": 1, "b2": 1, "c": 1}
    told = crew.briefs["task"][1]
    assert told.feedback == (
        "subtask 'b' was not done: worker raised ValueError: no",
        "subtask 'c' was not done: no result of b",
    )
    assert told.results["a"].output == "a()"


async def test_a_lost_part_of_the_same_name_is_tried_again_by_a_new_plan(
    crew: Crew, memory: Saver
) -> None:
    plan = [task("a"), task("b")]
    worker = crew.worker(b=[ValueError("no"), "at last"])
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=REPLANS)
    result = (await Run(team, memory).go()).result
    assert result.output == {"a": "a()", "b": "at last"}
    assert crew.did["a"] == 1


async def test_a_part_that_a_new_plan_words_anew_is_done_anew(crew: Crew, memory: Saver) -> None:
    first = [task("a"), task("b"), task("c", "a")]
    second = [task("a", goal="do a well"), task("c", "a")]
    worker = crew.worker(b=ValueError("no"))
    team = manager_worker(plan=crew.planner(first, second), workers=[worker], policy=REPLANS)
    assert (await Run(team, memory).go()).result.status == "done"
    assert crew.did["a"] == 2
    assert crew.did["c"] == 2, "it was built on what is done anew"


async def test_no_more_new_plans_than_the_policy_says(crew: Crew, memory: Saver) -> None:
    plan = [task("a"), task("b")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[crew.worker(b=ValueError("no"))], policy=REPLANS
    )
    result = (await Run(team, memory).go()).result
    assert (result.status, result.missing) == ("partial", ("b",))
    assert crew.did["task"] == 2


async def test_what_was_finished_leaves_even_when_planning_anew_failed(
    crew: Crew, saver: Saver
) -> None:
    planner = crew.planner([task("a"), task("b")], ValueError("no idea"))
    team = manager_worker(plan=planner, workers=[crew.worker(b=ValueError("no"))], policy=REPLANS)
    result = (await Run(team, saver).go()).result
    assert (result.status, result.output, result.missing) == ("partial", {"a": "a()"}, ("b",))
    assert result.usage.calls == crew.calls


# ── one thread, several tasks ─────────────────────────────────────────────────────────────────


async def test_a_second_task_on_the_thread_starts_afresh(crew: Crew, saver: Saver) -> None:
    judge = crew.judge(Verdict(decision="revise", redo={"a": "no"}))
    team = manager_worker(
        plan=crew.planner(DIAMOND), workers=[crew.worker()], judge=judge, policy=QUICK
    )
    run = await Run(team, saver).go()
    first = dict(crew.did)
    run.task = Task(goal="something else")
    result = (await run.go()).result
    assert result.status == "done"
    assert {t: crew.did[t] - first[t] for t in "abcd"} == dict.fromkeys("abcd", 1)
    assert crew.briefs["a"][-1].context.goal == "something else"
    assert crew.briefs["a"][-1].feedback == ()


async def test_threads_do_not_see_each_other(crew: Crew, saver: Saver) -> None:
    team = manager_worker(plan=crew.planner(DIAMOND), workers=[crew.worker()], policy=QUICK)
    runs = [Run(team, saver, thread=f"t{n}", goal=f"goal {n}") for n in range(3)]
    await asyncio.gather(*(run.go() for run in runs))
    assert [run.result.status for run in runs] == ["done"] * 3
    assert crew.did["a"] == 3


async def test_an_unsure_reply_waits_for_a_person(crew: Crew, saver: Saver) -> None:
    unsure = Reply(output="perhaps", confidence=0.4)
    policy = Policy(timeout=60, backoff=0, attempts=1, min_confidence=0.5)
    team = manager_worker(
        plan=crew.planner([task("a"), task("b", "a")]), workers=[crew.worker(a=unsure)],
        policy=policy,
    )  # fmt: skip
    run = await Run(team, saver).go()
    assert "40% sure of 'a'" in run.asks["a"].value.question
    assert run.asks["a"].value.evidence == "perhaps"
    assert (await run.answer()).result.output == "b(a)"
    assert crew.did["a"] == 1


async def test_a_run_that_was_cancelled_goes_on_where_it_was(crew: Crew, everywhere: Saver) -> None:
    let_go = asyncio.Event()

    async def slow() -> str:
        await let_go.wait()
        return "slow"

    plan = [task("a"), task("b", "a"), task("slow"), task("c", "slow")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker(slow=slow)], policy=QUICK)
    run = Run(team, everywhere)
    going = asyncio.ensure_future(run.go())
    async with asyncio.timeout(60):
        while "b" not in await kept(everywhere, run):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    let_go.set()
    run.final = await run.graph.ainvoke(None, run.config, context=run.services, durability="sync")
    assert run.result.output == {"b": "b(a)", "c": "c(slow)"}
    assert crew.did == {"task": 1, "a": 1, "b": 1, "slow": 1, "c": 1}


async def kept(saver: Saver, run: Run) -> set[str]:
    """The parts whose results the step at work has written."""
    found = await saver.aget_tuple(run.config)  # type: ignore[arg-type]
    writes = found.pending_writes or () if found else ()
    return {part for _, channel, value in writes if channel == "results" for part in value}
