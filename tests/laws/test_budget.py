"""Sums are exact, limits are limits, and waiting has bounds."""

from dataclasses import replace

from hypothesis import assume, example, given
from hypothesis import strategies as st

from kapelle.state.budget import Balance, Budget, Envelope, Spend, Usage, fit, room
from kapelle.state.policy import Policy, backoff
from kapelle.state.task import Attempt, total_usage
from tests.laws.drawn import usages

limits = st.none() | st.integers(0, 3000)
budgets = st.builds(Budget, tokens=limits, calls=st.none() | st.integers(0, 40))
amounts = st.integers(0, 2000)
balances = st.builds(
    Balance, input_tokens=amounts, output_tokens=amounts, calls=amounts, held_tokens=amounts,
    held_calls=amounts, held_usd=amounts,
)  # fmt: skip


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


@given(balances, usages)
def test_anything_fits_an_unlimited_budget(balance: Balance, wanted: Usage) -> None:
    assert fit(Budget.unlimited(), balance, wanted) == "fits"
    assert Budget.unlimited() == Budget()
    assert not Budget().bounded


@given(budgets, balances, usages)
def test_what_fits_stays_within_each_limit(budget: Budget, balance: Balance, wanted: Usage) -> None:
    fits = fit(budget, balance, wanted) == "fits"
    balance.hold(wanted)
    counted = balance.counted
    assert fits == (
        (budget.tokens is None or counted.tokens <= budget.tokens)
        and (budget.calls is None or counted.calls <= budget.calls)
    )


@given(budgets, balances, usages)
def test_what_may_fit_later_fits_when_all_has_settled_for_nothing(
    budget: Budget, balance: Balance, wanted: Usage
) -> None:
    said = fit(budget, balance, wanted)
    balance.held_tokens = balance.held_calls = balance.held_usd = 0
    assert fit(budget, balance, wanted) == ("never" if said == "never" else "fits")


@given(balances, usages, usages)
def test_what_was_charged_in_full_is_corrected_when_it_is_known(
    balance: Balance, wanted: Usage, actual: Usage
) -> None:
    known = replace(balance)
    known.hold(wanted)
    known.settle(wanted, actual)
    balance.hold(wanted)
    balance.settle(wanted, wanted)
    balance.correct(wanted, actual)
    assert balance == known


@given(usages)
def test_money_that_is_limited_refuses_what_nobody_can_price(wanted: Usage) -> None:
    unpriced = wanted.model_copy(update={"micro_usd": None})
    assert fit(Budget(usd=1e9), Balance(), unpriced) == "unpriced"
    assert fit(Budget(tokens=10**9), Balance(), unpriced) == "fits"


def test_what_turns_out_to_have_no_price_counts_as_much_as_was_reserved() -> None:
    balance = Balance()
    balance.hold(Usage(calls=1, micro_usd=70))
    balance.settle(Usage(calls=1, micro_usd=70), Usage(calls=1, micro_usd=None))
    assert balance.micro_usd == 70


def test_a_limit_of_dollars_is_whole_micro_dollars() -> None:
    assert Budget(usd=0.1).micro_usd == 100_000
    assert Budget(usd=1e-6).micro_usd == 1


def test_the_reason_names_the_envelope_and_the_figures() -> None:
    balance = Balance(input_tokens=40, held_tokens=30)
    envelopes = [Envelope("", Budget()), Envelope("/task a", Budget(tokens=100))]
    said = room(envelopes, [Balance(), balance], Usage(output_tokens=31))
    assert said.fit == "later"
    assert said.why == "/task a: 70 of 100 tokens are gone, 31 are wanted"


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
