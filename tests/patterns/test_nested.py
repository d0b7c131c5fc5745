"""Any agent slot takes any pattern, and a person's answer finds its way however deep the ask is."""

from itertools import permutations

import pytest

from kapelle.graphs import manager_worker, marketplace, pipeline
from kapelle.nodes.agent import Agent, GraphAgent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Escalation
from kapelle.state.offer import Offer
from kapelle.state.task import Plan
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")


def team(crew: Crew, plan: object, *workers: Agent, name: str = "planner") -> Pattern:
    """A team with a planner of that name."""
    return manager_worker(plan=crew.planner(plan, name=name), workers=workers, policy=QUICK)


def inner(crew: Crew, *tasks: object, name: str = "inner", **script: object) -> GraphAgent:
    """A team as an agent; its worker follows the script."""
    worker = crew.worker(f"{name} worker", (), **script)
    return as_agent(team(crew, list(tasks), worker, name=f"{name} planner"), name=name)


async def test_a_team_in_a_pipeline(crew: Crew, saver: Saver) -> None:
    line = pipeline([crew.worker("first"), inner(crew, task("a"), task("b", "a"))], policy=QUICK)
    result = (await Run(line, saver).go()).result
    assert (result.task, result.agent, result.output) == ("task", "inner", "b(a)")
    assert result.usage.calls == crew.calls == 4


async def test_a_pipeline_in_a_team(crew: Crew, saver: Saver) -> None:
    line = as_agent(pipeline([crew.worker("one"), crew.worker("two")], policy=QUICK), name="line")
    result = (await Run(team(crew, [task("a"), task("b", "a")], line), saver).go()).result
    assert result.status == "done"
    assert [n for n, _ in crew.by] == ["planner", "one", "two", "one", "two"]
    assert result.usage.calls == crew.calls == 5


async def test_a_nested_graph_is_given_the_results_its_task_needs(
    crew: Crew, memory: Saver
) -> None:
    seen = []

    async def look() -> str:
        return "looked"

    nested = inner(crew, task("x"), x=look)
    plan = [task("a", agent="worker"), task("b", "a", agent="inner")]
    await Run(team(crew, plan, crew.worker(), nested), memory).go()
    seen = [t for _, t in crew.by]
    assert seen == ["task", "a", "b", "x"]


async def test_the_goal_of_the_run_stays_the_goal_of_the_run(crew: Crew, memory: Saver) -> None:
    nested = inner(crew, task("x"))
    plan = [task("a", agent="inner"), task("b", "a", agent="worker")]
    await Run(team(crew, plan, crew.worker(), nested), memory, goal="win").go()
    assert crew.briefs["x"][0].context.goal == "win"
    assert crew.briefs["b"][0].context.goal == "win"


async def test_an_ask_in_a_team_in_a_team_parks_what_needs_it_in_both(
    crew: Crew, saver: Saver
) -> None:
    nested = inner(crew, task("x"), task("y", "x"), task("z"), x=ASK)
    plan = [task("a", agent="inner"), task("b", "a", agent="worker"), task("c", agent="worker")]
    run = await Run(team(crew, plan, crew.worker(), nested), saver).go()
    assert set(run.asks) == {"x"}
    done = {"task": 1, "a": 1, "x": 1, "z": 1, "c": 1}  # a: its planner
    assert crew.did == done
    await run.answer()
    assert run.result.output == {"b": "b(a)", "c": "c()"}
    assert crew.did == done | {"y": 1, "b": 1}
    assert crew.briefs["b"][0].results["a"].output == {"y": "y(x)", "z": "z()"}
    assert run.result.usage.calls == crew.calls


async def test_an_ask_three_graphs_deep(crew: Crew, saver: Saver) -> None:
    deepest = inner(crew, task("x"), task("y", "x"), name="deepest", x=ASK)
    line = as_agent(pipeline([crew.worker("one"), deepest], policy=QUICK), name="line")
    run = await Run(team(crew, [task("a"), task("b", "a")], line), saver).go()
    assert set(run.asks) == {"x"}
    await run.answer()
    assert set(run.asks) == {"x"}, "the second run of the line asks for itself"
    result = (await run.answer()).result
    assert result.output == "y(x)"
    assert crew.did == {"task": 1, "one": 2, "deepest": 2, "x": 2, "y": 2}
    assert result.usage.calls == crew.calls


