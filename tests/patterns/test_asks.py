"""A team that needs a person stops there and nowhere else, and then repeats nothing."""

import asyncio
from itertools import permutations
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.graphs import manager_worker
from kapelle.state.approval import Choice, Escalation
from kapelle.state.policy import Policy
from kapelle.state.task import Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


# ── a worker asks ─────────────────────────────────────────────────────────────────────────────


async def test_dependents_park_independent_work_finishes_and_nothing_repeats(
    crew: Crew, everywhere: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("c", "b"), task("x"), task("y", "x")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker(a=ASK)], policy=QUICK)
    run = await Run(team, everywhere).go()
    assert set(run.asks) == {"a"}
    assert crew.did == {"task": 1, "a": 1, "x": 1, "y": 1}
    await run.answer()
    assert run.result.output == {"c": "c(b)", "y": "y(x)"}
    assert crew.did == dict.fromkeys(["task", "a", "b", "c", "x", "y"], 1)
    assert crew.briefs["b"][0].results["a"].output == "a thought"


async def test_the_ask_shows_what_the_worker_asked(crew: Crew, saver: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker(a=ASK)], policy=QUICK
    )
    shown = (await Run(team, saver).go()).asks["a"].value
    assert shown == ASK.model_copy(update={"task": "a", "by": "worker"})


@pytest.mark.parametrize(
    ("decision", "more", "output"),
    [("approve", {}, "a thought"), ("edit", {"value": "better"}, "better")],
)
async def test_what_a_person_accepts_or_replaces_is_the_result(
    crew: Crew, saver: Saver, decision: Choice, more: dict[str, Any], output: str
) -> None:
    plan = [task("a"), task("b", "a")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker(a=ASK)], policy=QUICK)
    run = await (await Run(team, saver).go()).answer(decision=decision, **more)
    assert run.result.status == "done"
    assert crew.briefs["b"][0].results["a"].output == output
    assert crew.did["a"] == 1


async def test_what_a_person_rejects_is_missing_with_all_that_needed_it(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("x")]
    workers = [crew.worker("ann", a=ASK), crew.worker("bob", a=ASK)]
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=change(on_failure="ask"))
    run = await (await Run(team, saver).go()).answer(decision="reject", reason="no")
    assert (run.result.status, run.result.output) == ("partial", {"x": "x()"})
    assert run.result.missing == ("a", "b")
    assert crew.did == {"task": 1, "a": 1, "x": 1}, "nobody else is asked to do it"


async def test_what_a_person_wants_done_again_is_done_again_as_they_said(
    crew: Crew, saver: Saver
) -> None:
    plan = [task("a"), task("b", "a"), task("x")]
    worker = crew.worker(a=[ASK, "thought through"])
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await (await Run(team, saver).go()).answer(decision="respond", value="think")
    assert run.result.status == "done"
    assert crew.briefs["a"][1].feedback == ("ann says: think",)
    assert crew.briefs["b"][0].results["a"].output == "thought through"
    assert crew.did == {"task": 1, "a": 2, "b": 1, "x": 1}


async def test_whoever_was_told_once_may_ask_again(crew: Crew, memory: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker(a=ASK)], policy=QUICK
    )
    run = await Run(team, memory).go()
    first = run.asks["a"].id
    await run.answer(decision="respond", value="think")
    assert run.asks["a"].id != first
    assert (await run.answer()).result.output == "a thought"


@pytest.mark.parametrize("order", list(permutations("abc")))
async def test_several_asks_are_answered_in_any_order(
    crew: Crew, memory: Saver, order: tuple[str, ...]
) -> None:
    plan = [task("a"), task("b"), task("c"), task("d", "a"), task("e", "a", "b", "c")]
    worker = crew.worker(a=ASK, b=ASK, c=ASK)
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, memory).go()
    assert set(run.asks) == set("abc")
    for n, name in enumerate(order):
        assert set(run.asks) == set(order[n:])
        await run.answer(name, decision="edit", value=name.upper())
        assert crew.did["d"] == int("a" in order[: n + 1]), "at once when it can be done"
    assert run.result.output == {"d": "d(a)", "e": "e(a,b,c)"}
    given = crew.briefs["e"][0].results
    assert [given[i].output for i in "abc"] == ["A", "B", "C"]
    assert crew.did == dict.fromkeys(["task", *"abcde"], 1)


