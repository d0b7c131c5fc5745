"""What every ledger holds to, wherever it keeps its books."""

import asyncio
from uuid import uuid4

import pytest

from kapelle.nodes.services import Ledger
from kapelle.state.budget import Budget, Envelope, Usage

pytestmark = pytest.mark.anyio

ONE = Usage(calls=1)


def run(**limits: float) -> list[Envelope]:
    """The run's envelope alone."""
    return [Envelope("", Budget.model_validate(limits))]


async def test_what_is_reserved_counts_until_it_is_settled(ledger: Ledger, book: str) -> None:
    wanted, used = Usage(input_tokens=50, output_tokens=50, calls=1), Usage(output_tokens=7)
    assert (await ledger.reserve(book, "k", wanted, run(tokens=100))).fit == "fits"
    assert (await ledger.spent(book)).tokens == 100
    await ledger.settle(book, "k", used)
    assert await ledger.spent(book) == used
    assert await ledger.held(book) == []


async def test_what_does_not_fit_now_may_later_and_then_never(ledger: Ledger, book: str) -> None:
    limits = run(calls=1)
    assert (await ledger.reserve(book, "a", ONE, limits)).fit == "fits"
    assert (await ledger.reserve(book, "b", ONE, limits)).fit == "later"
    await ledger.settle(book, "a", Usage())
    assert (await ledger.reserve(book, "b", ONE, limits)).fit == "fits"
    await ledger.settle(book, "b", ONE)
    said = await ledger.reserve(book, "c", ONE, limits)
    assert (said.fit, said.why) == ("never", "run: 1 of 1 calls are gone, 1 are wanted")


async def test_each_run_has_its_own_book(ledger: Ledger, book: str) -> None:
    for name in (book, book + "'"):
        assert (await ledger.reserve(name, "k", ONE, run(calls=1))).fit == "fits"
    assert (await ledger.reserve(book, "l", ONE, run(calls=1))).fit == "later"


async def test_told_twice_is_told_once(ledger: Ledger, book: str) -> None:
    for _ in range(3):
        assert (await ledger.reserve(book, "k", ONE, run(calls=1))).fit == "fits"
    assert await ledger.spent(book) == ONE
    for used in (Usage(calls=1, output_tokens=3), Usage(calls=9)):
        await ledger.settle(book, "k", used)
    assert await ledger.spent(book) == Usage(calls=1, output_tokens=3)


async def test_what_was_never_reserved_cannot_be_settled(ledger: Ledger, book: str) -> None:
    await ledger.settle(book, "k", ONE)
    assert await ledger.spent(book) == Usage()


async def test_a_book_that_is_opened_for_another_run_is_empty(ledger: Ledger, book: str) -> None:
    await ledger.open(book, "first")
    await ledger.reserve(book, "k", ONE, run(calls=1))
    await ledger.open(book, "first")
    assert await ledger.spent(book) == ONE, "the same run, entered again after a crash"
    await ledger.open(book, "second")
    assert await ledger.spent(book) == Usage()
    await ledger.settle(book, "k", ONE)
    assert await ledger.spent(book) == Usage(), "a late answer of the run before"


async def test_all_envelopes_or_none(ledger: Ledger, book: str) -> None:
    small = [*run(calls=10), Envelope("/task a", Budget(calls=1))]
    assert (await ledger.reserve(book, "a", ONE, small)).fit == "fits"
    said = await ledger.reserve(book, "b", ONE, small)
    assert (said.fit, said.why) == ("later", "/task a: 1 of 1 calls are gone, 1 are wanted")
    assert (await ledger.balance(book)).held_calls == 1
    assert (await ledger.balance(book, "/task a")).held_calls == 1
    await ledger.settle(book, "a", Usage(calls=1, micro_usd=None))
    for account in ("", "/task a"):
        balance = await ledger.balance(book, account)
        assert (balance.calls, balance.unpriced, balance.held_calls) == (1, 1, 0)


