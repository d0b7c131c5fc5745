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
from kapelle.state.task import Attempt

SPACE = ("kapelle", "breakers")
"""Where the store keeps them, by the agent's name."""

FRESH = 1.0
"""Seconds that what was read from the store is believed."""

MOST = 1_000
"""Breakers that are read from the store."""


@dataclass
class _Known:
    """What this process knows of agents."""

    breakers: dict[str, Breaker] = field(default_factory=dict)
    read: float = float("-inf")
    """When the store was read last; Unix time in seconds."""

    def of(self, name: str) -> Breaker:
        return self.breakers.get(name, Breaker())


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


async def admission(here: Here, agent: Agent, policy: Policy) -> Admission:
    """Whether an agent may be called now; if only as a probe, this is the probe."""
    if not policy.breaker_window or agent.where == "graph":
        return "closed"
    known, name, now = await _read(here), agent.card.name, here.services.clock.now()
    way = admits(known.of(name), now, policy)
    if way == "probe":
        await _change(here, known, name, probing(known.of(name), now))
    return way


async def observe(
    here: Here, agent: Agent, policy: Policy, attempt: Attempt, way: Admission
) -> None:
    """Count how a call ended; only what speaks for or against the agent counts."""
    kind = attempt.failure.kind if attempt.failure else None
    if not policy.breaker_window or (kind is not None and kind not in SICK):
        return
    known, name, now = _mine(here), agent.card.name, here.services.clock.now()
    before = known.of(name)
    after = observed(before, now, policy, good=kind is None, probe=way == "probe")
    if after.open == before.open and after.since == before.since:
        known.breakers[name] = after
        return
    await _change(here, known, name, after)
    what, why = ("opened", "it failed too often") if after.open else ("closed", "it is well again")
    here.tell("choice", f"breaker {what}", agent=name, why=why, mark=after.since)


async def ailing(here: Here, policy: Policy, names: Iterable[str]) -> dict[str, int]:
    """The agents whose breaker is open, each with the tasks it may have now: one, or none."""
    if not policy.breaker_window:
        return {}
    known, now = await _read(here), here.services.clock.now()
    ways = {name: admits(known.of(name), now, policy) for name in names}
    return {name: int(way == "probe") for name, way in ways.items() if way != "closed"}


async def known_breakers(store: BaseStore) -> dict[str, Breaker]:
    """The breakers that runs wrote down, by agent; what cannot be read is left out."""
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
        for name, shared in (await known_breakers(here.store)).items():
            known.breakers[name] = newer(known.of(name), shared)
    return known


async def _change(here: Here, known: _Known, name: str, breaker: Breaker) -> None:
    known.breakers[name] = breaker
    if here.store is not None:
        told = breaker.model_copy(update={"recent": ()})
        await here.store.aput(SPACE, name, told.model_dump(mode="json"))