async def test_several_asks_are_answered_at_once(crew: Crew, everywhere: Saver) -> None:
    worker = crew.worker(a=ASK, b=ASK)
    plan = [task("a"), task("b"), task("c", "a", "b")]
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await (await Run(team, everywhere).go()).answer("a", "b")
    assert run.result.output == "c(a,b)"
    assert crew.did == dict.fromkeys(["task", *"abc"], 1)


async def test_one_ask_after_the_other_along_a_chain(crew: Crew, saver: Saver) -> None:
    worker = crew.worker(a=ASK, b=ASK, c=ASK)
    plan = [task("a"), task("b", "a"), task("c", "b")]
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, saver).go()
    for name in "abc":
        assert set(run.asks) == {name}
        await run.answer()
    assert run.result.output == "a thought"
    assert crew.did == dict.fromkeys(["task", *"abc"], 1)


async def test_going_on_without_an_answer_changes_nothing(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b", "a"), task("x")]
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker(a=ASK)], policy=QUICK)
    run = await Run(team, saver).go()
    before, done = run.asks["a"].id, dict(crew.did)
    run.final = await run.graph.ainvoke(None, run.config, context=run.services)
    assert run.asks["a"].id == before
    assert crew.did == done


def test_waiting_for_a_person_is_outside_every_timeout(crew: Crew, memory: Saver) -> None:
    clock, hour = VirtualClock(), 3_600.0
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker(a=ASK)], policy=change(timeout=hour)
    )

    async def answered_late() -> Run:
        run = await Run(team, memory).go()
        await asyncio.sleep(9 * hour)
        return await run.answer()

    assert clock.run(answered_late()).result.status == "done"
    assert clock.passed >= 9 * hour


# ── nobody could do it ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("decision", "more", "output", "tries"),
    [
        ("edit", {"value": "by hand"}, "b(a)", 1),
        ("reject", {}, {"x": "x()"}, 1),
        ("respond", {"value": "use the other door"}, "b(a)", 2),
    ],
)
async def test_a_person_may_be_asked_what_to_do_with_a_part_nobody_could_do(
    crew: Crew, saver: Saver, decision: Choice, more: dict[str, Any], output: object, tries: int
) -> None:
    plan = [task("x"), task("a"), task("b", "a")]
    worker = crew.worker(a=[ValueError("locked"), "through"])
    team = manager_worker(
        plan=crew.planner(plan), workers=[worker], policy=change(on_failure="ask")
    )
    run = await Run(team, saver).go()
    shown = run.asks["a"].value
    assert shown.offers == ("edit", "reject", "respond")
    assert "locked" in shown.reason
    assert crew.did == {"task": 1, "x": 1}
    await run.answer(decision=decision, **more)
    left = run.result.output
    assert left in (output, {"x": "x()", "b": output})
    assert sum(t == "a" for _, t in crew.by) == tries
    assert crew.did["x"] == 1


# ── the plan ──────────────────────────────────────────────────────────────────────────────────

RING = [task("a", "b"), task("b", "a")]
GOOD = [{"id": "a", "goal": "do a"}]


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (RING, "tasks wait for each other: "),
        ([task("a"), task("a")], "task id 'a' is used 2 times"),
        ([task("a", "nowhere")], "task 'a' needs 'nowhere', which is not in the plan"),
        ([task("a", skills=("fly",))], "nobody fits task 'a', which wants skills fly"),
        ([], "the plan has no tasks"),
        ("prose", "a valid tuple"),
        ([{"id": "a"}], "goal: Field required"),
    ],
)
async def test_a_person_is_asked_about_a_plan_that_cannot_be_worked_on(
    crew: Crew, memory: Saver, plan: object, why: str
) -> None:
    team = manager_worker(plan=crew.planner(plan), workers=[crew.worker()], policy=QUICK)
    run = await Run(team, memory).go()
    shown = run.asks["task"].value
    assert (shown.about, shown.offers) == ("plan", ("edit", "reject", "respond"))
    assert why in shown.reason
    await run.answer(decision="edit", value=GOOD)
    assert run.result.output == "a()"


