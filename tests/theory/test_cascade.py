"""A cascade of two tiers: accuracy .825 at half the strong calls, as theory says.

A cheap agent says how sure it is, calibrated and uniform on [0, 1]; a strong one is right nine
times of ten. With threshold t: accuracy = (1 - t^2)/2 + .9 t, strong calls = t; at .5: .825 and .5.
"""

import random
from collections.abc import Callable

import pytest

from kapelle.graphs import manager_worker
from kapelle.nodes.agent import FunctionAgent, agent
from kapelle.state.ladder import doubtful
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Reply, Result, Task
from tests.patterns.simulated import Run

N = 40_000
STRONG, THRESHOLD = 0.9, 0.5
TOLERANCE = 4 * (0.825 * 0.175 / N) ** 0.5
"""Four standard errors of the accuracy."""

Climbs = Callable[[float], bool]


def simulated(climbs: Climbs) -> tuple[float, float]:
    """Accuracy, and strong calls per task."""
    lot = random.Random(5)
    right = strong = 0
    for _ in range(N):
        sure = lot.random()
        up = climbs(sure)
        strong += up
        right += lot.random() < (STRONG if up else sure)
    return right / N, strong / N


def by_law(sure: float) -> bool:
    """What the ladder does."""
    result = Result(task="a", status="done", confidence=sure)
    return doubtful(result, Policy(min_confidence=THRESHOLD))


def test_half_the_strong_calls_give_most_of_the_accuracy() -> None:
    accuracy, strong = simulated(by_law)
    assert accuracy == pytest.approx(0.825, abs=TOLERANCE)
    assert strong == pytest.approx(0.5, abs=4 * (0.25 / N) ** 0.5)


@pytest.mark.parametrize(
    "mutant", [lambda sure: not by_law(sure), lambda _: True, lambda _: False, lambda s: s < 0.4]
)
def test_mutants_are_told_from_it(mutant: Climbs) -> None:
    accuracy, strong = simulated(mutant)
    off = abs(accuracy - 0.825) > TOLERANCE or abs(strong - 0.5) > 4 * (0.25 / N) ** 0.5
    assert off


@pytest.mark.anyio
async def test_a_team_climbs_exactly_where_the_law_says() -> None:
    lot = random.Random(7)
    sure = {f"t{n}": lot.random() for n in range(120)}

    def worker(name: str, tier: str) -> FunctionAgent:
        @agent(name=name, tier=tier)  # type: ignore[arg-type]
        async def work(task: Task, brief: Brief) -> Reply:
            return Reply(output=name, confidence=sure[task.id] if tier == "economy" else 1.0)

        return work

    @agent
    async def planner(task: Task) -> list[Task]:
        return [Task(id=i, goal="work") for i in sure]

    team = manager_worker(
        plan=planner,
        workers=[worker("cheap", "economy"), worker("dear", "premium")],
        policy=Policy(min_confidence=THRESHOLD, attempts=1),
    )
    run = await Run(team).go()
    output: dict[str, str] = run.result.output  # type: ignore[assignment]
    assert {t for t, by in output.items() if by == "dear"} == {t for t in sure if sure[t] < 0.5}
    assert run.result.usage.calls == 1 + len(sure) + sum(s < 0.5 for s in sure.values())
