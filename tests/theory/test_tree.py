"""What a tree of managers takes and loses: the graph itself against the closed forms."""

import random
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.graphs import hierarchy
from kapelle.nodes.agent import agent
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Task
from kapelle.state.tree import Costs, best_branching, levels_of, seconds_of

COSTS = Costs(work=30, latency=2, split=1, merge=4)
POLICY = Policy(attempts=1, backoff=0, parallel=100, timeout=1_000)
ITEMS = 64


def taken(branching: int) -> float:
    """Virtual seconds of a tree whose managers, mergers and leaves take what they cost."""
    clock = VirtualClock()

    @agent
    async def boss(task: Task) -> None:
        children: Any = task.inputs["children"]
        await clock.sleep(COSTS.latency + COSTS.split * len(children))

    @agent
    async def worker(task: Task) -> int:
        await clock.sleep(COSTS.work)
        return 1

    @agent
    async def merger(task: Task, brief: Brief) -> int:
        await clock.sleep(COSTS.merge)
        return sum(int(str(result.output)) for result in brief.results.values())

    tree = hierarchy(worker, merge=merger, manager=boss, branching=branching, policy=POLICY)
    task = Task(goal="count", inputs={"items": list(range(ITEMS))})
    final = clock.run(tree.compile().ainvoke({"task": task}))
    assert final["result"].output == ITEMS
    return clock.passed


@pytest.mark.parametrize("branching", [4, 8, 64])
def test_a_full_tree_takes_what_the_cost_model_says(branching: int) -> None:
    said = seconds_of(ITEMS, branching, COSTS)
    assert taken(branching) == pytest.approx(said, abs=1)  # what threads take is real


def test_the_branching_that_is_chosen_is_the_fastest_of_the_full_trees() -> None:
    best = best_branching(ITEMS, COSTS, most=ITEMS)
    assert best == min((4, 8, 64), key=lambda b: seconds_of(ITEMS, b, COSTS)) == 8


def one_level_less(items: int, branching: int) -> float:
    """A model in which the root costs nothing."""
    levels = levels_of(items, branching) - 1
    return COSTS.work + levels * (COSTS.latency + branching * COSTS.split + COSTS.merge)


def one_after_the_other(items: int, branching: int) -> float:
    """A model in which a manager waits for each child in turn."""
    level = COSTS.latency + branching * COSTS.split + COSTS.merge
    return COSTS.work * branching + levels_of(items, branching) * level


@pytest.mark.parametrize("mutant", [one_level_less, one_after_the_other])
def test_another_model_does_not_agree(mutant: Any) -> None:
    assert mutant(ITEMS, 8) != pytest.approx(seconds_of(ITEMS, 8, COSTS), abs=1)


def lost(redos: int, error: float, items: int, rho: float = 0) -> float:
    """The share of leaves that is missing where each try fails with this probability.

    With a correlation tries of one leaf fail together: how often is drawn for each leaf.
    """
    lot, scale = random.Random(11), (1 - rho) / rho if rho else 0.0
    drawn = [lot.betavariate(error * scale, (1 - error) * scale) if rho else error
             for _ in range(items)]  # fmt: skip

    @agent
    async def shaky(task: Task) -> int:
        if lot.random() < drawn[int(task.id)]:
            raise ValueError("dropped it")
        return 1

    policy = POLICY.model_copy(update={"redos": redos, "breaker_window": 0})
    tree = hierarchy(shaky, merge=sum, branching=30, policy=policy)
    task = Task(goal="count", inputs={"items": list(range(items))})
    result: Result = tree.compile().invoke({"task": task})["result"]
    assert result.output == items - len(result.missing)
    return len(result.missing) / items


def agrees(share: float, said: float, items: int) -> bool:
    """Within four standard errors."""
    return abs(share - said) <= 4 * (said * (1 - said) / items) ** 0.5


def test_a_leaf_is_lost_only_if_it_and_each_redo_failed() -> None:
    """900 leaves; the mutant never redoes."""
    items, error = 900, 0.3
    assert agrees(lost(1, error, items), error**2, items)
    assert not agrees(lost(0, error, items), error**2, items)


def test_a_leaf_whose_tries_fail_together_is_lost_more_often() -> None:
    """900 leaves, beta-binomial: both tries fail with chance e^2 + rho e (1 - e)."""
    items, error, rho = 900, 0.3, 0.4
    seen, said = lost(1, error, items, rho), error**2 + rho * error * (1 - error)
    assert agrees(seen, said, items)
    assert not agrees(seen, error**2, items), "its tries are not independent"
    assert not agrees(lost(0, error, items, rho), said, items), "nor is it one try"
