"""What gates are worth, and what streaming is: simulations against the closed forms."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from kapelle.drills import VirtualClock
from kapelle.graphs import pipeline
from kapelle.nodes.agent import FunctionAgent, agent
from kapelle.state.gate import Pass, at_gate
from kapelle.state.line import Odds, line_odds
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Task
from kapelle.state.verdict import Verdict

P, RECALL, RETRIES, STAGES, PRICE = 0.9, 0.8, 2, 5, 0.2
POLICY = Policy(rounds=RETRIES, attempts=1, backoff=0)
DONE = Result(task="stage", status="done")
ACCEPT, REVISE = Verdict(decision="accept"), Verdict(decision="revise")

Rule = Callable[[Result, Verdict | None, int, Policy], Pass]


def test_the_odds_are_those_of_the_paper_s_example() -> None:
    odds = line_odds(P, recall=RECALL, retries=RETRIES, stages=STAGES, gate_cost=PRICE)
    assert (round(odds.right, 4), round(odds.wrong, 4)) == (0.8936, 0.1038)
    assert (round(odds.stopped, 4), round(odds.cost, 3)) == (0.0026, 6.512)


Skill = Callable[[random.Random], float]


def independent(lot: random.Random) -> float:
    """Stages of each line are as good as those of any other."""
    return P


def together(lot: random.Random) -> float:
    """Stages of one line err together: how good they are is drawn for each line, .9 on average."""
    return lot.betavariate(8.1, 0.9)


def simulated(
    rule: Rule,
    runs: int,
    *,
    recall: float,
    false_alarm: float,
    seed: int,
    skill: Skill = independent,
) -> Odds:
    """Lines of stages under a rule for gates."""
    lot = random.Random(seed)
    right = wrong = stopped = 0
    cost = 0.0
    for _ in range(runs):
        clean, through, sure = True, True, skill(lot)
        for _ in range(STAGES):
            way: Pass = "again"
            good, rounds = True, 0
            while way == "again":
                good = lot.random() < sure
                alarm = lot.random() < (false_alarm if good else recall)
                cost += 1 + PRICE
                way = rule(DONE, REVISE if alarm else ACCEPT, rounds, POLICY)
                rounds += way == "again"
            clean &= good
            if way != "next":
                through = False
                break
        right += through and clean
        wrong += through and not clean
        stopped += not through
    return Odds(right=right / runs, wrong=wrong / runs, stopped=stopped / runs, cost=cost / runs)


def agrees(seen: Odds, said: Odds, runs: int) -> bool:
    """Within four standard errors; the cost within 1 %."""
    shares = [(seen.right, said.right), (seen.wrong, said.wrong), (seen.stopped, said.stopped)]
    near = all(abs(a - b) <= 4 * (b * (1 - b) / runs) ** 0.5 for a, b in shares)
    return near and abs(seen.cost / said.cost - 1) < 0.01


@pytest.mark.parametrize("false_alarm", [0.0, 0.1])
def test_lines_end_as_often_as_the_law_says(false_alarm: float) -> None:
    runs = 20_000
    said = line_odds(P, recall=RECALL, false_alarm=false_alarm, retries=RETRIES, stages=STAGES,
                     gate_cost=PRICE)  # fmt: skip
    assert agrees(simulated(at_gate, runs, recall=RECALL, false_alarm=false_alarm, seed=1), said,
                  runs)  # fmt: skip


def test_lines_whose_stages_err_together_end_as_their_mixture_says() -> None:
    """20,000 lines, beta-binomial with correlation .1, by the midpoint rule; not as independent."""
    runs, cells = 20_000, 20_000
    grid = [(n + 0.5) / cells for n in range(cells)]
    weights = [p**7.1 * (1 - p) ** -0.1 for p in grid]
    terms: dict[str, Any] = {"recall": RECALL, "retries": RETRIES, "stages": STAGES}
    known = [line_odds(p, **terms, gate_cost=PRICE) for p in grid]

    def mean(of: Callable[[Odds], float]) -> float:
        return sum(w * of(odds) for w, odds in zip(weights, known, strict=True)) / sum(weights)

    said = Odds(right=mean(lambda o: o.right), wrong=mean(lambda o: o.wrong),
                stopped=mean(lambda o: o.stopped), cost=mean(lambda o: o.cost))  # fmt: skip
    seen = simulated(at_gate, runs, recall=RECALL, false_alarm=0, seed=1, skill=together)
    assert agrees(seen, said, runs)
    assert not agrees(seen, line_odds(P, **terms, gate_cost=PRICE), runs)
    assert not agrees(
        simulated(one_retry_less, runs, recall=RECALL, false_alarm=0, seed=1, skill=together),
        said,
        runs,
    )


def ignores_its_gate(result: Result, verdict: Any, rounds: int, policy: Policy) -> Pass:
    return "next"


def one_retry_less(result: Result, verdict: Verdict | None, rounds: int, policy: Policy) -> Pass:
    return at_gate(result, verdict, rounds + 1, policy)


def lets_through_in_the_end(
    result: Result, verdict: Verdict | None, rounds: int, policy: Policy
) -> Pass:
    way = at_gate(result, verdict, rounds, policy)
    return "next" if way == "stop" else way


@pytest.mark.parametrize("mutant", [ignores_its_gate, one_retry_less, lets_through_in_the_end])
def test_a_rule_that_is_not_the_law_does_not_agree(mutant: Rule) -> None:
    runs = 20_000
    said = line_odds(P, recall=RECALL, retries=RETRIES, stages=STAGES, gate_cost=PRICE)
    assert not agrees(simulated(mutant, runs, recall=RECALL, false_alarm=0, seed=1), said, runs)


def test_a_pipeline_ends_as_the_law_says() -> None:
    """400 items through the graph itself."""
    items, lot = 400, random.Random(3)

    def working(number: int) -> FunctionAgent:
        @agent(name=f"stage {number}")
        async def work(task: Task) -> bool:
            return lot.random() < P

        return work

    def gate(good: object) -> object:
        return bool(good) or lot.random() >= RECALL

    line = pipeline([working(n) for n in range(STAGES)], gates=gate, policy=POLICY).compile()
    task = Task(goal="do it", inputs={"items": list(range(items))})
    result: Result = line.invoke({"task": task})["result"]
    cost = result.usage.calls * (1 + PRICE) / items
    said = line_odds(P, recall=RECALL, retries=RETRIES, stages=STAGES, gate_cost=PRICE)
    assert len(result.parts) / items == pytest.approx(said.stopped, abs=0.01)
    assert cost == pytest.approx(said.cost, rel=0.02)


def stream_seconds(work: list[list[float]]) -> float:
    """Without a barrier each item takes as long as its own stages."""
    return max(map(sum, work))


def barrier_seconds(work: list[list[float]]) -> float:
    """With one, each stage takes as long as its slowest item."""
    return sum(max(times) for times in zip(*work, strict=True))


def drawn(lot: random.Random) -> list[list[float]]:
    """10 items x 3 stages of Exp(1) work."""
    return [[lot.expovariate(1) for _ in range(3)] for _ in range(10)]


def test_ten_items_through_three_stages_take_6_16_and_not_8_79() -> None:
    lot = random.Random(5)
    works = [drawn(lot) for _ in range(20_000)]  # a standard error of 0.012
    assert sum(map(stream_seconds, works)) / len(works) == pytest.approx(6.16, abs=0.05)
    assert sum(map(barrier_seconds, works)) / len(works) == pytest.approx(8.79, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_a_pipeline_takes_just_as_long_as_its_slowest_item(seed: int) -> None:
    clock, work = VirtualClock(), drawn(random.Random(seed))

    def working(number: int) -> FunctionAgent:
        @agent(name=f"stage {number}")
        async def sleep(task: Task) -> None:
            times: Any = task.inputs["item"]
            await clock.sleep(times[number])

        return sleep

    line = pipeline([working(n) for n in range(3)], policy=POLICY).compile()
    items: Any = work
    clock.run(line.ainvoke({"task": Task(goal="all", inputs={"items": items})}))
    assert clock.passed == pytest.approx(
        stream_seconds(work), abs=0.1
    )  # what a thread takes is real
    assert clock.passed < barrier_seconds(work), "what a barrier between the stages would take"
