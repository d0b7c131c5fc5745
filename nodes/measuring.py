"""What agents' work was worth: outcomes in LangGraph's store, shared by runs.

An outcome is an item of its own under its award's id: recorded again after a crash, it is the same
one, and two runs that record at once lose nothing. Without a store, an outcome holds for the run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.store.base import BaseStore, Item, PutOp, SearchOp

from kapelle.state.reputation import Outcome
from kapelle.state.skills import AgentCard, identity

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


async def introduce(
    store: BaseStore | None, cards: Iterable[AgentCard], now: float
) -> dict[str, str]:
    """Keep the cards of agents that are called, with when that was (Unix time in seconds).

    A card that says other things of an agent than what is known under its name is kept beside it,
    in its place never; and what is measured of its agent, under a name of its own.

    Returns:
        By agent, the name under which its outcomes are kept.
    """
    cards = list(cards)
    if store is None:
        return {card.name: card.name for card in cards}
    places = [(*AGENTS, label(card.name)) for card in cards]
    found = await store.abatch([SearchOp(place, limit=NAMESAKES) for place in places])
    puts, known_as = [], {}
    for card, place, items in zip(cards, places, found, strict=True):
        listed = items if isinstance(items, list) else []
        known = {item.key: item.value for item in listed if isinstance(item, Item)}
        owner = min(known, key=lambda key: _since(known[key], key), default="")
        mine = identity(card)
        known_as[card.name] = card.name if owner in ("", mine) else f"{card.name} #{mine[:8]}"
        if mine in known or len(known) < NAMESAKES:
            since = known[mine].get("since", 0.0) if mine in known else now
            value = {"card": card.model_dump(mode="json"), "seen": now, "since": since}
            puts.append(PutOp(place, mine, value, index=False))
    await store.abatch(puts)
    return known_as


async def known_cards(store: BaseStore) -> dict[str, list[Introduced]]:
    """The cards that are remembered under each name; the one that came first has the name."""
    found: dict[str, list[Introduced]] = {}
    items = await store.asearch(AGENTS, limit=MOST)
    for item in sorted(items, key=lambda item: _since(item.value, item.key)):
        card = AgentCard.model_validate(item.value["card"])
        found.setdefault(card.name, []).append(Introduced(card, item.value["seen"]))
    return found


async def is_shared(store: BaseStore, agent: str) -> bool:
    """Whether several cards have come under a name, so that it alone says not whose it is."""
    return len(await store.asearch((*AGENTS, label(agent)), limit=2)) > 1


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


def _since(value: Mapping[str, Any], key: str) -> tuple[float, str]:
    """When a card first came."""
    return value.get("since", 0.0), key


def _age(outcome: Outcome) -> tuple[float, str]:
    return outcome.at, outcome.id
