"""A graph that can't work says so when it is built."""

import pytest

from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import FunctionAgent, agent, as_agent
from kapelle.nodes.pattern import STEPS
from kapelle.state.errors import Misbuilt
from kapelle.state.task import Task


def named(name: str) -> FunctionAgent:
    """An agent of that name."""
    return agent(name=name)(lambda task: 1)


PLANNER = named("planner")


def test_two_agents_of_one_name_are_refused() -> None:
    with pytest.raises(Misbuilt, match="two agents are called 'w'"):
        pipeline([named("w"), named("w")])


@pytest.mark.parametrize(
    "name",
    ["plan", "replan", "gather", "approve", "synthesize", "judge", "__start__", "a|b", "a:b"],
)
def test_a_team_s_worker_cannot_have_a_name_the_graph_needs(name: str) -> None:
    with pytest.raises(Misbuilt, match="can't be called"):
        manager_worker(plan=PLANNER, workers=[named(name)])


@pytest.mark.parametrize("name", ["open", "gate", "approve", "__end__", "a|b"])
def test_a_stage_cannot_have_a_name_the_graph_needs(name: str) -> None:
    with pytest.raises(Misbuilt, match="can't be called"):
        pipeline([named(name)])


def test_a_stage_cannot_have_the_name_of_a_key_of_the_state() -> None:
    for name in ("task", "results", "result", "rounds"):
        pipeline([named(name)]).compile()
        manager_worker(plan=PLANNER, workers=[named(name)]).compile()


def test_a_team_without_workers_is_refused() -> None:
    with pytest.raises(Misbuilt, match="no agent to do the work"):
        manager_worker(plan=PLANNER, workers=[])
    with pytest.raises(Misbuilt, match="no agent to do the work"):
        pipeline([])


def test_what_is_no_agent_is_refused_and_told_how_to_become_one() -> None:
    with pytest.raises(Misbuilt, match=r"is no agent; make it one with @agent"):
        pipeline([lambda task: 1])  # type: ignore[list-item]
    with pytest.raises(Misbuilt, match=r"is no agent; make it one with @agent"):
        pipeline([pipeline([named("w")])])  # type: ignore[list-item]


@pytest.mark.parametrize("role", ["plan", "synthesize", "judge"])
def test_a_planner_synthesizer_or_judge_that_is_no_agent_is_refused(role: str) -> None:
    roles = {"plan": PLANNER, role: lambda task: 1}
    with pytest.raises(Misbuilt, match="is no agent"):
        manager_worker(workers=[named("w")], **roles)  # type: ignore[arg-type]


def test_a_gate_that_is_no_agent_is_refused() -> None:
    with pytest.raises(Misbuilt, match="is no agent"):
        pipeline([named("w")], gates=1)  # type: ignore[arg-type]
    with pytest.raises(Misbuilt, match="is no agent"):
        pipeline([named("w")], gates={"w": 1})  # type: ignore[dict-item]


def test_a_gate_without_its_stage_is_refused_by_name() -> None:
    with pytest.raises(Misbuilt, match=r"gates for \['x'\], but the stages are \['w'\]"):
        pipeline([named("w")], gates={"x": named("judge")})


def test_one_agent_may_fill_several_roles() -> None:
    one = named("all")
    manager_worker(plan=one, workers=[one], synthesize=one, judge=one).compile()


def test_a_pattern_is_an_uncompiled_graph_that_may_be_compiled_often() -> None:
    graph = pipeline([agent(name="w")(lambda task: task.goal)])
    for _ in range(2):
        assert graph.compile().invoke({"task": Task(goal="x")})["result"].output == "x"


def test_a_compiled_pattern_stops_after_so_many_steps_unless_told_otherwise() -> None:
    shorter, longer = (pipeline([named(f"w{i}") for i in range(n)]).compile() for n in (1, 100))
    assert STEPS <= (shorter.config or {})["recursion_limit"] < 2 * STEPS
    assert (longer.config or {})["recursion_limit"] > (shorter.config or {})["recursion_limit"]


def test_a_graph_that_is_an_agent_is_drawn_with_what_is_in_it() -> None:
    inner = as_agent(pipeline([named("stage")]), name="inner")
    outer = pipeline([inner]).compile()
    assert [name for name, _ in outer.get_subgraphs()] == ["inner", "item"]
    drawn = outer.get_graph(xray=True).nodes
    assert "inner:stage" in drawn
