"""The breakers of agents: what this process sees of them, shared with others through the store."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.store.base import BaseStore
from pydantic import ValidationError

from kapelle.nodes.agent import Agent
from kapelle.nodes.here import Here
from kapelle.state.breaker import SICK, Admission, Breaker, admits, newer, observed, probing
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard, identity
from kapelle.state.task import Attempt

SPACE = ("kapelle", "breakers")
"""Where the store keeps them, by the identity of the agent's card: a namesake has its own."""

FRESH = 1.0
"""Seconds that what was read from the store is believed."""

MOST = 1_000
"""Breakers that are read from the store."""


@dataclass
class _Known:
    """What this process knows of agents, each by its identity."""

    breakers: dict[str, Breaker] = field(default_factory=dict)
    read: float = float("-inf")
    """When the store was read last; Unix time in seconds."""

    def of(self, who: str) -> Breaker:
        return self.breakers.get(who, Breaker())


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


async def admission(here: Here, agent: Agent, policy: Policy) -> Admission:
    """Whether an agent may be called now; if only as a probe, this is the probe."""
    if not policy.breaker_window or agent.where == "graph":
        return "closed"
    known, who, now = await _read(here), identity(agent.card), here.services.clock.now()
    way = admits(known.of(who), now, policy)
    if way == "probe":
        await _change(here, known, who, probing(known.of(who), now))
    return way


async def observe(
    here: Here, agent: Agent, policy: Policy, attempt: Attempt, way: Admission
) -> None:
    """Count how a call ended; only what speaks for or against the agent counts."""
    kind = attempt.failure.kind if attempt.failure else None
    if not policy.breaker_window or (kind is not None and kind not in SICK):
        return
    known, who, now = _mine(here), identity(agent.card), here.services.clock.now()
    before = known.of(who)
    after = observed(before, now, policy, good=kind is None, probe=way == "probe")
    if after.open == before.open and after.since == before.since:
        known.breakers[who] = after
        return
    await _change(here, known, who, after)
    what, why = ("opened", "it failed too often") if after.open else ("closed", "it is well again")
    name = agent.card.name
    here.tell("choice", f"breaker {what}", agent=name, why=why, mark=after.since)


async def ailing(here: Here, policy: Policy, cards: Iterable[AgentCard]) -> dict[str, int]:
    """The agents whose breaker is open, by name, each with the tasks it may have: one, or none."""
    if not policy.breaker_window:
        return {}
    known, now = await _read(here), here.services.clock.now()
    ways = {card.name: admits(known.of(identity(card)), now, policy) for card in cards}
    return {name: int(way == "probe") for name, way in ways.items() if way != "closed"}


async def known_breakers(store: BaseStore) -> dict[str, Breaker]:
    """The breakers that runs wrote down, by identity; what cannot be read is left out."""
    found: dict[str, Breaker] = {}
    for item in await store.asearch(SPACE, limit=MOST):
        try:
            found[item.key] = Breaker.model_validate(item.value)
        except ValidationError:
            continue  # of a later version
    return found


def _mine(here: Here) -> _Known:
    whose = here.store if here.store is not None else here.services.journal
    if whose not in _known:
        _known[whose] = _Known()
    return _known[whose]


async def _read(here: Here) -> _Known:
    known, now = _mine(here), here.services.clock.now()
    if here.store is not None and not 0 <= now - known.read < FRESH:
        known.read = now  # whoever comes meanwhile does not wait
        for who, shared in (await known_breakers(here.store)).items():
            known.breakers[who] = newer(known.of(who), shared)
    return known


async def _change(here: Here, known: _Known, who: str, breaker: Breaker) -> None:
    known.breakers[who] = breaker
    if here.store is not None:
        told = breaker.model_copy(update={"recent": ()})
        await here.store.aput(SPACE, who, told.model_dump(mode="json"))
