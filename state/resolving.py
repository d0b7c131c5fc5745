"""Who is right where claims can't all hold: rules in a fixed order, then a judge, then a person."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import JsonValue

from kapelle.state.circles import circles
from kapelle.state.context import (
    Condition,
    Contradiction,
    Decision,
    Key,
    Question,
    Rule,
    Side,
    named,
)
from kapelle.state.contradictions import holds
from kapelle.state.normal import Chain, Normal, inferred, meets, normal
from kapelle.state.sayings import Said, assertion, typed
from kapelle.state.terms import Terms

MARGIN = 0.1
"""By what part the better side must be better for evidence to decide: what agents say of their own
confidence, and what was measured of them, is not finer than that."""

UNSEEN = 0.5
"""What a claim without evidence counts, as a part of one with evidence."""

UNKNOWN = 0.5
"""The reputation of an agent nobody has measured."""

Reputation = Mapping[str, float]
"""How good agents turned out to be, from 0 to 1, by name."""


def resolve(
    found: Contradiction, terms: Terms, reputation: Reputation | None = None
) -> Contradiction:
    """Settle it by rule, if a rule can: the record with its sides, the rule and what is decided.

    The rules, in this order: a hard constraint wins; what is decided beats what is claimed; a soft
    constraint; evidence (confidence, times the agent's reputation, halved where there is nothing to
    see); more agents. What none of them settles stays open.
    """
    if found.rule is not None or found.kind == "omission":
        return found
    known = reputation or {}
    if found.kind == "order":
        return _unwound(found, known)
    if found.kind == "constraint" or _alone(found):
        return _broke(found, terms)
    sides = list(found.sides)
    for rule, keep in _rules(found, terms, known):
        kept = keep(sides)
        if len(kept) == 1:
            return _won(found, kept[0], rule)
        sides = kept or sides
    return found


def choose(
    found: Contradiction, value: JsonValue, terms: Terms, *, rule: Rule, who: str
) -> Contradiction:
    """Settle it as a judge or a person did: the sides that can hold beside `value` stand."""
    key = _key(found, terms, value)
    wanted = normal(value, key)
    kept = [s for s in found.sides if (s.claims or s.held == "decided") and _beside(s, wanted, key)]
    return _settled(found, kept, rule, Decision(key=found.key, value=value, rule=rule, who=who))


def dismissed(found: Contradiction, who: str) -> Contradiction:
    """Settled by a person who rejects all sides: nothing is decided, none stands."""
    return found.model_copy(update={"rule": "person", "why": f"{found.why}; {who} rejected all"})


def undisputed(sayings: Mapping[str, Said], found: Iterable[Contradiction]) -> tuple[Decision, ...]:
    """What is claimed once or alike, and not yet decided: held as true from now on."""
    disputed = {key for c in found for key in _keys(c)}
    return tuple(
        Decision(
            key=name,
            value=said.claims[0].value,
            rule="undisputed",
            by=tuple(sorted({claim.by for claim in said.claims})),
        )
        for name, said in sayings.items()
        if name not in disputed and said.decision is None and said.claims and not said.key.many
        and said.key.type != "order"
    )  # fmt: skip


def decisions(found: Iterable[Contradiction]) -> tuple[Decision, ...]:
    """What follows from all that is settled: no decision whose claims lost elsewhere.

    Nor one that was held already: what decided it then, and who, stays written down.
    """
    settled = [c for c in found if c.rule is not None]
    times = Counter(key for c in settled for key in _keys(c))
    lost = fallen(c for c in settled if any(times[key] > 1 for key in _keys(c)))
    made: dict[str, Decision] = {}
    for one in settled:
        stands = [claim for side in one.sides if side.stands for claim in side.claims]
        beaten = lost and stands and lost.issuperset(map(assertion, stands))
        if one.decision is not None and one.rule != "decided" and not beaten:
            made.setdefault(one.decision.key, one.decision)
    return tuple(made.values())


def fallen(found: Iterable[Contradiction]) -> set[tuple[str, str]]:
    """What was claimed and does not stand."""
    return {assertion(claim) for c in found for claim in c.losing}


def _keys(found: Contradiction) -> set[str]:
    """The keys it is about: of two that exclude or need each other, both."""
    others = found.claims if found.kind in ("exclusion", "dependency") else ()
    return {named(found.key), *(named(claim.key) for claim in others)}


def typed_by(sayings: Mapping[str, Said]) -> tuple[Key, ...]:
    """The types that free keys got by this first use of them."""
    return tuple(
        said.key for said in sayings.values()
        if said.claims and not said.declared and said.key.type != "text"
    )  # fmt: skip


def question(found: Contradiction) -> Question:
    """What is open while nobody has settled it."""
    return Question(key=named(found.key), text=f"{found.why}; which of them holds?")


def advice(found: Contradiction) -> str:
    """What whoever relied on what does not stand is told before doing it again."""
    if found.kind == "omission":
        return f"{found.key} was promised; claim it"
    if found.decision is None:
        return f"{found.why}; that does not stand"
    decided = found.decision
    who = f", {decided.who}" if decided.who else ""
    return (
        f"{decided.key} is decided ({decided.rule}{who}): {json.dumps(decided.value)}; keep to it"
    )


def at_stake(found: Contradiction) -> tuple[str, ...]:
    """The tasks that made what does not stand, or did not deliver what they promised."""
    if found.kind == "omission":
        return found.promised
    return tuple(sorted({claim.task for claim in found.losing}))


_Keep = Callable[[list[Side]], list[Side]]


def _rules(found: Contradiction, terms: Terms, known: Reputation) -> tuple[tuple[Rule, _Keep], ...]:
    def hard(sides: list[Side]) -> list[Side]:
        return _kept([s for s in sides if not s.misfit], found.key, terms.hard, terms)

    def soft(sides: list[Side]) -> list[Side]:
        return _kept(sides, found.key, terms.soft, terms)

    def decided(sides: list[Side]) -> list[Side]:
        return [s for s in sides if s.held == "decided"]

    def surest(sides: list[Side]) -> list[Side]:
        return _ahead(sides, lambda s: _weight(s, known), 1 + MARGIN)

    def most(sides: list[Side]) -> list[Side]:
        return _ahead(sides, lambda s: len({c.by for c in s.claims}), 1)

    return (
        ("constraint", hard),
        ("decided", decided),
        ("constraint", soft),
        ("evidence", surest),
        ("vote", most),
    )


def _ahead(sides: list[Side], worth: Callable[[Side], float], lead: float) -> list[Side]:
    """The best side, if it leads all others; else those that are not behind."""
    worths = [worth(side) for side in sides]
    best = max(worths)
    return (
        [s for s, w in zip(sides, worths, strict=True) if w * lead >= best] if best > 0 else sides
    )


def _weight(side: Side, known: Reputation) -> float:
    """What the side's best claim is worth."""
    worth = [
        c.confidence * known.get(c.by, UNKNOWN) * (1 if c.evidence else UNSEEN) for c in side.claims
    ]
    return max(worth, default=0.0)