async def test_a_person_s_plan_is_checked_as_well(crew: Crew, saver: Saver) -> None:
    team = manager_worker(plan=crew.planner(RING), workers=[crew.worker()], policy=QUICK)
    run = await Run(team, saver).go()
    await run.answer(decision="edit", value=[{"id": "a", "goal": "x", "needs": ["a"]}])
    assert "wait for each other" in run.asks["task"].value.reason
    await run.answer(decision="edit", value="prose")
    assert run.asks["task"].value.evidence == "prose"
    await run.answer(decision="edit", value={"tasks": GOOD})
    assert run.result.status == "done"


async def test_a_plan_a_person_rejects_ends_the_run(crew: Crew, saver: Saver) -> None:
    team = manager_worker(plan=crew.planner(RING), workers=[crew.worker()], policy=QUICK)
    run = await (await Run(team, saver).go()).answer(decision="reject", reason="too dear")
    assert run.result.status == "refused"
    assert run.result.failure is not None
    assert run.result.failure.message == "ann rejected it: too dear"
    assert run.result.usage.calls == crew.calls


async def test_a_planner_is_told_what_a_person_says(crew: Crew, saver: Saver) -> None:
    team = manager_worker(
        plan=crew.planner(RING, [task("a")]), workers=[crew.worker()], policy=QUICK
    )
    run = await (await Run(team, saver).go()).answer(decision="respond", value="no circles")
    assert run.result.status == "done"
    assert "ann says: no circles" in crew.briefs["task"][1].feedback


@pytest.mark.parametrize(
    ("decision", "more", "did"),
    [
        ("approve", {}, {"task": 1, "a": 1, "b": 1}),
        ("edit", {"value": [{"id": "z", "goal": "z"}]}, {"task": 1, "z": 1}),
        ("reject", {}, {"task": 1}),
    ],
)
async def test_plans_are_shown_before_work_starts_if_the_policy_says_so(
    crew: Crew, saver: Saver, decision: Choice, more: dict[str, Any], did: dict[str, int]
) -> None:
    plan = [task("a"), task("b", "a")]
    team = manager_worker(
        plan=crew.planner(plan), workers=[crew.worker()], policy=change(approve_plan=True)
    )
    run = await Run(team, saver).go()
    assert crew.did == {"task": 1}
    shown = run.asks["task"].value
    assert [t["id"] for t in shown.evidence["tasks"]] == ["a", "b"]
    await run.answer(decision=decision, **more)
    assert crew.did == did
    assert run.result.status == ("refused" if decision == "reject" else "done")


async def test_a_plan_a_person_wants_otherwise_is_made_and_shown_again(
    crew: Crew, saver: Saver
) -> None:
    planner = crew.planner([task("a")], [task("b")])
    team = manager_worker(plan=planner, workers=[crew.worker()], policy=change(approve_plan=True))
    run = await (await Run(team, saver).go()).answer(decision="respond", value="another")
    assert [t["id"] for t in run.asks["task"].value.evidence["tasks"]] == ["b"]
    assert (await run.answer()).result.output == "b()"
    assert crew.did == {"task": 2, "b": 1}


async def test_a_lost_part_that_an_edited_plan_keeps_is_tried_again(
    crew: Crew, memory: Saver
) -> None:
    planner = crew.planner([task("a"), task("b")], RING)
    worker = crew.worker(b=[ValueError("no"), "at last"])
    team = manager_worker(plan=planner, workers=[worker], policy=change(replans=1))
    run = await Run(team, memory).go()
    assert run.asks["task"].value.about == "plan"
    kept = [task("a").model_dump(mode="json"), task("b").model_dump(mode="json")]
    await run.answer(decision="edit", value=kept)
    assert run.result.output == {"a": "a()", "b": "at last"}
    assert crew.did == {"task": 2, "a": 1, "b": 1}


