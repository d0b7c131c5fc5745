"""The ledger under anything that may happen, in any order: the bound holds, nothing is stuck."""

import asyncio
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kapelle.nodes.in_memory import MemoryLedger
from kapelle.nodes.services import Ledger
from kapelle.state.budget import Balance, Budget, Envelope, Usage

TREE = {"": None, "/task a": "", "/task b": "", "/agent x": "/task a", "/agent y": "/task a"}
"""Three levels of accounts, each with the one it lies in."""

tokens = st.integers(0, 300)


def path(account: str | None) -> list[str]:
    """An account and all around it, outermost first."""
    return [] if account is None else [*path(TREE[account]), account]


class Machine(RuleBasedStateMachine):
    """Reserve, settle, crash, resume, grant, told once or twice; beside it the simplest book."""

    ledger: Ledger
    book: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.held: dict[str, tuple[list[str], int]] = {}
        self.charged: dict[str, tuple[list[str], int]] = {}
        self.spent = dict.fromkeys(TREE, 0)
        self.over = dict.fromkeys(TREE, 0)
        self.granted = dict.fromkeys(TREE, 0)
        self.number = 0

    def do(self, work: Any) -> Any:
        """Wait for it."""
        return self.runner.run(work)

    @initialize(caps=st.fixed_dictionaries({name: st.integers(0, 1000) for name in TREE}))
    def begin(self, caps: dict[str, int]) -> None:
        """Limits of all accounts."""
        self.caps = caps
        self.do(self.ledger.open(self.book, "run"))

    @rule(account=st.sampled_from(sorted(TREE)), most=tokens, twice=st.booleans())
    def reserve(self, account: str, most: int, twice: bool) -> None:  # noqa: FBT001 - Hypothesis's
        """What fits is held, what does not leaves no trace; the reason is right."""
        key, names = f"k{self.number}", path(account)
        self.number += 1
        envelopes = [Envelope(name, Budget(tokens=self.caps[name])) for name in names]
        for _ in range(1 + twice):
            said = self.do(
                self.ledger.reserve(self.book, key, Usage(output_tokens=most), envelopes)
            )
            limits = {name: self.caps[name] + self.granted[name] for name in names}
            if said.fit == "fits":
                self.held[key] = names, most
            elif said.fit == "never":
                assert any(self.spent[n] + most > limits[n] for n in names)
            else:
                assert all(self.spent[n] + most <= limits[n] for n in names)
                assert any(self.spent[n] + self.held_in(n) + most > limits[n] for n in names)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), used=tokens, twice=st.booleans())
    def settle(self, data: st.DataObject, used: int, twice: bool) -> None:  # noqa: FBT001
        """What was used stands in the place of what was reserved, once."""
        key = data.draw(st.sampled_from(sorted(self.held)))
        names, most = self.held.pop(key)
        for _ in range(1 + twice):
            self.do(self.ledger.settle(self.book, key, Usage(output_tokens=used)))
        for name in names:
            self.spent[name] += used
            self.over[name] += max(0, used - most)

    @rule()
    def crash(self) -> None:
        """Whoever resumes charges in full what nobody will settle."""
        self.do(self.ledger.charge(self.book))
        for names, most in self.held.values():
            for name in names:
                self.spent[name] += most
        self.charged |= self.held
        self.held = {}

    @precondition(lambda self: self.charged)
    @rule(data=st.data(), used=tokens)
    def answer_late(self, data: st.DataObject, used: int) -> None:
        """It was not dead: the difference is corrected."""
        key = data.draw(st.sampled_from(sorted(self.charged)))
        names, most = self.charged.pop(key)
        self.do(self.ledger.settle(self.book, key, Usage(output_tokens=used)))
        for name in names:
            self.spent[name] += used - most
            self.over[name] += max(0, used - most)

    @rule()
    def resume(self) -> None:
        """The run's first node is entered again."""
        self.do(self.ledger.open(self.book, "run"))

    @rule(account=st.sampled_from(sorted(TREE)), more=st.integers(1, 200), key=st.integers(0, 3))
    def grant(self, account: str, more: int, key: int) -> None:
        """A person's answer is applied, perhaps again."""
        self.do(
            self.ledger.grant(self.book, Budget(tokens=more), account, key=f"{self.number}/{key}")
        )
        self.do(self.ledger.grant(self.book, Budget(tokens=9), account, key=f"{self.number}/{key}"))
        self.granted[account] += more
        self.number += 1

    @invariant()
    def within_the_bound(self) -> None:
        """Spent + held <= cap + granted + overrun, and all as the simplest book has it."""
        for name in TREE:
            balance: Balance = self.do(self.ledger.balance(self.book, name))
            assert (balance.output_tokens, balance.held_tokens) == (
                self.spent[name],
                self.held_in(name),
            )
            assert balance.over_tokens == self.over[name]
            assert balance.granted_tokens == self.granted[name]
            if hasattr(self, "caps"):
                limit = self.caps[name] + self.granted[name] + balance.over_tokens
                assert balance.output_tokens + balance.held_tokens <= limit

    @invariant()
    def children_out_of_parents(self) -> None:
        """What the accounts within one hold together is no more than it holds itself."""
        for name in TREE:
            inner = sum(self.held_in(child) for child, around in TREE.items() if around == name)
            assert inner <= self.held_in(name)

    def teardown(self) -> None:
        """Never stuck: when all has settled nothing is held."""
        for key in list(self.held):
            self.do(self.ledger.settle(self.book, key, Usage()))
        assert self.do(self.ledger.balance(self.book)).held_tokens == 0
        assert self.do(self.ledger.held(self.book)) == []
        self.runner.close()

    def held_in(self, name: str) -> int:
        """What the simplest book holds in an account."""
        return sum(most for names, most in self.held.values() if name in names)


def test_the_bound_holds_on_every_ledger(ledger: Ledger) -> None:
    def start(self: Machine) -> None:
        Machine.__init__(self)
        self.ledger, self.book = ledger, uuid4().hex

    quick = isinstance(ledger, MemoryLedger)
    run_state_machine_as_test(
        type("Made", (Machine,), {"__init__": start}),
        settings=settings(
            max_examples=60 if quick else 8,
            stateful_step_count=30 if quick else 15,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
