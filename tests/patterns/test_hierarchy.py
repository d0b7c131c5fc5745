"""A tree of managers hands items down, merges what comes back, and redoes alone what failed."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.graphs import hierarchy, manager_worker, pipeline
from kapelle.nodes.agent import FunctionAgent, agent, as_agent
from kapelle.state.approval import Choice, Escalation
from kapelle.state.budget import Budget
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task
from kapelle.state.tree import managers_of, messages_of
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence=1_000)


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


class Leaves:
    """Gives back the item it is given, or what the script has for it, and counts."""

    def __init__(self, **script: object) -> None:
        self.did: Counter[str] = Counter()
        self.tasks: dict[str, Task] = {}
        self.told: dict[str, tuple[str, ...]] = {}
        self.script = {name.removeprefix("n"): answer for name, answer in script.items()}

    @property
    def agent(self) -> FunctionAgent:
        """It as an agent."""

        @agent(name="reader")
        async def read(task: Task, brief: Brief) -> object:
            self.did[task.id] += 1
            self.tasks[task.id], self.told[task.id] = task, brief.feedback
            await asyncio.sleep(0)
            answer = self.script.get(task.id, task.inputs.get("item"))
            if isinstance(answer, list):
                answer = answer[min(self.did[task.id], len(answer)) - 1]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return read


def tree(leaves: Leaves, items: int, saver: object = None, **more: Any) -> Run:
    """A run of a tree that adds up the first whole numbers."""
    more = {"merge": sum, "branching": 3, "policy": QUICK, **more}
    run = Run(hierarchy(leaves.agent, **more), saver)
    run.task = Task(goal="add up", inputs={"items": list(range(items)), "tone": "warm"})
    return run


async def messages(run: Run) -> list[tuple[str, str]]:
    """Every message in the journal: its act, and the child it went to or came from."""
    told = [e for e in await run.events() if e.kind == "message"]
    rows: list[tuple[str, Any]] = [(e.what, e.data.get("to") or e.data.get("from")) for e in told]
    return [(what, name) for what, names in rows for name in names]


@pytest.mark.parametrize("items", [1, 3, 4, 20])
async def test_every_item_is_worked_on_once_and_all_is_merged(
    everywhere: Saver, items: int
) -> None:
    leaves = Leaves()
    result = (await tree(leaves, items, everywhere).go()).result
    assert (result.task, result.status, result.output) == ("task", "done", sum(range(items)))
    assert leaves.did == {str(n): 1 for n in range(items)}
    assert result.usage.calls == items
    assert leaves.tasks["0"].inputs == {"item": 0, "tone": "warm"}


async def test_without_a_saver_it_works_as_well() -> None:
    assert (await tree(Leaves(), 10).go()).result.output == 45


async def test_the_order_of_the_items_is_the_order_of_what_is_merged(memory: Saver) -> None:
    def flat(outputs: list[Any]) -> list[Any]:
        return [n for output in outputs for n in (output if isinstance(output, list) else [output])]

    result = (await tree(Leaves(), 20, memory, merge=flat).go()).result
    assert result.output == list(range(20))


async def test_each_level_is_a_graph_with_a_namespace_of_its_own(memory: Saver) -> None:
    await tree(Leaves(), 9, memory).go()
    kept = [t async for t in memory.alist({"configurable": {"thread_id": "t1"}})]
    places = {t.config["configurable"]["checkpoint_ns"] for t in kept}
    assert Counter(place.count(":") for place in places) == {0: 1, 1: 3}


async def test_a_thousand_items_by_tens_are_2220_messages_all_in_the_journal() -> None:
    run = await tree(Leaves(), 1_000, branching=10).go()
    said = await messages(run)
    assert len(said) == 2_220 == messages_of(1_000, managers_of(1_000, 10))
    assert Counter(said).most_common(1)[0][1] == 1, "each is told once"
    assert Counter(act for act, _ in said) == {"request": 1_110, "inform": 1_110}
    assert run.result.output == 499_500


async def test_a_failed_leaf_is_done_once_more_alone_and_told_why(saver: Saver) -> None:
    leaves = Leaves(n4=[ValueError("dropped it"), 4])
    run = await tree(leaves, 9, saver).go()
    assert (run.result.status, run.result.output) == ("done", 36)
    assert leaves.did == {str(n): 1 for n in range(9)} | {"4": 2}
    assert leaves.told["4"] == ("reader raised ValueError: dropped it",)
    assert run.result.usage.calls == 10
    assert [(e.what, e.task) for e in await run.events() if e.what == "redo"] == [("redo", "4")]


async def test_a_leaf_that_fails_for_good_is_reported_and_costs_no_sibling(
    everywhere: Saver,
) -> None:
    leaves = Leaves(n4=ValueError("no"), n20=ValueError("never"))
    run = await tree(leaves, 27, everywhere).go()
    result = run.result
    assert (result.status, result.output) == ("partial", sum(range(27)) - 24)
    assert result.missing == ("4", "20")
    assert set(result.parts) == {"4", "20"}
    assert result.failure is not None
    assert result.failure.message == "reader raised ValueError: no"
    assert leaves.did["4"] == leaves.did["20"] == 2
    assert ("failure", "4") in await messages(run)


async def test_where_no_leaf_made_anything_the_tree_failed(memory: Saver) -> None:
    leaves = Leaves(**{f"n{n}": ValueError("no") for n in range(5)})
    result = (await tree(leaves, 5, memory, policy=change(redos=0)).go()).result
    assert (result.status, result.output) == ("failed", None)
    assert result.missing == tuple("01234")
    assert set(leaves.did.values()) == {1}


async def test_a_branch_whose_merge_failed_is_redone_without_its_leaves(saver: Saver) -> None:
    leaves, tries = Leaves(), 0

    def moody(outputs: list[int]) -> int:
        nonlocal tries
        tries += outputs == [3, 4, 5]
        if outputs == [3, 4, 5] and tries < 4:
            raise ValueError("not now")
        return sum(outputs)

    result = (await tree(leaves, 9, saver, merge=moody).go()).result
    assert tries == 4, "twice, and twice again by order of the manager above"
    assert (result.status, result.output) == ("done", 36)
    assert set(leaves.did.values()) == {1}


async def test_what_could_not_be_merged_is_not_lost(memory: Saver) -> None:
    def picky(outputs: list[int]) -> int:
        if 4 in outputs:
            raise ValueError("no")
        return sum(outputs)

    result = (await tree(Leaves(), 9, memory, merge=picky).go()).result
    assert (result.status, result.output, result.missing) == ("partial", 24, ("3-5",))
    kept = result.parts["3-5"].parts
    assert [kept[n].output for n in "345"] == [3, 4, 5]


async def test_an_agent_may_merge_and_is_told_what_is_missing(crew: Crew, saver: Saver) -> None:
    @agent(name="editor")
    async def edit(task: Task, brief: Brief) -> object:
        seen.append((list(brief.results), brief.missing))
        return sum(r.output for r in brief.results.values())  # type: ignore[misc]

    seen: list[Any] = []
    result = (await tree(Leaves(n1=ValueError("no")), 6, saver, merge=edit).go()).result
    assert (result.status, result.output, result.agent) == ("partial", 14, "editor")
    assert (["0", "2"], {"1": "reader raised ValueError: no"}) in seen
    assert (["0-2", "3-5"], {}) in seen
    assert result.usage.calls == 6 + 1 + 3


async def test_a_manager_says_what_each_child_is_to_do(crew: Crew, saver: Saver) -> None:
    goals: dict[str, Any] = {"0-2": ["low", "high"], "0": "all low", "3": ["a", "b", "c"]}

    @agent
    async def boss(task: Task) -> object:
        children: Any = task.inputs["children"]
        return goals[children[0]]

    leaves = Leaves()
    run = await tree(leaves, 6, saver, manager=boss).go()
    said = [leaves.tasks[n].goal for n in "012345"]
    assert said == ["all low"] * 3 + ["a", "b", "c"]
    assert (run.result.output, run.result.usage.calls) == (15, 9)


async def test_a_manager_whose_goals_fit_no_child_is_told_so(crew: Crew, memory: Saver) -> None:
    boss = crew.worker("boss", manage=[["too", "few"], ["a", "b", "c"]])
    await tree(Leaves(), 3, memory, manager=boss, policy=change(attempts=2)).go()
    assert "a list of 3" in crew.briefs["manage"][1].feedback[0]


async def test_a_branch_whose_manager_failed_is_missing_as_a_whole(
    crew: Crew, memory: Saver
) -> None:
    boss = crew.worker("boss", manage=ValueError("ill"))
    result = (await tree(Leaves(), 6, memory, manager=boss).go()).result
    assert (result.status, result.missing) == ("failed", ("task",))
    assert crew.calls == 2, "and is tried once more"


ANSWERS: list[tuple[Choice, dict[str, Any], int]] = [
    ("approve", {}, 32 + 1_000),
    ("edit", {"value": 50}, 32 + 50),
    ("reject", {"reason": "no"}, 32),
    ("respond", {"value": "think"}, 32 + 4),
]


@pytest.mark.parametrize(("decision", "more", "output"), ANSWERS)
async def test_a_leaf_may_turn_to_a_person_and_only_what_needs_it_waits(
    everywhere: Saver, decision: Choice, more: dict[str, Any], output: int
) -> None:
    merged: list[list[int]] = []

    def add(outputs: list[int]) -> int:
        merged.append(outputs)
        return sum(outputs)

    leaves = Leaves(n4=[ASK, 4])
    run = await tree(leaves, 9, everywhere, merge=add).go()
    assert set(run.asks) == {"4"}
    assert sorted(merged) == [[0, 1, 2], [6, 7, 8]], "its siblings' branches went on"
    await run.answer(decision=decision, **more)
    assert run.result.output == output
    assert run.result.status == ("partial" if decision == "reject" else "done")
    assert leaves.did == {str(n): 1 for n in range(9)} | {"4": 2 if decision == "respond" else 1}
    if decision == "respond":
        assert leaves.told["4"] == ("ann says: think",)


async def test_asks_of_several_branches_are_answered_in_any_order(saver: Saver) -> None:
    run = await tree(Leaves(n1=ASK, n5=ASK, n7=ASK), 9, saver).go()
    for name in ("7", "1", "5"):
        assert name in run.asks
        await run.answer(name, decision="edit", value=0)
    assert run.result.output == 36 - 13


async def test_a_person_may_be_asked_about_a_leaf_that_failed(saver: Saver) -> None:
    leaves = Leaves(n4=ValueError("no"))
    run = await tree(leaves, 6, saver, policy=change(on_failure="ask")).go()
    assert "Nobody could do '4'" in run.asks["4"].value.question
    assert (await run.answer(decision="edit", value=100)).result.output == 11 + 100


async def test_a_manager_and_a_merger_may_turn_to_a_person(crew: Crew, saver: Saver) -> None:
    boss = crew.worker("boss", manage=Escalation(question="Which way?", evidence="left"))
    editor = crew.worker("editor", merge=Escalation(question="Like this?", evidence=7))
    leaves = Leaves()
    run = await tree(leaves, 3, saver, manager=boss, merge=editor).go()
    assert set(run.asks) == {"manage"}
    await run.answer(decision="edit", value="right")
    assert leaves.tasks["0"].goal == "right"
    assert set(run.asks) == {"merge"}
    assert (await run.answer()).result.output == 7


async def test_a_budget_holds_for_the_whole_tree(memory: Saver) -> None:
    leaves = Leaves()
    result = (await tree(leaves, 20, memory, policy=change(budget=Budget(calls=8))).go()).result
    assert (leaves.did.total(), result.status, len(result.missing)) == (8, "partial", 12)
    assert result.failure is not None
    assert result.failure.kind == "budget"


@pytest.mark.parametrize("parallel", [1, 4, 100])
async def test_no_more_leaves_of_the_whole_tree_work_at_once_than_the_policy_says(
    parallel: int,
) -> None:
    now = most = 0

    @agent
    async def busy(task: Task) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return 1

    policy = change(parallel=parallel)
    run = Run(hierarchy(busy, merge=sum, branching=3, policy=policy))
    run.task = Task(goal="count", inputs={"items": list(range(27))})
    assert (await run.go()).result.output == 27
    assert most == parallel if parallel < 27 else most > 4


def test_latency_grows_with_depth_only_and_a_branch_does_not_wait_for_its_siblings() -> None:
    clock = VirtualClock()
    merged: list[tuple[float, list[int]]] = []

    @agent
    async def slow(task: Task) -> int:
        await clock.sleep(100.0 if task.inputs["item"] == 8 else 1.0)
        return 1

    def add(outputs: list[int]) -> int:
        merged.append((clock.passed, outputs))
        return sum(outputs)

    policy = change(timeout=1_000, parallel=100)
    run = Run(hierarchy(slow, merge=add, branching=3, policy=policy))
    run.task = Task(goal="count", inputs={"items": list(range(27))})
    clock.run(run.go())
    assert clock.passed == pytest.approx(100, abs=2)
    early = [outputs for at, outputs in merged if at < 50]
    assert Counter(map(tuple, early)) == {(1, 1, 1): 8, (3, 3, 3): 2}


async def test_the_journal_says_how_the_tree_was_laid_out(memory: Saver) -> None:
    run = await tree(Leaves(), 30, memory, branching="auto").go()
    (laid,) = [e for e in await run.events() if e.what == "branched"]
    assert laid.data == {"managers": 1}
    assert laid.why == "30 items, 30 to a manager: 1 managers"


async def test_no_items_and_too_many_are_states(memory: Saver) -> None:
    empty = (await tree(Leaves(), 0, memory).go()).result
    assert (empty.status, empty.output) == ("done", None)
    many = (await tree(Leaves(), 9, memory, policy=change(max_leaves=8)).go()).result
    assert many.failure is not None
    assert (many.status, many.failure.kind) == ("refused", "refused")
    run = tree(Leaves(), 1, memory)
    run.task = Task(goal="nothing to go by")
    assert (await run.go()).result.status == "refused"


async def test_a_second_task_on_the_thread_starts_afresh(saver: Saver) -> None:
    leaves = Leaves(n1=ASK)
    run = await tree(leaves, 6, saver).go()
    assert run.asks
    run.task = Task(goal="again", inputs={"items": [5, 6]})
    leaves.script.clear()
    result = (await run.go()).result
    assert (result.output, result.usage.calls) == (11, 2)


def test_a_tree_must_be_one(crew: Crew) -> None:
    for wrong in ({"branching": 1}, {"merge": 3}, {"manager": "boss"}):
        with pytest.raises(Misbuilt):
            hierarchy(crew.worker(), **{"merge": sum, **wrong})  # type: ignore[arg-type]
    with pytest.raises(Misbuilt, match="no team"):
        hierarchy({}, merge=sum)
    with pytest.raises(Misbuilt, match="can't be called 'gather'"):
        hierarchy({"gather": crew.worker()}, merge=sum)


# -- charts


async def test_named_teams_each_do_the_whole_task_and_are_merged_by_name(
    crew: Crew, saver: Saver
) -> None:
    chart = {
        "research": {"web": crew.worker("w"), "papers": crew.worker("p")},
        "law": crew.worker("l"),
    }
    graph = hierarchy(chart, merge=lambda outputs: outputs, policy=QUICK)
    assert {"research", "law"} < set(graph.nodes)
    run = await Run(graph, saver, goal="judge the merger").go()
    assert run.result.output == {"research": {"web": "web()", "papers": "papers()"}, "law": "law()"}
    assert len(await messages(run)) == 8
    assert crew.briefs["web"][0].context.goal == "judge the merger"


async def test_what_a_team_in_a_chart_could_not_do_is_named_after_it(
    crew: Crew, saver: Saver
) -> None:
    web = crew.worker("w", web=ValueError("no"))
    chart = {"research": {"web": web, "papers": crew.worker("p")}, "law": crew.worker("l")}
    result = (await Run(hierarchy(chart, merge=dict, policy=QUICK), saver).go()).result
    assert (result.status, result.missing) == ("partial", ("research/web",))
    assert result.output == {"research": {"papers": "papers()"}, "law": "law()"}


async def test_an_ask_deep_in_a_chart_holds_up_no_other_team(crew: Crew, saver: Saver) -> None:
    chart = {"research": {"web": crew.worker("w", web=ASK)}, "law": crew.worker("l")}
    run = await Run(hierarchy(chart, merge=dict, policy=QUICK), saver).go()
    assert set(run.asks) == {"web"}
    assert crew.did["law"] == 1
    assert (await run.answer()).result.output == {"research": {"web": 1_000}, "law": "law()"}


# -- in other patterns, and they in it


async def test_a_team_may_be_the_worker(crew: Crew, saver: Saver) -> None:
    team = manager_worker(
        plan=crew.planner([task("x"), task("y", "x")]), workers=[crew.worker()], policy=QUICK
    )
    graph = hierarchy(as_agent(team, name="team"), merge=len, branching=2, policy=QUICK)
    run = Run(graph, saver)
    run.task = Task(goal="each", inputs={"items": ["a", "b"]})
    assert (await run.go()).result.output == 2
    assert crew.calls == 6


async def test_a_tree_in_a_tree_takes_items_that_are_lists(saver: Saver) -> None:
    inner = hierarchy(Leaves().agent, merge=sum, branching=2, policy=change(parallel=1))
    graph = hierarchy(as_agent(inner, name="inner"), merge=sum, branching=2,
                      policy=change(parallel=1))  # fmt: skip
    run = Run(graph, saver)
    run.task = Task(goal="add", inputs={"items": [[1, 2, 3], [4], [5, 6, 7, 8]]})
    assert (await run.go()).result.output == 36


async def test_a_tree_may_be_a_stage_and_takes_the_list_an_earlier_one_made(
    crew: Crew, saver: Saver
) -> None:
    inner = hierarchy(Leaves(n2=ASK).agent, merge=sum, branching=2, policy=QUICK)
    stages = [
        crew.worker("find", find=[[1, 2, 3]]),
        as_agent(inner, name="add"),
        crew.worker("say"),
    ]
    run = await Run(pipeline(stages, policy=QUICK), saver).go()
    assert set(run.asks) == {"2"}
    result = (await run.answer(decision="edit", value=10)).result
    assert crew.briefs["say"][0].results["add"].output == 13
    assert result.status == "done"


async def test_a_tree_may_be_a_part_of_a_team(crew: Crew, saver: Saver) -> None:
    inner = hierarchy(Leaves(n1=ValueError("no")).agent, merge=sum, branching=2, policy=QUICK)
    plan = [task("sum", inputs={"items": [1, 2, 3]}), task("say", "sum", agent="other")]
    workers = [as_agent(inner, name="tree"), crew.worker("other")]
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK)
    result = (await Run(team, saver).go()).result
    assert crew.briefs["say"][0].results["sum"].output == 4
    assert result.missing == ("sum/1",)


# -- size

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "hierarchy.py"


def measured(way: str, leaves: int) -> dict[str, float]:
    """CPU microseconds a leaf and peak megabytes, in a process of its own, in a SQLite file."""
    command = [sys.executable, str(BENCHMARK), "--only", way, "--leaves", str(leaves)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1_500)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.soak
def test_a_leaf_costs_at_most_twice_what_langgraph_alone_costs() -> None:
    ours, bare = measured("hierarchy", 10_000), measured("bare LangGraph", 10_000)
    assert ours["cpu"] <= 2 * bare["cpu"]
    assert ours["peak"] < 1_000


@pytest.mark.soak
def test_a_hundred_thousand_leaves_need_no_more_of_each_and_little_memory() -> None:
    many, few = measured("hierarchy", 99_856), measured("hierarchy", 10_000)
    assert many["peak"] < 1_000
    assert many["cpu"] < 1.3 * few["cpu"]
