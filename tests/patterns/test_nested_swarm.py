"""A swarm fits into every pattern, every pattern into a swarm, and asks find their way through."""

import pytest

from kapelle.graphs import hierarchy, manager_worker, pipeline, swarm
from kapelle.nodes.agent import Agent, GraphAgent, as_agent
from kapelle.state.approval import Escalation
from kapelle.state.ballot import AheadBy, Judged, Plurality
from kapelle.state.task import Plan, Task
from kapelle.state.verdict import Preference, Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="x")


def peers(crew: Crew, *answers: object, name: str = "peer") -> list[Agent]:
    """One an answer."""
    return [crew.worker(f"{name} {n}", anything=answer) for n, answer in enumerate(answers, 1)]


def crowd(crew: Crew, *answers: object, name: str = "crowd") -> GraphAgent:
    """A swarm as an agent."""
    voters = peers(crew, *answers, name=f"{name} peer")
    return as_agent(swarm(voters, rule=Plurality(), policy=QUICK), name=name)


def line(crew: Crew, answer: object, name: str) -> GraphAgent:
    """A pipeline as an agent; its last stage gives the answer."""
    stages = [crew.worker(f"{name} first"), crew.worker(f"{name} last", anything=answer)]
    return as_agent(pipeline(stages, policy=QUICK), name=name)


def team(crew: Crew, answer: object, name: str) -> GraphAgent:
    """A team as an agent; its only part gives the answer."""
    graph = manager_worker(
        plan=crew.planner([task("part")], name=f"{name} planner"),
        workers=[crew.worker(f"{name} worker", anything=answer)],
        policy=QUICK,
    )
    return as_agent(graph, name=name)


async def test_a_swarm_in_a_pipeline(crew: Crew, everywhere: Saver) -> None:
    stages = [crew.worker("find"), crowd(crew, "x", "y", "x"), crew.worker("polish")]
    result = (await Run(pipeline(stages, policy=QUICK), everywhere).go()).result
    assert (result.status, result.usage.calls) == ("done", crew.calls)
    assert crew.briefs["polish"][0].results["crowd"].output == "x"
    assert crew.briefs["polish"][0].results["crowd"].confidence == pytest.approx(2 / 3)


async def test_a_swarm_in_a_team(crew: Crew, everywhere: Saver) -> None:
    plan = [task("a", agent="crowd"), task("b", "a", agent="worker")]
    workers = [crowd(crew, "x", "y", "x"), crew.worker()]
    graph = manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK)
    result = (await Run(graph, everywhere).go()).result
    assert (result.status, result.output) == ("done", "b(a)")
    assert crew.briefs["b"][0].results["a"].output == "x"
    assert result.usage.calls == crew.calls == 5


async def test_a_swarm_on_every_leaf_of_a_tree(crew: Crew, everywhere: Saver) -> None:
    graph = hierarchy(crowd(crew, "x", "y", "x"), merge=" ".join, branching=2, policy=QUICK)
    run = Run(graph, everywhere)
    run.task = Task(goal="all of it", inputs={"items": [1, 2, 3]})
    result = (await run.go()).result
    assert (result.status, result.output) == ("done", "x x x")
    assert result.usage.calls == crew.calls == 9


async def test_trees_vote(crew: Crew, memory: Saver) -> None:
    trees = [
        as_agent(
            hierarchy(
                crew.worker(f"leaf of {n}", anything=f"{n % 2}"), merge=" ".join, policy=QUICK
            ),
            name=f"tree {n}",
        )
        for n in (1, 2, 3)
    ]
    run = Run(swarm(trees, rule=Plurality(), policy=QUICK), memory)
    run.task = Task(goal="all of it", inputs={"items": [1, 2]})
    result = (await run.go()).result
    assert (result.output, result.usage.calls) == ("1 1", 6)


async def test_pipelines_teams_and_swarms_vote(crew: Crew, everywhere: Saver) -> None:
    voters = [line(crew, "x", "line"), team(crew, "y", "team"), crowd(crew, "x", "x")]
    run = await Run(swarm(voters, rule=Plurality(), policy=QUICK), everywhere).go()
    assert (run.result.output, run.result.confidence) == ("x", pytest.approx(2 / 3))
    assert run.result.usage.calls == crew.calls == 2 + 2 + 2
    assert len({e.key for e in await run.events()}) == len(await run.events())


