"""What agents assert, what a run holds as decided, and what is done where assertions collide."""

import json
from collections.abc import Iterable

from pydantic import Field, JsonValue

from kapelle.state.noun import Noun


class Claim(Noun):
    """An assertion: the value of a key."""

    key: str = Field(min_length=1)
    """What it is about, like `frontend.framework`."""
    value: JsonValue
    confidence: float = Field(default=1.0, ge=0, le=1)
    """How sure the agent is, from 0 to 1."""
    evidence: str = ""
    """Where it can be seen."""
    by: str = ""
    """The agent; stamped by the orchestrator, not by the agent."""
    task: str = ""
    """The task it was made in; stamped by the orchestrator."""


class Decision(Noun):
    """What the run holds as true of a key, and why."""

    key: str
    value: JsonValue
    rule: str
    """The rule that decided, like `confidence`."""
    by: tuple[str, ...] = ()
    """The agents that claimed it."""


class Contradiction(Noun):
    """Claims of one key that can't all hold, and what was decided; both sides are kept."""

    key: str
    claims: tuple[Claim, ...]
    decision: Decision


class MasterContext(Noun):
    """The document all agents of a run can read."""

    goal: str = ""
    constraints: tuple[str, ...] = ()
    """What must hold."""
    decisions: tuple[Decision, ...] = ()


def contradictions(claims: Iterable[Claim]) -> tuple[Contradiction, ...]:
    """The keys on which claims differ, in order of key, each with a decision.

    The rule, in this order: the value with the most confident claim; then the one more agents
    claimed; then the smaller in JSON order, so that order of arrival never decides.
    """
    by_key: dict[str, dict[str, Claim]] = {}
    for claim in claims:
        by_key.setdefault(claim.key, {})[claim.model_dump_json()] = claim
    found = (_contradiction(key, list(seen.values())) for key, seen in sorted(by_key.items()))
    return tuple(c for c in found if c is not None)


def _contradiction(key: str, claims: list[Claim]) -> Contradiction | None:
    sides: dict[str, list[Claim]] = {}
    for claim in sorted(claims, key=Noun.model_dump_json):
        sides.setdefault(_canonical(claim), []).append(claim)
    if len(sides) < 2:
        return None
    ranked = sorted(
        sides.values(), key=lambda side: (-_confidence(side), -_voices(side), _canonical(side[0]))
    )
    first, second = ranked[0], ranked[1]
    rule = (
        "confidence"
        if _confidence(first) > _confidence(second)
        else "agreement"
        if _voices(first) > _voices(second)
        else "order"
    )
    by = tuple(dict.fromkeys(claim.by for claim in first))
    decision = Decision(key=key, value=first[0].value, rule=rule, by=by)
    return Contradiction(
        key=key, claims=tuple(c for side in ranked for c in side), decision=decision
    )


def _confidence(side: list[Claim]) -> float:
    return max(claim.confidence for claim in side)


def _voices(side: list[Claim]) -> int:
    return len({claim.by for claim in side})


def _canonical(claim: Claim) -> str:
    return json.dumps(claim.value, sort_keys=True)
