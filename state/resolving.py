"""Who is right where claims can't all hold: rules in a fixed order, then a judge, then a person."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import JsonValue

from kapelle.state.circles import circles
from kapelle.state.context import (
    Constraint,
    Contradiction,
    Decision,
    Key,
    MasterContext,
    Question,
    Rule,
    Side,
    named,
)
from kapelle.state.contradictions import holds
from kapelle.state.normal import Chain, Normal, inferred, meets, normal
from kapelle.state.sayings import Said, typed, words

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
    found: Contradiction, context: MasterContext, reputation: Reputation | None = None
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
        return _unwound(found, known, _key(found, context))
    if found.kind == "constraint" or _alone(found):
        return _broke(found, context)
    sides = list(found.sides)
    for rule, keep in _rules(found, context, known):
        kept = keep(sides)
        if len(kept) == 1:
            return _won(found, kept[0], rule)
        sides = kept or sides
    return found


def choose(
    found: Contradiction, value: JsonValue, context: MasterContext, *, rule: Rule, who: str
) -> Contradiction:
    """Settle it as a judge or a person did: the sides that can hold beside `value` stand."""
    key = _key(found, context, value)
    wanted = normal(value, key)
    kept = [s for s in found.sides if (s.claims or s.held == "decided") and _beside(s, wanted, key)]
    return _settled(found, kept, rule, Decision(key=found.key, value=value, rule=rule, who=who))


def dismissed(found: Contradiction, who: str) -> Contradiction:
    """Settled by a person who rejects all sides: nothing is decided, none stands."""
    return found.model_copy(update={"rule": "person", "why": f"{found.why}; {who} rejected all"})


def undisputed(sayings: Mapping[str, Said], found: Iterable[Contradiction]) -> tuple[Decision, ...]:
    """What is claimed once or alike, and not yet decided: held as true from now on."""
    disputed = {named(c.key) for c in found} | {
        named(claim.key) for c in found for claim in c.claims
    }
    return tuple(
        Decision(
            key=name,
            value=min(said.claims, key=words).value,
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
    fallen = {claim.model_dump_json() for c in settled for claim in c.losing}
    made: dict[str, Decision] = {}
    for one in settled:
        stands = [claim for s in one.sides if s.stands for claim in s.claims]
        lost = stands and all(claim.model_dump_json() in fallen for claim in stands)
        if one.decision is not None and one.rule != "decided" and not lost:
            made.setdefault(one.decision.key, one.decision)
    return tuple(made.values())


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


def _rules(
    found: Contradiction, context: MasterContext, known: Reputation
) -> tuple[tuple[Rule, _Keep], ...]:
    laws = [c for c in context.constraints if c.when is None and c.must]

    def hard(sides: list[Side]) -> list[Side]:
        must = [c for c in laws if c.hard]
        return [s for s in sides if not s.misfit and not _breaks(s, found.key, context, must)]

    def soft(sides: list[Side]) -> list[Side]:
        should = [c for c in laws if not c.hard]
        return [s for s in sides if not _breaks(s, found.key, context, should)]

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
    worth = (
        c.confidence * known.get(c.by, UNKNOWN) * (1 if c.evidence else UNSEEN) for c in side.claims
    )
    return max(worth, default=0.0)


def _breaks(side: Side, name: str, context: MasterContext, laws: Iterable[Constraint]) -> bool:
    name = named(side.claims[0].key) if side.claims else name
    asked = [law.must for law in laws if law.must and named(law.must.key) == name]
    declared = _declared(name, context) if asked else None
    return any(not holds(must, side.value, declared or typed(must, [side.value])) for must in asked)


def _alone(found: Contradiction) -> bool:
    """Whether what claims collide with is a rule, not another claim."""
    return sum(bool(s.claims or s.held == "decided") for s in found.sides) < 2


def _broke(found: Contradiction, context: MasterContext) -> Contradiction:
    """Claims against a rule: a hard one wins, a soft one gives way and is noted."""
    law = next((c for c in context.constraints if c.text == found.why), None)
    wins = law is None or law.hard
    kept = [s for s in found.sides if (law is not None and s.held == law.text) == wins]
    kept = [s for s in kept if not s.misfit]
    must = law.must if law and wins and found.kind == "constraint" else None
    decision = None
    if law and must and must.op == "is":
        decision = Decision(key=found.key, value=must.value, rule="constraint", who=law.by)
    return _settled(found, kept, "constraint" if wins else "undisputed", decision)


def _unwound(found: Contradiction, known: Reputation, key: Key) -> Contradiction:
    """Orders are kept from the best down, as long as they make no circle; a tie stays open."""

    def rank(side: Side) -> tuple[bool, float, int]:
        return (side.held == "decided", _weight(side, known), len({c.by for c in side.claims}))

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


def _key(found: Contradiction, context: MasterContext, *more: JsonValue) -> Key:
    declared = _declared(found.key, context)
    if declared is not None:
        return declared
    values = [s.value for s in found.sides if s.claims or s.held == "decided"]
    return inferred(named(found.key), [*values, *more])


def _declared(name: str, context: MasterContext) -> Key | None:
    return next((key for key in context.keys if named(key.name) == named(name)), None)