@pytest.mark.parametrize("order", list(permutations(["x", "y", "z"])))
async def test_asks_at_several_depths_are_answered_in_any_order(
    crew: Crew, memory: Saver, order: tuple[str, ...]
) -> None:
    one, two = inner(crew, task("x"), name="one", x=ASK), inner(crew, task("y"), name="two", y=ASK)
    third = pipeline([crew.worker("z", z=ASK)], policy=QUICK)
    plan = [task("a", agent="one"), task("b", agent="two"), task("c", agent="line")]
    plan.append(task("d", "a", "b", "c", agent="one"))
    run = await Run(team(crew, plan, one, two, as_agent(third, name="line")), memory).go()
    for name in order:
        assert name in run.asks
        await run.answer(name, decision="edit", value=name.upper())
    assert set(run.asks) == {"x"}, "d is one more team that asks"
    assert crew.did["y"] == crew.did["z"] == 1
    result = (await run.answer("x", decision="edit", value="last")).result
    assert (result.status, result.output) == ("done", "last")
    assert crew.did["x"] == 2


async def test_a_person_may_have_nested_work_done_again(crew: Crew, saver: Saver) -> None:
    nested = inner(crew, task("x"), x=[ASK, "thought through"])
    run = await Run(team(crew, [task("a"), task("b", "a")], nested), saver).go()
    assert set(run.asks) == {"x"}
    result = (await run.answer(decision="respond", value="think")).result
    assert result.output == "thought through"
    assert crew.briefs["x"][1].feedback == ("ann says: think",)


async def test_a_nested_team_that_a_person_refuses_is_refused_and_not_given_to_another(
    crew: Crew, saver: Saver
) -> None:
    nested = as_agent(pipeline([crew.worker("x", x=ASK)], policy=QUICK), name="line")
    other = crew.worker("other")
    plan = [task("a", agent="line"), task("b", agent="other")]
    run = await Run(team(crew, plan, nested, other), saver).go()
    result = (await run.answer(decision="reject", reason="no")).result
    assert (result.status, result.output, result.missing) == ("partial", {"b": "b()"}, ("a",))


async def test_a_nested_team_whose_every_part_failed_fails_once(crew: Crew, saver: Saver) -> None:
    nested = inner(crew, task("x"), x=ValueError("no such file"))
    plan = [task("a", agent="inner"), task("b", agent="worker")]
    result = (await Run(team(crew, plan, nested, crew.worker()), saver).go()).result
    assert (result.status, result.output, result.missing) == ("partial", {"b": "b()"}, ("a",))
    assert [t for _, t in crew.by].count("x") == 1


async def test_what_a_nested_team_could_not_do_is_given_to_another_worker(
    crew: Crew, saver: Saver
) -> None:
    nested = inner(crew, task("x"), name="a team", x=ValueError("no such file"))
    result = (await Run(team(crew, [task("a")], nested, crew.worker("other")), saver).go()).result
    assert (result.status, result.output) == ("done", "a()")
    (told,) = crew.briefs["a"][1].feedback
    assert "no such file" in told


async def test_a_nested_team_that_did_only_part_of_it_makes_the_whole_partial(
    crew: Crew, saver: Saver
) -> None:
    nested = inner(crew, task("x"), task("y"), x=ValueError("no"))
    result = (await Run(team(crew, [task("a"), task("b", "a")], nested), saver).go()).result
    assert result.status == "partial"
    assert result.missing == ("a/x", "b/x")


async def test_a_graph_may_plan(crew: Crew, memory: Saver) -> None:
    plan = Plan(tasks=(task("a"),))
    planner = as_agent(pipeline([crew.worker("thinks", thinks=plan)], policy=QUICK), name="plans")
    graph = manager_worker(plan=planner, workers=[crew.worker()], policy=QUICK)
    assert (await Run(graph, memory).go()).result.output == "a()"


