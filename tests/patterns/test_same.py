"""Same seed, one at a time or sixteen at once: the same decisions."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline
from kapelle.nodes.agent import agent
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.pattern import Pattern
from kapelle.state.market import Rule
from kapelle.state.offer import Offer
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task
from kapelle.state.verdict import Verdict
from tests.patterns.simulated import task

pytestmark = pytest.mark.anyio

DECIDE = ("choice", "verdict", "escalation", "message")


async def decided(seed: int, parallel: int) -> tuple[object, list[tuple[str, ...]]]:
    """What a seeded team with failures, retries, a judge and another plan decides."""
    lot = random.Random(seed)
    plan = [
        task(f"t{n}", *{f"t{lot.randrange(n)}" for _ in range(lot.randrange(3)) if n},
             priority=lot.randrange(3))
        for n in range(24)
    ]  # fmt: skip

    async def work(task: Task, brief: Brief) -> str:
        chance = random.Random(f"{seed}/{task.id}/{len(brief.feedback)}")
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise ValueError("seeded")
        return f"{task.id}({','.join(str(r.output) for _, r in sorted(brief.results.items()))})"

    async def judge(task: Task, brief: Brief) -> Verdict:
        done = {t: brief.results[t].revision for t in brief.goals if t in brief.results}
        noticed = {t for t, n in done.items() if random.Random(f"{seed}/{t}/{n}/j").random() < 0.1}
        redo = dict.fromkeys(sorted(noticed), "again")
        return Verdict(decision="revise" if redo else "accept", redo=redo)

    policy = Policy(seed=seed, parallel=parallel, backoff=0, attempts=1, replans=1, rounds=3)
    team = manager_worker(
        plan=agent(name="planner")(lambda task: plan),
        workers=[agent(name=name)(work) for name in ("ann", "bob", "cyd")],
        judge=agent(name="judge")(judge), policy=policy,
    )  # fmt: skip
    return await told(team, Task(goal="all"))


async def told(graph: Pattern, task: Task) -> tuple[object, list[tuple[str, ...]]]:
    """What a run left, and what was decided in it."""
    services = in_memory()
    final = await graph.compile().ainvoke({"task": task}, context=services)
    (thread,) = services.journal._events  # type: ignore[attr-defined]  # noqa: SLF001
    events = await services.journal.read(thread)
    left = final.get("result")
    kept = left and (left.status, left.output, left.missing)
    return kept, sorted(
        (e.kind, e.what, e.task, e.agent, e.why) for e in events if e.kind in DECIDE
    )


@pytest.mark.parametrize("seed", range(4))
async def test_same_seed_same_decisions(seed: int) -> None:
    assert await decided(seed, 1) == await decided(seed, 16)


async def awarded(rule: Rule, seed: int, parallel: int) -> tuple[object, list[tuple[str, ...]]]:
    """What a seeded market with failures, silence, a judge and second awards decides."""

    def lot(*about: object) -> random.Random:
        return random.Random(f"{seed}/{about}")

    def bidder(name: str) -> Callable[[Task], Coroutine[None, None, Offer | None]]:
        async def offer(task: Task) -> Offer | None:
            mine = lot("bid", name, task.id)
            for _ in range(mine.randrange(5)):
                await asyncio.sleep(0)
            price, sure = mine.randrange(1, 900), mine.random()
            return None if mine.random() < 0.2 else Offer(price=price, confidence=sure)

        return offer

    async def work(task: Task, brief: Brief) -> str:
        mine = lot("work", task.id, len(brief.feedback))
        for _ in range(mine.randrange(5)):
            await asyncio.sleep(0)
        if mine.random() < 0.3:
            raise ValueError("seeded")
        return task.id

    async def judge(task: Task, brief: Brief) -> Verdict:
        good = lot("judge", task.id, [r.agent for r in brief.results.values()]).random() < 0.8
        return Verdict(decision="accept" if good else "revise", reason="seeded")

    names = ("ann", "bob", "cyd", "dan")
    graph = marketplace(
        [agent(name=name)(work) for name in names],
        rule=rule, bids={name: bidder(name) for name in names}, judge=agent(name="judge")(judge),
        policy=Policy(seed=seed, parallel=parallel, backoff=0, attempts=1, on_failure="partial"),
    )  # fmt: skip
    tasks: Any = [{"id": f"t{n}", "goal": "work", "priority": n % 3} for n in range(12)]
    return await told(graph, Task(goal="all", inputs={"tasks": tasks}))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rule", ["best_value", "vickrey", "assignment", "sequential"])
async def test_same_seed_same_awards(rule: Rule, seed: int) -> None:
    one, many = await awarded(rule, seed, 1), await awarded(rule, seed, 16)
    assert one == many
    assert {"awarded", "refuse", "failure"} <= {what for _, what, *_ in one[1]}


def moody(seed: int, name: str) -> Any:
    """An agent that takes its time, and sometimes fails, by seed, task and what it was told."""

    async def work(task: Task, brief: Brief) -> object:
        chance = random.Random(f"{seed}/{name}/{task.id}/{len(brief.feedback)}")
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            raise ValueError("seeded")
        return chance.randrange(10)

    return agent(name=name)(work)


def a_stream(seed: int, policy: Policy) -> Pattern:
    """Three stages with a gate that sends work back."""
    return pipeline([moody(seed, f"s{n}") for n in range(3)], gates=lambda made: made != 3,
                    policy=policy)  # fmt: skip


def a_tree(seed: int, policy: Policy) -> Pattern:
    """Two levels of managers, and leaves that are redone."""
    return hierarchy(moody(seed, "leaf"), merge=sum, branching=5, policy=policy)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", [a_stream, a_tree])
async def test_same_seed_same_course_of_every_item(
    build: Callable[[int, Policy], Pattern], seed: int
) -> None:
    def limits(parallel: int) -> Policy:
        return Policy(seed=seed, parallel=parallel, backoff=0, attempts=1, breaker_window=0)

    task = Task(goal="all", inputs={"items": list(range(24))})
    one, many = [await told(build(seed, limits(n)), task) for n in (1, 16)]
    assert one == many
    assert any("seeded" in why for *_, why in one[1]), "some failed"
