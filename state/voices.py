"""Who takes part in a step of a swarm that a person may hold: the vote goes on within it.

A step that somebody asks in lasts until that is answered, and only then is there another one.
"""

from collections.abc import Collection

from kapelle.state.ballot import AheadBy
from kapelle.state.swarm import Round, Slot, Voice


def voices(now: Round, due: Collection[str]) -> list[Voice]:
    """A voice for each slot that is due, and for every peer that may be asked meanwhile.

    None, where no person holds the step, or nobody would be kept waiting.
    """
    slots = [slot for slot in now.state["asked"] if slot.id in due]
    if not any(_may_hold(now, slot) for slot in slots):
        return []
    others = [] if any(slot.kind == "judge" for slot in slots) else _others(now, slots)
    found = [Voice(agent=slot.agent, slot=slot.id) for slot in slots]
    found += [Voice(agent=peer) for peer in others]
    return found if len(found) > 1 else []


def _may_hold(now: Round, slot: Slot) -> bool:
    return slot.agent in now.election.graphs or now.stands(slot) == "waiting"


def _others(now: Round, slots: Collection[Slot]) -> list[str]:
    """The peers that have nothing to do now, and whose vote may yet be wanted."""
    at_it = {slot.agent for slot in slots}
    over = {slot.agent for slot in now.slots("vote") if now.stands(slot) in ("done", "lost")}
    again = isinstance(now.election.rule, AheadBy)
    return [p for p in now.election.peers if p not in at_it and (again or p not in over)]