async def test_a_graph_whose_plan_is_no_dag_is_asked_about(crew: Crew, memory: Saver) -> None:
    bad = [task("a", "b"), task("b", "a")]
    planner = as_agent(pipeline([crew.worker("thinks", thinks=[bad])], policy=QUICK), name="plans")
    graph = manager_worker(plan=planner, workers=[crew.worker()], policy=QUICK)
    run = await Run(graph, memory).go()
    assert "wait for each other" in run.asks["task"].value.reason
    await run.answer(decision="edit", value=[{"id": "a", "goal": "x"}])
    assert run.result.status == "done"


async def test_a_graph_may_plan_and_ask_while_it_does(crew: Crew, saver: Saver) -> None:
    stage = crew.worker("thinks", thinks=ASK)
    planner = as_agent(pipeline([stage], policy=QUICK), name="plans")
    graph = manager_worker(plan=planner, workers=[crew.worker()], policy=QUICK)
    run = await Run(graph, saver).go()
    await run.answer("thinks", decision="edit", value=[{"id": "a", "goal": "x"}])
    assert run.result.output == "a()"
    assert crew.did == {"thinks": 1, "a": 1}


async def test_a_graph_may_judge(crew: Crew, memory: Saver) -> None:
    verdicts = [Verdict(decision="revise", redo={"a": "no"}), Verdict(decision="accept")]
    critic = as_agent(
        pipeline([crew.worker("weighs", weighs=verdicts)], policy=QUICK), name="critic"
    )
    graph = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], judge=critic, policy=QUICK
    )
    result = (await Run(graph, memory).go()).result
    assert (result.status, crew.did["a"]) == ("done", 2)


async def test_a_graph_that_judges_in_prose_is_no_judge(crew: Crew, memory: Saver) -> None:
    critic = as_agent(
        pipeline([crew.worker("weighs", weighs="fine!")], policy=QUICK), name="critic"
    )
    graph = manager_worker(
        plan=crew.planner([task("a")]), workers=[crew.worker()], judge=critic, policy=QUICK
    )
    run = await Run(graph, memory).go()
    assert "no verdict" in run.asks["task"].value.reason


async def test_events_of_nested_agents_are_in_the_journal_of_the_run(
    crew: Crew, saver: Saver
) -> None:
    run = await Run(team(crew, [task("a")], inner(crew, task("x"))), saver).go()
    tried = {(e.agent, e.task) for e in await run.events() if e.kind == "attempt"}
    assert ("inner worker", "x") in tried
    assert ("planner", "task") in tried
    assert len({e.key for e in await run.events()}) == len(await run.events())


async def test_a_market_in_a_team_and_a_team_in_a_market(crew: Crew, saver: Saver) -> None:
    bids = {"inner": Offer(price=1), "other": Offer(price=9)}
    market = marketplace(
        [inner(crew, task("x"), task("y", "x")), crew.worker("other")], bids=bids, policy=QUICK
    )
    outer = team(crew, [task("a"), task("b", "a")], as_agent(market, name="market"))
    result = (await Run(outer, saver).go()).result
    assert (result.status, result.output) == ("done", "y(x)")
    assert crew.did["x"] == crew.did["y"] == 2
    assert result.usage.calls == crew.calls


async def test_an_ask_in_a_team_in_a_market_in_a_line(crew: Crew, saver: Saver) -> None:
    bids = {"inner": Offer(price=1), "other": Offer(price=9)}
    market = marketplace(
        [inner(crew, task("x"), task("y", "x"), x=ASK), crew.worker("other")],
        bids=bids,
        policy=QUICK,
    )
    line = pipeline([crew.worker("first"), as_agent(market, name="market")], policy=QUICK)
    run = await Run(line, saver).go()
    assert set(run.asks) == {"x"}
    assert (await run.answer()).result.output == "y(x)"
    assert set(crew.did.values()) == {1}, "nothing is done twice"
    assert "other" not in {name for name, _ in crew.by}


async def test_a_market_that_nobody_serves_leaves_it_to_the_next_worker(
    crew: Crew, memory: Saver
) -> None:
    market = marketplace([crew.worker("c")], bids={"c": Offer(decline="busy")}, policy=QUICK)
    workers = [as_agent(market, name="a market"), crew.worker("other")]
    result = (await Run(team(crew, [task("a")], *workers), memory).go()).result
    assert (result.status, result.output) == ("done", "a()")
    assert crew.briefs["a"][0].feedback == ("of 1 that were called, 1 declined",)
