"""Who gets what: the same for every order of the bids, truthful, and optimal."""

import builtins
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state import auction
from kapelle.state.auction import RULES, Weighed, award_by, must_be_rule, weigh
from kapelle.state.errors import Misbuilt
from kapelle.state.market import Rule
from kapelle.state.offer import Bid, Offer, merge_bids, standing_of
from kapelle.state.policy import Policy
from kapelle.state.reputation import Count, Record
from kapelle.state.skills import PLAIN
from kapelle.state.task import Task

POLICY = Policy()
AGENTS, TASKS = ("ann", "bob", "cyd", "dan"), ("x", "y", "z")

rules = st.sampled_from(sorted(RULES))


def weighed(task: str, agent: str, price: int, quality: int = 1000, seconds: float = 0) -> Weighed:
    """A bid as the market sees it."""
    offer = Offer(price=price, seconds=seconds)
    bid = Bid(call=1, task=task, agent=agent, status="proposed", offer=offer)
    made = weigh(bid, Task(id=task, goal="x"), None, POLICY, PLAIN)
    return made.model_copy(update={"quality": quality})


bids = st.dictionaries(
    st.tuples(st.sampled_from(TASKS), st.sampled_from(AGENTS)),
    st.tuples(st.integers(0, 20), st.integers(0, 60), st.sampled_from([0.0, 1.0, 3.0])),
    min_size=1,
    max_size=12,
).map(lambda drawn: [weighed(*who, *what) for who, what in drawn.items()])


def tasks_of(some: list[Weighed]) -> list[Task]:
    """The tasks they bid for."""
    return [Task(id=t, goal="x", priority=ord(t) % 2) for t in sorted({b.task for b in some})]


@given(rules, bids, st.randoms(use_true_random=False))
def test_the_award_is_the_same_for_every_order_of_the_bids(
    rule: Rule, some: list[Weighed], lot: Any
) -> None:
    tasks = tasks_of(some)
    first = award_by(rule, some, tasks, POLICY)
    lot.shuffle(some)
    lot.shuffle(tasks)
    assert award_by(rule, some, tasks, POLICY) == first


@given(rules, bids)
def test_every_task_with_a_bid_is_awarded_to_one_who_bid_for_it(
    rule: Rule, some: list[Weighed]
) -> None:
    won = award_by(rule, some, tasks_of(some), POLICY)
    assert set(won) == {bid.task for bid in some}
    assert {(w.bid.task, w.bid.agent) for w in won.values()} <= {(b.task, b.agent) for b in some}


@given(bids)
def test_no_bid_is_worth_more_than_the_one_that_won(some: list[Weighed]) -> None:
    for won in award_by("best_value", some, tasks_of(some), POLICY).values():
        assert won.bid.value == max(b.value for b in some if b.task == won.bid.task)
        assert won.price == won.bid.offer.price


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=2, max_size=4),
    st.integers(0, 3),
    st.integers(0, 40),
    st.none() | st.integers(0, 30),
)
def test_at_the_second_price_nobody_gains_by_another_price_than_its_own_cost(
    others: list[tuple[int, int]], who: int, lie: int, most: int | None
) -> None:
    """Whatever the others ask: what a bidder earns by the truth is no less than by any lie."""
    policy = Policy(max_price=most)
    who %= len(others)
    cost = others[who][0]

    def earned(asked: int) -> int:
        prices = [asked if n == who else price for n, (price, _) in enumerate(others)]
        some = [
            weighed("x", AGENTS[n], price, others[n][1])
            for n, price in enumerate(prices)
            if standing_of(Offer(price=price), 0, 1, policy)[0] == "proposed"
        ]
        won = award_by("vickrey", some, [Task(id="x", goal="x")], policy).get("x")
        return won.price - cost if won is not None and won.bid.agent == AGENTS[who] else 0

    if most is not None or len(others) > 1:
        assert earned(cost) >= earned(lie)
        assert earned(cost) >= 0


def test_the_second_price_is_the_second_lowest_among_equals() -> None:
    some = [weighed("x", "ann", 5), weighed("x", "bob", 9), weighed("x", "cyd", 30)]
    (won,) = award_by("vickrey", some, tasks_of(some), POLICY).values()
    assert (won.bid.agent, won.price, won.over) == ("ann", 9, "bob")