async def test_a_nested_peer_that_asks_parks_only_itself(crew: Crew, everywhere: Saver) -> None:
    voters = [line(crew, ASK, "line"), team(crew, "y", "team"), *peers(crew, "x", "y")]
    run = await Run(swarm(voters, rule=Plurality(), policy=QUICK), everywhere).go()
    assert set(run.asks) == {"line last"}
    assert crew.did["part"] == crew.did["peer 1/3"] == 1, "those beside it have voted"
    run = await run.answer()
    assert set(run.asks) == {"task"}, "with the fourth vote they are even"
    assert crew.did["line first"] == crew.did["part"] == crew.did["peer 1/3"] == 1


async def test_an_ask_in_a_swarm_in_a_swarm_in_a_team(crew: Crew, saver: Saver) -> None:
    deep = crowd(crew, ASK, "y", "x", name="deep")
    middle = as_agent(
        swarm([deep, *peers(crew, "x")], rule=Plurality(), policy=QUICK), name="middle"
    )
    plan = [task("a", agent="middle"), task("b", "a", agent="worker"), task("c", agent="worker")]
    graph = manager_worker(plan=crew.planner(plan), workers=[middle, crew.worker()], policy=QUICK)
    run = await Run(graph, saver).go()
    assert set(run.asks) == {"deep peer 1/1"}
    assert crew.did["c"] == 1, "what does not need it goes on"
    assert "b" not in crew.did
    result = (await run.answer()).result
    assert result.output == {"b": "b(a)", "c": "c()"}
    assert crew.briefs["b"][0].results["a"].output == "x"
    assert result.usage.calls == crew.calls
    assert all(times == 1 for of, times in crew.did.items() if "/" in of), "nobody voted twice"


async def test_a_tie_in_a_nested_swarm_is_a_person_s(crew: Crew, saver: Saver) -> None:
    stages = [crowd(crew, "x", "y"), crew.worker("last")]
    run = await Run(pipeline(stages, policy=QUICK), saver).go()
    assert set(run.asks) == {"crowd"}
    await run.answer(decision="edit", value="z")
    assert crew.briefs["last"][0].results["crowd"].output == "z"
    assert run.result.status == "done"


async def test_a_swarm_may_plan_judge_and_be_asked_anew(crew: Crew, memory: Saver) -> None:
    plan = Plan(tasks=(task("a"),)).model_dump(mode="json")
    verdicts = [Verdict(decision="accept").model_dump(mode="json")] * 2
    graph = manager_worker(
        plan=crowd(crew, plan, plan, name="planners"),
        workers=[crew.worker()],
        judge=crowd(crew, *verdicts, name="critics"),
        policy=QUICK,
    )
    result = (await Run(graph, memory).go()).result
    assert (result.status, result.output) == ("done", "a()")
    assert result.usage.calls == crew.calls == 5


async def test_a_graph_may_judge_a_swarm(crew: Crew, memory: Saver) -> None:
    judge = crowd(crew, Preference(better="first").model_dump(), name="critics")
    graph = swarm(peers(crew, "x", "y"), rule=Judged(), judge=judge, policy=QUICK)
    run = await Run(graph, memory).go()
    assert "2 answers are even" in run.asks["task"].value.reason, "it likes whatever is first"
    assert crew.calls == 4


async def test_a_nested_peer_may_be_asked_again_and_again(crew: Crew, memory: Saver) -> None:
    graph = swarm([team(crew, "x", "team")], rule=AheadBy(k=3), policy=QUICK)
    result = (await Run(graph, memory).go()).result
    assert (result.output, crew.did["part"]) == ("x", 3)
    assert result.usage.calls == crew.calls == 6


async def test_a_nested_swarm_that_finds_nothing_is_a_stage_that_failed(
    crew: Crew, memory: Saver
) -> None:
    stages = [crew.worker("find"), crowd(crew, ValueError("deaf"), ValueError("blind"))]
    result = (await Run(pipeline(stages, policy=QUICK), memory).go()).result
    assert (result.status, result.missing) == ("partial", ("crowd",))
    assert result.failure is not None
    assert "deaf" in result.failure.message