def _kept(
    sides: list[Side], key: str, laws: Mapping[str, Sequence[Condition]], terms: Terms
) -> list[Side]:
    """The sides that break none of these laws."""
    return [s for s in sides if not _breaks(s, key, laws, terms)] if laws else sides


def _breaks(side: Side, key: str, laws: Mapping[str, Sequence[Condition]], terms: Terms) -> bool:
    name = named(side.claims[0].key if side.claims else key)
    return any(
        not holds(must, side.value, terms.keys.get(name) or typed(must, [side.value]))
        for must in laws.get(name, ())
    )


def _alone(found: Contradiction) -> bool:
    """Whether what claims collide with is a rule, not another claim."""
    return sum(bool(s.claims or s.held == "decided") for s in found.sides) < 2


def _broke(found: Contradiction, terms: Terms) -> Contradiction:
    """Claims against a rule: a hard one wins, a soft one gives way and is noted."""
    law = terms.laws.get(found.why)
    wins = law is None or law.hard
    kept = [s for s in found.sides if (law is not None and s.held == law.text) == wins]
    kept = [s for s in kept if not s.misfit]
    must = law.must if law and wins and found.kind == "constraint" else None
    decision = None
    if law and must and must.op == "is":
        decision = Decision(key=found.key, value=must.value, rule="constraint", who=law.by)
    return _settled(found, kept, "constraint" if wins else "undisputed", decision)


def _unwound(found: Contradiction, known: Reputation) -> Contradiction:
    """Orders are kept from the best down, as long as they make no circle; a tie stays open."""

    def rank(side: Side) -> tuple[bool, float, int]:
        return (side.held == "decided", _weight(side, known), len({c.by for c in side.claims}))

    key = Key(name=found.key, type="order")
    best = sorted(found.sides, key=rank, reverse=True)
    kept: list[Side] = []
    for side in best:
        if not circles(_chains([*kept, side], key)):
            kept.append(side)
    falls = [side for side in best if side not in kept]
    if any(rank(side) == rank(fallen) for side in kept for fallen in falls):
        return found
    ahead = kept and all(_weight(kept[-1], known) > _weight(s, known) for s in falls)
    rule: Rule = "decided" if best[0].held == "decided" else "evidence" if ahead else "vote"
    return _settled(found, kept, rule, None)


def _beside(side: Side, wanted: Normal, key: Key) -> bool:
    """Whether the side can hold beside what is wanted."""
    if isinstance(wanted, Chain):
        return not circles([wanted, *_chains([side], key)])
    return meets(normal(side.value, key), wanted)


def _chains(sides: Iterable[Side], key: Key) -> list[Chain]:
    return [n for side in sides if isinstance(n := normal(side.value, key), Chain)]


def _won(found: Contradiction, first: Side, rule: Rule) -> Contradiction:
    key = named(first.claims[0].key) if first.claims else found.key
    return _settled(found, [first], rule, Decision(key=key, value=first.value, rule=rule))


def _settled(
    found: Contradiction, kept: Sequence[Side], rule: Rule, decision: Decision | None
) -> Contradiction:
    """The record, with the sides that stand first."""
    by = tuple(sorted({claim.by for side in kept for claim in side.claims}))
    those = {id(side) for side in kept}
    sides = [
        s if s.stands == (id(s) in those) else s.model_copy(update={"stands": not s.stands})
        for s in found.sides
    ]
    return found.model_copy(
        update={
            "rule": rule,
            "decision": decision and decision.model_copy(update={"by": by}),
            "sides": tuple(sorted(sides, key=lambda s: not s.stands)),
        }
    )


def _key(found: Contradiction, terms: Terms, chosen: JsonValue) -> Key:
    name = named(found.key)
    values = [s.value for s in found.sides if s.claims or s.held == "decided"]
    return terms.keys.get(name) or inferred(name, [*values, chosen])