async def test_a_planner_may_turn_to_a_person(crew: Crew, saver: Saver) -> None:
    planner = crew.planner(Escalation(question="Which five?"), [task("a")])
    team = manager_worker(plan=planner, workers=[crew.worker()], policy=QUICK)
    run = await Run(team, saver).go()
    assert run.asks["task"].value.question == "Which five?"
    await run.answer(decision="respond", value="the cheap ones")
    assert run.result.status == "done"
    assert "ann says: the cheap ones" in crew.briefs["task"][1].feedback


# ── the draft ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("decision", "more", "status", "output"),
    [
        ("approve", {}, "done", "draft 1"),
        ("edit", {"value": "mine"}, "done", "mine"),
        ("reject", {"reason": "no"}, "refused", "draft 1"),
        ("respond", {"value": "again"}, "done", "draft 2"),
    ],
)
async def test_a_judge_may_have_a_person_decide(
    crew: Crew, saver: Saver, decision: Choice, more: dict[str, Any], status: str, output: str
) -> None:
    judge = crew.judge(Verdict(decision="ask", reason="a matter of taste"))
    merger = crew.worker("merger", task=["draft 1", "draft 2"])
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], synthesize=merger, judge=judge,
        policy=QUICK,
    )  # fmt: skip
    run = await Run(team, saver).go()
    shown = run.asks["task"].value
    assert (shown.reason, shown.evidence, shown.by) == ("a matter of taste", "draft 1", "critic")
    await run.answer(decision=decision, **more)
    assert (run.result.status, run.result.output) == (status, output)
    assert crew.did["a"] == 1
    assert run.result.usage.calls == crew.calls


async def test_a_judge_that_is_never_content_ends_at_a_person(crew: Crew, saver: Saver) -> None:
    judge = crew.worker("critic", anything=Verdict(decision="revise", redo={"a": "no"}))
    team = manager_worker(
        plan=crew.planner([task("a"), task("x")]), workers=[crew.worker()], judge=judge,
        policy=change(rounds=2),
    )  # fmt: skip
    run = await Run(team, saver).go()
    assert "does not accept" in run.asks["task"].value.question
    assert (crew.did["a"], crew.did["x"]) == (3, 1)
    assert (await run.answer()).result.status == "done"


@pytest.mark.parametrize("broken", [ValueError("blind"), "prose", {"decision": "maybe"},
                                    Verdict(decision="revise", redo={"nowhere": "?"})])  # fmt: skip
async def test_a_judge_that_gives_no_verdict_is_no_judge_and_a_person_is_asked(
    crew: Crew, memory: Saver, broken: object
) -> None:
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()],
        judge=crew.worker("critic", anything=broken), policy=QUICK,
    )  # fmt: skip
    run = await Run(team, memory).go()
    assert "no verdict" in run.asks["task"].value.reason
    assert (await run.answer()).result.output == "a()"


async def test_a_synthesizer_may_turn_to_a_person(crew: Crew, saver: Saver) -> None:
    merger = crew.worker("merger", task=ASK)
    team = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], synthesize=merger, policy=QUICK
    )
    run = await Run(team, saver).go()
    assert run.asks["task"].value.about == "result"
    assert (await run.answer(decision="edit", value="ours")).result.output == "ours"


# ── after a run that waits ────────────────────────────────────────────────────────────────────


async def test_a_second_task_on_the_thread_forgets_what_was_asked(crew: Crew, saver: Saver) -> None:
    plan = [task("a"), task("b", "a")]
    worker = crew.worker(a=[ASK, "sure"])
    team = manager_worker(plan=crew.planner(plan), workers=[worker], policy=QUICK)
    run = await Run(team, saver).go()
    assert run.asks
    run.task = Task(goal="another")
    assert (await run.go()).result.output == "b(a)"
