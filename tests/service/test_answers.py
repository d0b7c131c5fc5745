"""Answers through the face: awaited, remembered, and given up where they can't be used."""

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict, cast

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from kapelle import Approval, Database, Escalation, Run, Runs, Task, agent, arun
from kapelle.graphs import pipeline
from kapelle.runs import Graph
from kapelle.state.errors import Misbuilt
from kapelle.state.task import Brief, Result

pytestmark = pytest.mark.anyio

BROKEN: list[bool] = []
"""Not empty: the code of `gate` has a bug."""


@agent
async def ask(task: Task) -> Escalation:
    """Turn to a person, always."""
    return Escalation(question="Go on?", evidence={"zeal": 1, "amount": math.nan})


@agent
async def work(task: Task, brief: Brief) -> object:
    """Go on with what was approved."""
    return brief.results["ask"].output


GRAPHS: dict[str, Graph] = {"held": pipeline([ask, work])}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh database."""
    with Database(str(tmp_path / "answers.db")) as opened:
        yield opened


async def waiting(database: Database, thread: str = "t") -> Run:
    """A run that waits for a person."""
    return await Runs(database, GRAPHS).start("held", "Work", thread=thread)


@pytest.mark.parametrize(
    ("decision", "status"),
    [("approve", "done"), ("edit", "done"), ("reject", "refused"), ("respond", "waiting")],
)
async def test_each_answer_can_be_awaited(database: Database, decision: str, status: str) -> None:
    (open_ask,) = (await waiting(database)).asks
    run = await {
        "approve": lambda: open_ask.aapprove(by="ann"),
        "edit": lambda: open_ask.aedit("mine", by="ann"),
        "reject": lambda: open_ask.areject("no", by="ann"),
        "respond": lambda: open_ask.arespond("again", by="ann"),
    }[decision]()
    assert run.status == status
    assert [(a.decision, a.by, a.ask) for a in run.approvals] == [(decision, "ann", open_ask.id)]


async def test_a_run_tells_what_people_answered_and_not_what_they_did_in_an_earlier_one(
    database: Database,
) -> None:
    first = await (await waiting(database)).asks[0].aedit({"x": 1}, by="ann")
    assert [a.value for a in first.approvals] == [{"x": 1}]
    assert (await waiting(database)).approvals == ()


async def test_what_is_no_number_leaves_as_text_that_every_reader_takes(database: Database) -> None:
    run = await waiting(database)
    shown = json.loads(json.dumps(run.document(), allow_nan=False))
    assert shown["asks"][0]["evidence"] == {"zeal": 1, "amount": "NaN"}
    run = await run.asks[0].aapprove(by="ann")
    assert json.dumps(run.document()["result"], allow_nan=False).count('"NaN"') == 1


async def test_a_person_sees_the_author_s_order(database: Database) -> None:
    (open_ask,) = (await waiting(database)).asks
    assert list(open_ask.evidence) == ["zeal", "amount"]  # type: ignore[arg-type]


async def test_a_named_run_is_gone_on_with_by_its_name(database: Database) -> None:
    run = await arun(GRAPHS["held"], "Work", db=database, name="held", lease=5)
    assert run.graph == "held"
    answered = await Runs(database, GRAPHS).answer(
        run.asks[0].id, Approval(decision="approve", by="b")
    )
    assert answered.status == "done"


async def test_an_answered_run_is_found_by_whoever_looks_for_runs_to_go_on_with(
    database: Database,
) -> None:
    run = await waiting(database)
    await database.inbox.claim(run.asks[0].id, Approval(decision="approve", by="ann"))
    assert (await database.runs.get("t")).status == "running"
    assert [run.status for run in await Runs(database, GRAPHS).recover()] == ["done"]


class Asked(TypedDict):
    """What a graph of its own remembers."""

    task: Task
    result: Result


async def gate(state: Asked) -> dict[str, Result]:
    """Ask; while the code is broken, fail on the answer."""
    answer = interrupt("Go on?")
    if BROKEN:
        raise RuntimeError("a bug in the gate")
    return {"result": Result(task="task", status="done", output=answer["by"])}


async def test_an_answer_that_can_not_be_used_ends_the_run_until_it_is_mended(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    graph = StateGraph(Asked)
    graph.add_node(gate)
    graph.add_edge(START, "gate")
    runs = Runs(database, {"own": graph})
    run = await runs.start("own", "Work", thread="t")
    BROKEN.append(True)
    failed = await runs.answer(run.asks[0].id, Approval(decision="approve", by="ann"))
    assert failed.status == "failed"
    assert failed.result is not None
    assert failed.result.failure is not None
    assert "a bug in the gate" in failed.result.failure.message
    assert await runs.recover() == [], "nobody tries again and again"
    assert "can't use the answer" in caplog.text
    BROKEN.clear()
    mended = await runs.resume("t")
    assert mended.status == "done", "the answer is not lost"
    assert mended.result is not None
    assert mended.result.output == "ann"


async def test_runs_that_were_left_are_gone_on_with_together(database: Database) -> None:
    together = asyncio.Barrier(3)

    @agent
    async def meet(task: Task) -> str:
        await asyncio.wait_for(together.wait(), 60)
        return "met"

    for n in range(3):
        await database.runs.open(
            f"t{n}", graph="meet", target={}, task=Task(goal="x"), holder="gone", lease_seconds=-1
        )
    runs = await Runs(database, {"meet": pipeline([meet])}).recover()
    assert [run.status for run in runs] == ["done"] * 3


class Bare(TypedDict):
    """What a graph of others may hold."""

    task: Task


async def test_an_agent_is_no_graph_nor_is_one_without_a_result_ours(database: Database) -> None:
    bare: Any = StateGraph(Bare).add_node("work", lambda state: state).add_edge(START, "work")
    for name, graph, why in (
        ("lone", ask, r"'lone' is FunctionAgent, not a graph; .*pipeline\(\[it\]\)"),
        ("bare", bare, "graph 'bare' has no 'result' in its output"),
    ):
        with pytest.raises(Misbuilt, match=why):
            await Runs(database, {name: cast("Graph", graph)}).start(name, "Go")
