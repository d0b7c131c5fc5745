"""Sums are exact, limits are limits, and waiting has bounds."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from kapelle.state.budget import Budget, Spend, Usage, fits
from kapelle.state.policy import Policy, backoff
from kapelle.state.task import Attempt, total_usage
from tests.laws.drawn import usages

limits = st.none() | st.integers(0, 3000)
budgets = st.builds(Budget, tokens=limits, calls=st.none() | st.integers(0, 40))


@given(usages, usages, usages)
def test_usage_adds_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@given(usages, usages)
def test_sums_are_exact(a: Usage, b: Usage) -> None:
    both = a + b
    assert both.tokens == a.tokens + b.tokens
    assert both.calls == a.calls + b.calls


@given(usages, usages)
def test_one_price_that_is_not_known_makes_the_sum_unknown(a: Usage, b: Usage) -> None:
    both = (a + b).micro_usd
    if a.micro_usd is None or b.micro_usd is None:
        assert both is None
    else:
        assert both == a.micro_usd + b.micro_usd


@given(usages, usages)
def test_what_was_added_can_be_taken_out(a: Usage, b: Usage) -> None:
    assume(a.micro_usd is not None)
    assume(b.micro_usd is not None)
    assert (a + b).less(b) == a


@given(st.lists(usages, max_size=5))
def test_attempts_together_used_what_each_used(used: list[Usage]) -> None:
    tries = [Attempt(agent="x", number=1, started=0, seconds=0, usage=u) for u in used]
    total = total_usage(tries)
    assert total.calls == sum(u.calls for u in used)
    assert total.tokens == sum(u.tokens for u in used)


@given(usages, usages)
def test_anything_fits_an_unlimited_budget(booked: Usage, wanted: Usage) -> None:
    assert fits(Budget.unlimited(), booked, wanted)
    assert Budget.unlimited() == Budget()


@given(budgets, usages, usages)
def test_what_fits_stays_within_each_limit(budget: Budget, booked: Usage, wanted: Usage) -> None:
    after = booked + wanted
    within_tokens = budget.tokens is None or after.tokens <= budget.tokens
    within_calls = budget.calls is None or after.calls <= budget.calls
    assert fits(budget, booked, wanted) == (within_tokens and within_calls)


@given(budgets, st.lists(usages, max_size=20))
def test_whoever_asks_first_never_breaks_the_budget(budget: Budget, wanted: list[Usage]) -> None:
    booked = Usage()
    for usage in wanted:
        if fits(budget, booked, usage):
            booked += usage
    assert budget.calls is None or booked.calls <= budget.calls
    assert budget.tokens is None or booked.tokens <= budget.tokens


@given(usages, usages)
def test_a_reservation_counts_until_it_is_settled(reserved: Usage, actual: Usage) -> None:
    assert Spend(key="k", reserved=reserved).counted == reserved
    assert Spend(key="k", reserved=reserved, actual=actual).counted == actual


@given(
    st.builds(Policy, backoff=st.floats(0, 1e9), backoff_cap=st.floats(0, 1e9)),
    st.integers(1, 5_000),
    st.floats(0, 1, exclude_max=True),
)
@example(Policy(attempts=5_000), 5_000, 0.9)
def test_a_pause_is_between_nothing_and_the_cap(policy: Policy, attempt: int, lot: float) -> None:
    pause = backoff(policy, attempt, lot)
    assert 0 <= pause <= policy.backoff_cap
    assert attempt > 1 or pause <= policy.backoff


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_with_each_try(attempt: int, lot: float) -> None:
    assert backoff(Policy(), attempt, lot) <= backoff(Policy(), attempt + 1, lot)


def test_pauses_double_up_to_the_cap() -> None:
    policy = Policy(backoff=1.0, backoff_cap=10.0)
    assert [backoff(policy, n, 0.5) for n in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


def test_without_backoff_there_is_no_pause() -> None:
    assert backoff(Policy(backoff=0), 5, 0.99) == 0