async def test_an_overrun_is_booked_and_stops_the_next(ledger: Ledger, book: str) -> None:
    wanted = Usage(output_tokens=60, calls=1)
    await ledger.reserve(book, "a", wanted, run(tokens=100))
    await ledger.settle(book, "a", Usage(output_tokens=150, calls=1))
    balance = await ledger.balance(book)
    assert (balance.output_tokens, balance.over_tokens) == (150, 90)
    assert (await ledger.reserve(book, "b", ONE, run(tokens=100))).fit == "never"


async def test_money_is_limited_and_what_has_no_price_refused(ledger: Ledger, book: str) -> None:
    cent = Usage(calls=1, micro_usd=10_000)
    for key in "abc":
        said = await ledger.reserve(book, key, cent, run(usd=0.02))
        assert said.fit == ("later" if key == "c" else "fits")
    unpriced = Usage(calls=1, micro_usd=None)
    assert (await ledger.reserve(book, "d", unpriced, run(usd=0.02))).fit == "unpriced"
    assert (await ledger.reserve(book, "d", unpriced, run(calls=9))).fit == "fits"
    assert (await ledger.balance(book)).held_usd == 20_000


async def test_who_died_is_charged_in_full_until_it_is_known(ledger: Ledger, book: str) -> None:
    wanted = Usage(output_tokens=100, calls=1)
    await ledger.reserve(book, "a", wanted, run(tokens=150))
    (spend,) = await ledger.held(book)
    assert (spend.key, spend.accounts, spend.reserved) == ("a", ("",), wanted)
    await ledger.charge(book)
    assert await ledger.held(book) == []
    assert (await ledger.balance(book)).output_tokens == 100
    assert (await ledger.reserve(book, "b", wanted, run(tokens=150))).fit == "never"
    await ledger.settle(book, "a", Usage(output_tokens=30, calls=1))
    assert await ledger.spent(book) == Usage(output_tokens=30, calls=1)
    assert (await ledger.reserve(book, "b", wanted, run(tokens=150))).fit == "fits"


async def test_a_person_can_raise_the_limit(ledger: Ledger, book: str) -> None:
    await ledger.reserve(book, "a", ONE, run(calls=1))
    await ledger.settle(book, "a", ONE)
    assert (await ledger.reserve(book, "b", ONE, run(calls=1))).fit == "never"
    await ledger.grant(book, Budget(calls=1, usd=1.5))
    assert (await ledger.reserve(book, "b", ONE, run(calls=1))).fit == "fits"
    assert (await ledger.balance(book)).granted_usd == 1_500_000


async def test_seconds_of_work_run_out(ledger: Ledger, book: str) -> None:
    limits = run(seconds=10)
    assert (await ledger.reserve(book, "a", ONE, limits)).seconds == 10
    await ledger.settle(book, "a", ONE, {"": 4_000})
    assert (await ledger.reserve(book, "b", ONE, limits)).seconds == 6
    said = await ledger.reserve(book, "c", ONE, limits, {"": 6_000})
    assert (said.fit, said.why) == ("never", "run: 10 of 10 seconds are gone")


async def test_of_many_at_once_exactly_so_many_fit(ledger: Ledger, book: str) -> None:
    limits = [*run(calls=37), Envelope("/agent a", Budget(calls=50))]

    async def wish() -> bool:
        return (await ledger.reserve(book, uuid4().hex, ONE, limits)).fit == "fits"

    assert sum(await asyncio.gather(*(wish() for _ in range(100)))) == 37
    assert await ledger.spent(book) == Usage(calls=37)


async def test_keys_and_accounts_are_any_text(ledger: Ledger, book: str) -> None:
    odd = "x\x00\ud800 é" * 50
    limits = [*run(calls=9), Envelope(odd, Budget(calls=1))]
    assert (await ledger.reserve(book, odd, ONE, limits)).fit == "fits"
    (spend,) = await ledger.held(book)
    assert (spend.key, spend.accounts) == (odd, ("", odd))
