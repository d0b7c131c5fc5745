"""What is said of each key: claims of one key beside each other, and beside what is decided."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from kapelle.state.context import Claim, Condition, Decision, Key, MasterContext, named
from kapelle.state.normal import Normal, Span, inferred, normal

_NOTHING = MasterContext()


@dataclass(frozen=True, slots=True)
class Said:
    """All that is said of one key."""

    key: Key
    claims: Sequence[Claim]
    """Each once, the surest first, whatever the order they came in."""
    decision: Decision | None = None
    declared: bool = False
    """Whether the key's type was declared, or found at first use."""

    def normals(self) -> list[Normal]:
        """What each claim comes to; what many say alike is read once."""
        read: dict[tuple[type, JsonValue], Normal] = {}
        found = []
        for claim in self.claims:
            value = claim.value
            if isinstance(value, (list, dict)):
                found.append(normal(value, self.key))
                continue
            known = read.get((type(value), value))
            if known is None:
                known = read[type(value), value] = normal(value, self.key)
            found.append(known)
        return found


def sayings(claims: Iterable[Claim], context: MasterContext = _NOTHING) -> dict[str, Said]:
    """What is claimed and decided, by key, in order of key; free keys typed by what is claimed."""
    grouped: dict[str, list[Claim]] = {}
    names: dict[str, str] = {}
    for claim in claims:
        name = names.get(claim.key)
        if name is None:
            name = names[claim.key] = named(claim.key)
        grouped.setdefault(name, []).append(claim)
    declared = {named(key.name): key for key in context.keys}
    decided = {named(decision.key): decision for decision in context.decisions}
    return {
        name: Said(
            declared.get(name) or _typed(name, grouped.get(name, ()), decided.get(name)),
            _each_once(grouped.get(name, ())),
            decided.get(name),
            name in declared,
        )
        for name in sorted({*grouped, *decided} if context.constraints else grouped)
    }


def _each_once(claims: Iterable[Claim]) -> list[Claim]:
    unique = {words(claim): claim for claim in claims}
    return [unique[said] for said in sorted(unique)]


def _typed(name: str, claims: Sequence[Claim], decision: Decision | None) -> Key:
    values: list[JsonValue] = [claim.value for claim in claims]
    return inferred(name, [*values, decision.value] if decision else values)


def typed(condition: Condition, values: Iterable[JsonValue]) -> Key:
    """A free key of these values, typed by what a condition asks of it as well."""
    wanted = condition.value if isinstance(condition.value, list) else [condition.value]
    asked = [] if condition.op == "claimed" else wanted
    return inferred(named(condition.key), [*values, *asked])


def grouped(normals: Sequence[Normal]) -> list[list[int]]:
    """Positions of values that can all hold at once: as few groups as can be, each in order.

    Intervals of a line that meet two by two all have a point in common (Helly), so intervals are
    grouped by the lowest upper end they all reach. Numbers are as wide as their tolerance: no group
    holds two that are further apart, and 1.0, 1.05, 1.1 never become one by way of the middle.
    """
    spans: dict[str, list[int]] = {}
    atoms: dict[Normal, list[int]] = {}
    for i, value in enumerate(normals):
        if isinstance(value, Span):
            spans.setdefault(value.dimension, []).append(i)
        else:
            atoms.setdefault(value, []).append(i)
    groups = list(atoms.values())
    for those in spans.values():
        groups += _stabbed(normals, those)
    return sorted(groups)


def _stabbed(normals: Sequence[Normal], those: list[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    at = None
    spans = [(n.high, n.low, i) for i in those if isinstance(n := normals[i], Span)]
    for high, low, i in sorted(spans):
        if at is not None and low <= at:
            groups[-1].append(i)
        else:
            groups.append([i])
            at = high
    return [sorted(group) for group in groups]


def words(claim: Claim) -> tuple[float, str, str, str, str, str, int]:
    """All that a claim says, to be compared."""
    key, text = assertion(claim)
    return (-claim.confidence, text, claim.evidence, claim.by, claim.task, key, claim.version)


def assertion(claim: Claim) -> tuple[str, str]:
    """What a claim says of what, whoever says it: of two that say the same both stand or neither.

    >>> assertion(Claim(key="ui", value="Vue", by="a")) == assertion(Claim(key="ui", value="Vue"))
    True
    """
    value = claim.value
    return claim.key, json.dumps(value) if isinstance(value, (list, dict)) else repr(value)