def test_alone_at_the_second_price_one_is_paid_the_most_there_is() -> None:
    alone = [weighed("x", "ann", 5)]
    assert award_by("vickrey", alone, tasks_of(alone), Policy(max_price=70))["x"].price == 70
    assert award_by("vickrey", alone, tasks_of(alone), POLICY)["x"].price == 5


def best_by_brute_force(some: list[Weighed]) -> tuple[int, int]:
    """The least that the busiest has to have, and the most all tasks can be worth then."""
    by_task = [[b for b in some if b.task == t] for t in sorted({b.task for b in some})]
    found = []
    for choice in itertools.product(*by_task):
        load = max(sum(b.agent == a for b in choice) for a in AGENTS)
        found.append((load, -sum(b.value for b in choice)))
    load, value = min(found)
    return load, -value


@given(bids)
def test_an_assignment_is_the_best_there_is(some: list[Weighed]) -> None:
    won = award_by("assignment", some, tasks_of(some), POLICY).values()
    load = max(sum(w.bid.agent == a for w in won) for a in AGENTS)
    assert (load, sum(w.bid.value for w in won)) == best_by_brute_force(some)


def test_in_a_sequential_auction_the_busy_are_slower() -> None:
    policy = Policy(cost_of_second=10)
    some = [
        weighed(task, agent, price, seconds=2)
        for task in TASKS
        for agent, price in (("ann", 0), ("bob", 15))
    ]
    won = award_by("sequential", some, tasks_of(some), policy)
    assert [won[t].bid.agent for t in ("y", "x", "z")] == ["ann", "bob", "ann"]


def test_equal_bids_are_told_apart_by_a_lot_not_by_name() -> None:
    def winner(seed: int) -> str:
        policy = Policy(seed=seed)
        some = [
            weigh(Bid(call=1, task="x", agent=a, status="proposed", offer=Offer()),
                  Task(id="x", goal="x"), None, policy, PLAIN)
            for a in AGENTS
        ]  # fmt: skip
        return award_by("best_value", some, [Task(id="x", goal="x")], policy)["x"].bid.agent

    assert {winner(seed) for seed in range(40)} == set(AGENTS)


def test_what_was_measured_weighs_against_what_is_said() -> None:
    bid = Bid(call=1, task="x", agent="a", status="proposed", offer=Offer(confidence=0.99))
    task = Task(id="x", goal="x")
    new = weigh(bid, task, None, POLICY, PLAIN)
    known = weigh(bid, task, Record(counts={"": Count(good=1, bad=9)}), POLICY, PLAIN)
    assert (round(new.chance, 2), round(known.chance, 3)) == (0.99, 0.248)
    assert known.value < new.value


@pytest.mark.parametrize(
    ("offer", "after", "status"),
    [
        (None, 5.0, "silent"),
        (Offer(decline="busy"), 0.1, "declined"),
        (Offer(price=5), 10.0, "proposed"),
        (Offer(price=5), 10.001, "late"),
        (Offer(price=6), 1.0, "void"),
    ],
)
def test_what_becomes_of_an_answer(offer: Offer | None, after: float, status: str) -> None:
    assert standing_of(offer, after, 10.0, Policy(max_price=5))[0] == status


some_bids = st.dictionaries(
    st.sampled_from(["1/a/x", "1/b/x", "2/a/x"]),
    st.builds(Bid, call=st.just(1), task=st.just("x"), agent=st.just("a"),
              status=st.sampled_from(["proposed", "late"]), after=st.sampled_from([0.0, 1.0])),
)  # fmt: skip


@given(some_bids, some_bids, some_bids)
def test_bids_fold_in_any_order_and_again(a: Any, b: Any, c: Any) -> None:
    assert merge_bids(a, b) == merge_bids(b, a)
    assert merge_bids(merge_bids(a, b), c) == merge_bids(a, merge_bids(b, c))
    assert merge_bids(merge_bids(a, b), b) == merge_bids(a, b)


def test_without_scipy_the_rule_that_needs_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Misbuilt, match=r'pip install "kapelle\[market\]"'):
        must_be_rule("assignment")
    must_be_rule("sequential")
    assert auction.RULES
