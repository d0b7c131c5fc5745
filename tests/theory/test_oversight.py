"""A manager that checks its workers is worth what the closed form says; one that does not, not."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import manager_worker
from kapelle.nodes.agent import FunctionAgent, agent
from kapelle.state.budget import Usage
from kapelle.state.orders import follow
from kapelle.state.oversight import leaf_failure, task_failure
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Plan, Result, Task, merge_results, merge_revisions
from kapelle.state.team import Team, standings
from kapelle.state.verdict import Verdict

ERROR, LEAVES, RECALL = 0.05, 10, 0.8
PLAN = Plan(tasks=tuple(Task(id=str(n), goal="work") for n in range(LEAVES)))
FIGURES = [(0, 0.4013), (1, 0.1137), (5, 0.0994)]

Errors = Callable[[random.Random], float]
Follow = Callable[[Team, Result, Verdict, Policy], dict[str, Any] | None]


def always(_: random.Random) -> float:
    """Independent leaves: each errs as often in every task."""
    return ERROR


def by_task(lot: random.Random) -> float:
    """Correlated leaves: how often they err is drawn for each task, .05 on average."""
    return lot.betavariate(0.5, 9.5)


def ignores(state: Team, draft: Result, verdict: Verdict, policy: Policy) -> None:
    """The mutant: a verdict that nobody follows."""


# ── by the laws alone ─────────────────────────────────────────────────────────────────────────


def fails(lot: random.Random, error: float, redos: int, rule: Follow) -> bool:
    """Whether a task has a wrong leaf in the end."""
    state: Any = {"task": Task(goal="all"), "plan": PLAN, "results": {}, "revisions": {},
                  "sent_back": (), "feedback": (), "replans": 0, "spent": Usage()}  # fmt: skip
    policy, missed = Policy(rounds=redos, stalls=redos), set[tuple[str, int]]()
    while True:
        for leaf, stands in standings(PLAN, state["results"], state["revisions"]).items():
            if stands == "due":
                last = state["results"].get(leaf)
                number = last.revision + 1 if last else 1
                made = Result(
                    task=leaf, status="done", output=lot.random() < error, revision=number
                )
                state["results"] = merge_results(state["results"], {leaf: made})
                if made.output and lot.random() >= RECALL:
                    missed.add((leaf, number))
        wrong = {i: r for i, r in state["results"].items() if r.output}
        seen = {i: "wrong" for i, r in wrong.items() if (i, r.revision) not in missed}
        draft = Result(task="task", status="done", output=sorted(wrong))
        then = rule(state, draft, Verdict(decision="revise", redo=seen), policy) if seen else None
        if then is None:
            return bool(wrong)
        then["revisions"] = merge_revisions(state["revisions"], then["revisions"])
        state |= then


def matches(expected: float, runs: int, errors: Errors, redos: int, rule: Follow = follow) -> bool:
    """Whether so many seeded tasks fail as often as expected, within 4 standard errors."""
    lot = random.Random(2026)
    failed = sum(fails(lot, errors(lot), redos, rule) for _ in range(runs))
    return abs(failed / runs - expected) <= 4 * math.sqrt(expected * (1 - expected) / runs)


@pytest.mark.parametrize(("redos", "figure"), FIGURES)
def test_a_manager_s_recall_is_worth_what_the_closed_form_says(redos: int, figure: float) -> None:
    expected = task_failure(ERROR, leaves=LEAVES, recall=RECALL, redos=redos)
    assert round(expected, 4) == figure
    assert matches(expected, 10_000, always, redos)


def test_a_verdict_that_is_ignored_does_not_match() -> None:
    assert not matches(FIGURES[1][1], 10_000, always, 1, ignores)


def test_five_redos_are_not_one_nor_is_one_none_and_a_manager_who_sees_less_is_not_as_good() -> (
    None
):
    assert not matches(FIGURES[1][1], 10_000, always, 0)
    assert not matches(FIGURES[2][1], 10_000, always, 1)
    assert not matches(task_failure(ERROR, leaves=LEAVES, recall=0.5, redos=1), 10_000, always, 1)


def test_leaves_that_err_together_fail_fewer_tasks_by_the_beta_binomial_law() -> None:
    """Beta(a, b): no leaf of n is wrong with chance prod (b + i) / (a + b + i)."""
    alone = 1 - math.prod((9.5 + i) / (10 + i) for i in range(LEAVES))
    assert matches(alone, 10_000, by_task, 0)
    assert not matches(alone, 10_000, always, 0)
    # with one redo, by the midpoint rule
    grid = [(k + 0.5) / 20_000 for k in range(20_000)]
    weights = [p**-0.5 * (1 - p) ** 8.5 for p in grid]
    chance = [1 - (1 - leaf_failure(p, recall=RECALL, redos=1)) ** LEAVES for p in grid]
    redone = math.fsum(w * c for w, c in zip(weights, chance, strict=True)) / math.fsum(weights)
    assert matches(redone, 10_000, by_task, 1)


# ── by the graph itself ───────────────────────────────────────────────────────────────────────


def team(seed: int, redos: int) -> tuple[FunctionAgent, FunctionAgent, FunctionAgent, Policy]:
    """Ten leaves that err, and a judge that notices what it notices."""

    @agent(name="planner")
    async def plan(task: Task) -> Plan:
        return PLAN

    @agent(name="worker")
    async def work(task: Task, brief: Brief) -> bool:
        return random.Random(f"{seed}/{task.id}/{len(brief.feedback)}").random() < ERROR

    @agent(name="judge")
    async def judge(task: Task, brief: Brief) -> Verdict:
        redo = {
            i: "wrong"
            for i, r in brief.results.items()
            if i in brief.goals
            and r.output
            and random.Random(f"{seed}/{i}/{r.revision}/noticed").random() < RECALL
        }
        return Verdict(decision="revise" if redo else "accept", redo=redo)

    return plan, work, judge, Policy(rounds=redos, stalls=redos, attempts=1, backoff=0)


async def failed(runs: int, redos: int, *, judged: bool = True) -> float:
    """The share of runs of the graph that leave with a wrong leaf."""
    wrong = 0
    for seed in range(runs):
        plan, work, judge, policy = team(seed, redos)
        graph = manager_worker(
            plan=plan, workers=[work], judge=judge if judged else None, policy=policy
        )
        final = await graph.compile().ainvoke({"task": Task(goal="all")})
        wrong += any(final["result"].output.values())
    return wrong / runs


@pytest.mark.anyio
async def test_the_graph_does_as_the_law_says_and_without_its_judge_it_does_not() -> None:
    """60 runs, up to five redos, within 4 standard errors: .0994 ± .154; without, .4013."""
    width = 4 * math.sqrt(0.0994 * (1 - 0.0994) / 60)
    assert abs(await failed(60, 5) - 0.0994) <= width
    assert abs(await failed(60, 5, judged=False) - 0.0994) > width
