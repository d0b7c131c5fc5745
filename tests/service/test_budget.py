"""A budget that ends in several graphs of a run at once is one question to a person."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kapelle import Approval, Budget, Database, Policy, Runs, Task, agent, as_agent
from kapelle.graphs import manager_worker, pipeline

pytestmark = pytest.mark.anyio

DONE: Counter[str] = Counter()


@agent
async def planner(task: Task) -> list[Task]:
    """Four parts."""
    return [Task(id=f"part{n}", goal=f"Do part {n}") for n in range(4)]


@agent
async def find(task: Task) -> str:
    """The first stage of each."""
    DONE["find"] += 1
    return "found"


@agent
async def say(task: Task) -> str:
    """The second."""
    DONE["say"] += 1
    return "said"


LINE = as_agent(pipeline([find, say], policy=Policy(on_budget="ask")), name="line")
GRAPHS: dict[str, Any] = {
    "team": manager_worker(
        plan=planner,
        workers=[LINE],
        policy=Policy(budget=Budget(calls=6), on_budget="ask"),
    )
}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """Runs on a fresh database."""
    DONE.clear()
    with Database(str(tmp_path / "runs.db")) as database:
        yield Runs(database, GRAPHS)


async def test_all_that_lacks_room_is_one_ask_and_nothing_is_done_twice(runs: Runs) -> None:
    run = await runs.start("team", "Do it")
    (ask,) = run.asks
    evidence: Any = ask.evidence
    assert (evidence["add"]["calls"], len(evidence["missing"])) == (3, 3)
    run = await ask.aapprove(by="ann")
    assert (run.status, run.result and run.result.usage.calls) == ("done", 9)
    assert DONE == {"find": 4, "say": 4}


async def test_a_figure_of_one_s_own_is_shared_and_the_rest_is_asked_for(runs: Runs) -> None:
    run = await runs.start("team", "Do it")
    answer = Approval(decision="edit", by="ann", value={"calls": 1})
    run = await runs.answer(run.asks[0].id, answer)
    (ask,) = run.asks
    assert DONE["say"] == 2, "one of them went on"
    evidence: Any = ask.evidence
    assert evidence["add"]["calls"] == 2
    run = await ask.aapprove(by="ann")
    assert (run.status, DONE["say"]) == ("done", 4)


async def test_refused_once_it_is_refused_for_all(runs: Runs) -> None:
    run = await runs.start("team", "Do it")
    run = await run.asks[0].areject(by="ann", reason="enough")
    assert (run.status, run.asks) == ("partial", ())
    assert run.result is not None
    assert [name.partition("/")[2] for name in run.result.missing] == ["say"] * 3


async def test_any_of_them_shows_and_answers_all(runs: Runs) -> None:
    await runs.start("team", "Do it", thread="t")
    (shown,) = await runs.db.inbox.pending()
    assert await runs.db.inbox.get(shown.id) == shown
    await runs.db.inbox.claim(shown.id, Approval(decision="approve", by="ann"))
    assert await runs.db.inbox.pending() == []
    claimed = await runs.db.inbox.claimed("t")
    assert [ask.answer and ask.answer.by for ask in claimed] == ["ann"] * 3
    approvals = [e for e in await runs.db.journal.read("t") if e.kind == "approval"]
    assert len(approvals) == 3, "each is journaled"


async def test_what_a_person_approves_with_a_figure_is_given_out_once(runs: Runs) -> None:
    run = await runs.start("team", "Do it", thread="t")
    answer = Approval(decision="approve", by="ann", value={"add": {"calls": 2}})
    run = await runs.answer(run.asks[0].id, answer)
    assert (DONE["say"], len(run.asks)) == (3, 1)
    assert (await runs.db.ledger.balance("t")).granted_calls == 2
