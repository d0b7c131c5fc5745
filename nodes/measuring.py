"""What agents' work was worth: outcomes in LangGraph's store, shared by runs.

An outcome is an item of its own under its award's id: recorded again after a crash, it is the same
one, and two runs that record at once lose nothing. Without a store, an outcome holds for the run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from langgraph.store.base import BaseStore, PutOp, SearchOp

from kapelle.state.reputation import Outcome
from kapelle.state.skills import AgentCard

KEPT = 256
"""Outcomes that are kept of one agent, the newest."""

REPUTATION = ("kapelle", "reputation")
AGENTS = ("kapelle", "agents")

NAMESAKES = 8
"""Cards that are kept of one name; a further one is not."""
MOST = 10_000
"""Cards that are read from a store."""


@dataclass(frozen=True)
class Introduced:
    """A card that a market called, and when it last did."""

    card: AgentCard
    seen: float
    """Unix time in seconds."""


async def known_outcomes(store: BaseStore | None, agent: str) -> list[Outcome]:
    """What was measured of an agent, the oldest first."""
    if store is None:
        return []
    items = await store.asearch((*REPUTATION, label(agent)), limit=8 * KEPT)
    return sorted((Outcome.model_validate(item.value) for item in items), key=_age)


async def record(store: BaseStore | None, outcomes: Iterable[Outcome]) -> None:
    """Keep outcomes, each once; of each agent, forget the oldest beyond `KEPT`."""
    if store is None:
        return
    for outcome in outcomes:
        place = (*REPUTATION, label(outcome.agent))
        await store.aput(place, outcome.id, outcome.model_dump(mode="json"), index=False)
        known = await known_outcomes(store, outcome.agent)
        if len(known) > KEPT:
            await store.abatch([PutOp(place, old.id, None) for old in known[:-KEPT]])


async def introduce(store: BaseStore | None, cards: Iterable[AgentCard], now: float) -> None:
    """Keep the cards of agents that are called, with when that was (Unix time in seconds).

    A card that differs from what is known under its name is kept beside it, in its place never.
    """
    if store is None:
        return
    called = [((*AGENTS, label(card.name)), _digest(card), card) for card in cards]
    known = await store.abatch([SearchOp(place, limit=NAMESAKES) for place, _, _ in called])
    await store.abatch(
        [
            PutOp(place, key, {"card": card.model_dump(mode="json"), "seen": now}, index=False)
            for (place, key, card), items in zip(called, known, strict=True)
            if isinstance(items, list)
            and (len(items) < NAMESAKES or any(getattr(i, "key", "") == key for i in items))
        ]
    )


async def known_cards(store: BaseStore) -> dict[str, list[Introduced]]:
    """The cards that are remembered under each name; the one that came first has the name."""
    found: dict[str, list[Introduced]] = {}
    items = await store.asearch(AGENTS, limit=MOST)
    for item in sorted(items, key=lambda item: (item.created_at, item.key)):
        card = AgentCard.model_validate(item.value["card"])
        found.setdefault(card.name, []).append(Introduced(card, item.value["seen"]))
    return found


async def forget_cards(store: BaseStore, agent: str) -> int:
    """Forget the cards of a name, so that the next one has it; how many there were."""
    place = (*AGENTS, label(agent))
    items = await store.asearch(place, limit=MOST)
    await store.abatch([PutOp(place, item.key, None) for item in items])
    return len(items)


def label(agent: str) -> str:
    """An agent's name as a part of a namespace, which may hold no dot.

    >>> label("dr. no")
    'dr%2E no'
    """
    return agent.replace("%", "%25").replace(".", "%2E")


def _digest(card: AgentCard) -> str:
    return sha256(card.model_dump_json().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _age(outcome: Outcome) -> tuple[float, str]:
    return outcome.at, outcome.id
