"""Shared memory: one document, whoever reads and changes it, on every store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from langgraph.store.base import IndexConfig
from langgraph.store.memory import InMemoryStore

from kapelle.checkpoints import Database
from kapelle.graphs import pipeline, swarm
from kapelle.nodes.agent import agent
from kapelle.nodes.measuring import forget_cards, introduce, known_outcomes, record
from kapelle.nodes.memory import StoreMemory
from kapelle.nodes.prompt import messages
from kapelle.state.ballot import Plurality
from kapelle.state.context import (
    Constraint,
    Decision,
    MasterContext,
    Question,
    with_decisions,
    with_questions,
)
from kapelle.state.policy import Policy
from kapelle.state.relevance import BYTES_PER_TOKEN, fits, shown
from kapelle.state.reputation import Outcome, record_of
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Task

pytestmark = pytest.mark.anyio


def decision(key: str, value: str = "x") -> Decision:
    """A decision."""
    return Decision(key=key, value=value, rule="vote")


async def decide(memory: StoreMemory, key: str, value: str = "x", seen: int = 0) -> MasterContext:
    """Decide a key, having read version `seen`."""
    new = [decision(key, value)]
    return await memory.change("t", lambda now: with_decisions(now, new, seen=seen))


@pytest.fixture(params=["memory", "database"])
async def memories(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path
) -> AsyncIterator[tuple[StoreMemory, StoreMemory]]:
    """Two readers and writers of the same store; on a database they could be two processes."""
    if request.param == "memory":
        memory = StoreMemory(InMemoryStore())
        yield memory, memory
        return
    url = str(tmp_path / "memory.db")
    async with Database(url) as one, Database(url) as other:
        yield StoreMemory(one.store), StoreMemory(other.store)


Pair = tuple[StoreMemory, StoreMemory]


async def test_what_one_writes_the_other_reads(memories: Pair) -> None:
    one, other = memories
    begun = MasterContext(goal="win", constraints=(Constraint(text="fast", by="ann"),))
    await one.open("t", begun)
    await decide(one, "db", "SQLite")
    await one.change("t", lambda now: with_questions(now, [Question(key="ui", text="Which?")]))
    seen = await other.context("t")
    assert (seen.goal, seen.constraints) == ("win", begun.constraints)
    assert [(d.key, d.value, d.version) for d in seen.decisions] == [("db", "SQLite", 2)]
    assert [q.text for q in seen.questions] == ["Which?"]
    assert seen == await one.context("t")


async def test_whoever_decides_second_sees_the_winner(memories: Pair) -> None:
    one, other = memories
    await one.open("t", MasterContext(goal="win"))
    seen = (await other.context("t")).version
    first = await decide(one, "ui", "React", seen)
    second = await decide(other, "ui", "Vue", seen)
    assert [d.value for d in second.decisions] == ["React"]
    assert second == first


async def test_decisions_made_at_once_are_all_kept_one_after_the_other(memories: Pair) -> None:
    one, other = memories
    await one.open("t", MasterContext(goal="win"))
    await asyncio.gather(*(decide((one, other)[n % 2], f"k{n}") for n in range(12)))
    context = await one.context("t")
    assert sorted(d.version for d in context.decisions) == list(range(1, 13))
    assert context == await other.context("t")


async def test_a_new_run_on_a_thread_begins_anew(memories: Pair) -> None:
    one, other = memories
    await one.open("t", MasterContext(goal="win"))
    await decide(one, "db")
    await other.open("t", MasterContext(goal="win again"))
    assert await one.context("t") == MasterContext(goal="win again")


async def test_a_project_outlives_its_runs_and_keeps_each_goal(memories: Pair) -> None:
    one, other = memories
    await one.open("t", MasterContext(goal="win"), "shop")
    await decide(one, "db")
    begun = MasterContext(goal="again", constraints=(Constraint(text="fast"),))
    held = await other.open("t2", begun, "shop")
    assert (held.goal, [d.key for d in held.decisions]) == ("again", ["db"])
    now = await one.context("t")
    assert (now.goal, [c.text for c in now.constraints]) == ("win", ["fast"])
    await one.forget("t")
    assert (await other.context("t2")).decisions == held.decisions


async def test_a_forgotten_run_leaves_nothing(memories: Pair) -> None:
    one, _ = memories
    await one.open("t", MasterContext(goal="win"))
    await decide(one, "db")
    await one.forget("t")
    assert await one.context("t") == MasterContext()


async def test_contexts_of_threads_with_strange_names_are_apart(memories: Pair) -> None:
    one, _ = memories
    names = ["a.b", "a", "A", "a ", "", "run-1", "é", "\N{GRINNING FACE}"]
    for name in names:
        await one.open(name or "-", MasterContext(goal=f"goal {name}"))
    for name in names:
        assert (await one.context(name or "-")).goal == f"goal {name}"


async def test_what_was_measured_of_agents_is_their_reputation() -> None:
    store = InMemoryStore()
    outcomes = [
        Outcome(id=str(n), agent="dr. no", score=score, at=n) for n, score in enumerate([1, 1, 0])
    ]
    await record(store, outcomes)
    known = await StoreMemory(store).records(["dr. no", "new"], decay=1.0)
    assert known == {"dr. no": record_of(outcomes, decay=1.0)}
    assert known["dr. no"].overall.weighed(0.5, weight=2) == 0.6


async def test_a_card_gets_no_reputation_from_another_of_its_name() -> None:
    store = InMemoryStore()
    ann, other = AgentCard(name="ann", skills=("math",)), AgentCard(name="ann", skills=("law",))
    assert await introduce(store, [ann], 1.0) == {"ann": "ann"}
    await record(store, [Outcome(id="1", agent="ann", score=1)])
    apart = (await introduce(store, [other], 2.0))["ann"]
    assert apart != "ann"
    assert await known_outcomes(store, apart) == []
    dearer = ann.model_copy(update={"price": 7})  # what it asks does not make it another agent
    assert await introduce(store, [dearer], 3.0) == {"ann": "ann"}
    assert await StoreMemory(store).records(["ann"], decay=1.0) == {}, "the name tells not whose"
    await forget_cards(store, "ann")
    assert await introduce(store, [other], 4.0) == {"ann": "ann"}
    assert [o.id for o in await known_outcomes(store, "ann")] == ["1"]


# ── what has room ─────────────────────────────────────────────────────────────────────────────

MANY = MasterContext(
    goal="win",
    constraints=(Constraint(text="always " * 20), Constraint(text="rather " * 200, hard=False)),
    decisions=tuple(decision(f"area{n % 40:02}.topic{n:04}", f"value {n}") for n in range(2_000)),
    version=7,
)


def test_hard_constraints_come_always_and_the_rest_by_relevance() -> None:
    task = Task(goal="Write about topic0123 of area03", promises=("Area05.topic1005",))
    seen = shown(MANY, task, 200)
    assert [c.hard for c in seen.constraints] == [True]
    keys = [d.key for d in seen.decisions]
    assert {"area05.topic1005", "area03.topic0123"} <= set(keys)
    assert keys == sorted(keys)
    assert seen.omitted == 2_000 - len(keys) > 1_900
    assert sum(len(f"{d.key}: {d.value!r}") for d in seen.decisions) <= 600
    assert (seen.version, seen.goal) == (7, "win")


def test_of_soft_constraints_and_questions_those_come_first_that_are_about_the_task() -> None:
    likes = tuple(Constraint(text=f"rather topic{n}", hard=False) for n in range(99))
    doubts = tuple(Question(text=f"what of topic{n}?") for n in range(99))
    context = MasterContext(constraints=likes, questions=doubts)
    seen = shown(context, Task(goal="Write about topic77"), 200)
    assert likes[77] in seen.constraints
    assert list(seen.constraints) == [c for c in likes if c in seen.constraints]
    assert sum(len(c.text) for c in seen.constraints) <= 600
    seen = shown(MasterContext(questions=doubts), Task(goal="Write about topic77"), 100)
    assert doubts[77] in seen.questions


def test_signs_that_are_tokens_of_their_own_take_their_room() -> None:
    wish = Constraint(text="\u5feb" * 250, hard=False)
    assert not fits(MasterContext(constraints=(wish,)), 200)


async def test_decisions_the_caller_gives_have_no_more_room_than_others() -> None:
    seen: list[Brief] = []

    @agent
    def look(task: Task, brief: Brief) -> str:
        seen.append(brief)
        return "seen"

    given = Task(goal="win", context=MANY)
    tight = Policy(context_tokens=200)
    for graph in (pipeline([look], policy=tight), swarm([look], rule=Plurality(), policy=tight)):
        await graph.compile().ainvoke({"task": given})
        said = "".join(str(m.content) for m in messages(look.card, "", given, seen[-1]))
        assert len(said) < 200 * BYTES_PER_TOKEN + 2_000
        assert "always" in said
        assert "more are not shown" in said


def test_what_lies_near_by_meaning_comes_before_what_shares_words() -> None:
    task = Task(goal="Write about area03")
    seen = shown(MANY, task, 200, {"area39.topic1999": 0.9})
    assert "area39.topic1999" in {d.key for d in seen.decisions}


def test_what_fits_is_shown_whole() -> None:
    assert shown(MANY, Task(goal="x"), 100_000) is MANY
    assert not fits(MANY, 1_000)


async def test_a_store_with_embeddings_finds_decisions_by_meaning() -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[float("ship" in t or "boat" in t), float("bread" in t), 0.1] for t in texts]

    memory = StoreMemory(InMemoryStore(index=IndexConfig(dims=3, embed=embed)))
    await memory.open("t", MasterContext(goal="x"))
    await decide(memory, "a.b", "a boat")
    await decide(memory, "c.d", "bread")
    near = await memory.near("t", "Which ship?")
    assert max(near, key=lambda key: near[key]) == "a.b"
