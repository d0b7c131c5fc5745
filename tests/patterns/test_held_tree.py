"""No item and no team that waits for a person keeps another waiting inside a step."""

from itertools import permutations
from typing import Any

import pytest

from kapelle.graphs import hierarchy, pipeline
from kapelle.graphs.hierarchy import Chart
from kapelle.nodes.agent import GraphAgent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Choice, Escalation
from kapelle.state.policy import Policy
from kapelle.state.task import Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")
NO = ValueError("no")


def line(crew: Crew, name: str, **script: Any) -> GraphAgent:
    """A graph of one stage of that name, which may turn to a person within it."""
    return as_agent(pipeline([crew.worker(name, **script)], policy=QUICK), name=name)


def firm(chart: Chart, policy: Policy = QUICK) -> Pattern:
    """A chart of teams whose outputs are merged by name."""
    return hierarchy(chart, merge=dict, policy=policy)


async def test_a_team_that_failed_is_redone_while_a_graph_beside_it_asks(
    crew: Crew, everywhere: Saver
) -> None:
    chart = {"law": line(crew, "lawyer", anything=ASK), "web": crew.worker("w", web=[NO, "W"])}
    run = await Run(firm(chart), everywhere).go()
    assert set(run.asks) == {"lawyer"}
    assert crew.did["web"] == 1, "it was done once more, and told why"
    assert "no" in crew.briefs["web"][1].feedback[0]
    assert (await run.answer()).result.output == {"law": "a thought", "web": "W"}
    told = [e.what for e in await run.events() if e.task == "web" and e.kind == "choice"]
    assert told == ["redo"]


async def test_what_a_team_asks_is_listed_while_a_graph_beside_it_asks(
    crew: Crew, saver: Saver
) -> None:
    chart = {"law": line(crew, "lawyer", anything=ASK), "web": crew.worker("w", web=[ASK, "W"])}
    run = await Run(firm(chart), saver).go()
    assert set(run.asks) == {"lawyer", "web"}
    await run.answer("web", decision="respond", value="look again")
    assert set(run.asks) == {"lawyer"}
    assert crew.briefs["web"][1].feedback == ("ann says: look again",)
    assert (await run.answer()).result.output == {"law": "a thought", "web": "W"}
    assert run.result.usage.calls == crew.calls


async def test_a_team_nobody_could_help_is_asked_about_while_another_asks(
    crew: Crew, saver: Saver
) -> None:
    chart = {"law": line(crew, "lawyer", anything=ASK), "web": crew.worker("w", web=NO)}
    run = await Run(firm(chart, QUICK.model_copy(update={"on_failure": "ask"})), saver).go()
    assert set(run.asks) == {"lawyer", "web"}
    await run.answer("web", decision="edit", value="W")
    assert (await run.answer()).result.output == {"law": "a thought", "web": "W"}


@pytest.mark.parametrize("order", list(permutations(["lawyer", "reader"])))
async def test_charts_within_a_chart_hold_up_none_of_each_other(
    crew: Crew, saver: Saver, order: tuple[str, ...]
) -> None:
    chart: Chart = {
        "law": {"one": line(crew, "lawyer", anything=ASK), "two": crew.worker("t", two=[NO, "2"])},
        "web": {"one": line(crew, "reader", anything=ASK), "six": crew.worker("s", six=[NO, "6"])},
    }
    run = await Run(firm(chart), saver).go()
    assert set(run.asks) == {"lawyer", "reader"}
    assert (crew.did["two"], crew.did["six"]) == (1, 1)
    for name in order:
        await run.answer(name)
    made = {"law": {"one": "a thought", "two": "2"}, "web": {"one": "a thought", "six": "6"}}
    assert run.result.output == made
    assert run.result.usage.calls == crew.calls


@pytest.mark.parametrize(("decision", "did"), [("approve", 1), ("respond", 2)])
async def test_an_item_that_failed_is_redone_while_another_one_asks(
    crew: Crew, everywhere: Saver, decision: Choice, did: int
) -> None:
    script: dict[str, Any] = {"0": [ASK, "A"], "1": [NO, "B"], "2": ["C"], "3": [ASK, "D"]}
    graph = hierarchy(crew.worker("w", (), **script), merge=sorted, branching=4, policy=QUICK)
    run = Run(graph, everywhere)
    run.task = Task(goal="each", inputs={"items": list("abcd")})
    await run.go()
    assert set(run.asks) == {"0", "3"}
    await run.answer("0", decision=decision, value="again")
    assert set(run.asks) == {"3"}
    assert (crew.did["0"], crew.did["1"]) == (did, 1)
    await run.answer("3", decision="edit", value="D")
    first = "A" if decision == "respond" else "a thought"
    assert run.result.output == sorted([first, "B", "C", "D"])
    assert run.result.usage.calls == crew.calls


async def test_a_branch_whose_merge_failed_is_redone_while_another_one_asks(
    crew: Crew, saver: Saver
) -> None:
    tries: list[list[str]] = []

    def moody(outputs: list[str]) -> str:
        tries.append(outputs)
        if outputs == ["2()", "3()"] and tries.count(outputs) < 4:
            raise ValueError("not now")
        return "+".join(outputs)

    graph = hierarchy(crew.worker("w", (), **{"0": ASK}), merge=moody, branching=2, policy=QUICK)
    run = Run(graph, saver)
    run.task = Task(goal="each", inputs={"items": list("abcd")})
    await run.go()
    assert set(run.asks) == {"0"}
    assert tries.count(["2()", "3()"]) == 4, "twice, and twice again when the branch was redone"
    assert (await run.answer()).result.output == "a thought+1()+2()+3()"


async def test_graphs_in_charts_may_be_nested_as_deep_as_the_policy_says(
    crew: Crew, memory: Saver
) -> None:
    def nested(depth: int) -> Chart:
        return {"up": nested(depth - 1), "by": crew.worker(f"w{depth}")} if depth else {
            "up": crew.worker("last"), "by": crew.worker("w0")}  # fmt: skip

    limits = QUICK.model_copy(update={"max_nesting": 4})
    assert (await Run(firm(nested(4), limits), memory).go()).result.status == "done"
    run = await Run(firm(nested(5), limits), memory, thread="t2").go()
    assert "nested deeper than 4" in str(run.result.parts)
