"""What can't all hold: found exactly, the same for any order of arrival and any repetition."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from pydantic import JsonValue

from kapelle.state.circles import circles
from kapelle.state.context import (
    Claim,
    Condition,
    Constraint,
    Contradiction,
    Decision,
    Key,
    Kind,
    MasterContext,
    Side,
    named,
)
from kapelle.state.normal import Atom, Chain, Normal, Span, meets, normal
from kapelle.state.noun import Noun
from kapelle.state.sayings import Said, grouped, sayings, typed, words

_NOTHING = MasterContext()


def contradictions(
    claims: Iterable[Claim],
    context: MasterContext = _NOTHING,
    promises: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Contradiction, ...]:
    """All that can't hold at once, in order of key, nothing settled.

    Args:
        claims: What agents assert.
        context: What is decided, what must hold, what keys are declared.
        promises: Keys that tasks promised to deliver, with the ids of those tasks.
    """
    return collisions(sayings(claims, context), context, promises)


def collisions(
    said: Mapping[str, Said],
    context: MasterContext = _NOTHING,
    promises: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Contradiction, ...]:
    """The same, of what is said of each key."""
    found = [c for one in said.values() if one.claims for c in _within(one)]
    for constraint in context.constraints:
        found += _broken(constraint, said)
    held = {named(decision.key) for decision in context.decisions} if promises else set()
    found += _omitted(promises or {}, {name for name, one in said.items() if one.claims} | held)
    found.sort(key=_place)
    alike = (list(those) for _, those in groupby(found, _place))
    return tuple(c for those in alike for c in (_by_text(those) if len(those) > 1 else those))


def conflicting_pairs(found: Contradiction) -> int:
    """Pairs of claims that can't both hold: C(n, 2) - sum of C(n_v, 2), for n_v claims a side."""
    sizes = [len(side.claims) for side in found.sides]
    return _pairs(sum(sizes)) - sum(map(_pairs, sizes))


def _within(said: Said) -> Iterator[Contradiction]:
    """What the claims of one key, and what is decided of it, say against each other."""
    if said.key.type == "order":
        yield from _circles(said)
        return
    normals = said.normals()
    if said.key.many:
        groups = [[i for i, n in enumerate(normals) if not _misfits(n)]]
        groups += [[i] for i, n in enumerate(normals) if _misfits(n)]
        groups = [group for group in groups if group]
    else:
        groups = grouped(normals)
    misfit = said.declared and any(map(_misfits, normals))
    decided = _decided(said, normals, groups)
    if misfit or (not said.key.many and (len(groups) > 1 or decided is not None)):
        sides = _in_order(_side(said, normals, group) for group in groups)
        yield _contradiction(said, sides, decided, "type" if misfit else "value")


def _decided(
    said: Said, normals: Sequence[Normal], groups: Sequence[Sequence[int]]
) -> Decision | None:
    """The decision, if any claim can't hold beside it."""
    if said.decision is None or said.key.many:
        return None
    held = normal(said.decision.value, said.key)
    against = any(not meets(held, normals[i]) for group in groups for i in group)
    return said.decision if against else None


def _contradiction(
    said: Said, sides: list[Side], decided: Decision | None, kind: Kind
) -> Contradiction:
    if decided is not None:
        held = normal(decided.value, said.key)
        agree, differ = _split(sides, said.key, held)
        claims = tuple(claim for side in agree for claim in side.claims)
        sides = [Side(value=decided.value, claims=claims, held="decided"), *differ]
        stale = all(c.version < decided.version for side in differ for c in side.claims)
        kind = "stale" if stale and kind == "value" else kind
    return Contradiction(key=said.key.name, kind=kind, sides=tuple(sides), why=_why(said, sides))


def _split(sides: list[Side], key: Key, held: Normal) -> tuple[list[Side], list[Side]]:
    """Each side in two: the claims that can hold beside what is decided, and the others."""
    agree, differ = [], []
    for side in sides:
        yes = tuple(c for c in side.claims if meets(normal(c.value, key), held))
        no = tuple(c for c in side.claims if c not in yes)
        if yes:
            agree.append(side.model_copy(update={"claims": yes}))
        if no:
            differ.append(side.model_copy(update={"claims": no, "value": no[0].value}))
    return agree, differ


def _why(said: Said, sides: Sequence[Side]) -> str:
    return f"{said.key.name} is said to be " + " and ".join(f"{side.value!r}" for side in sides[:5])


def _side(said: Said, normals: Sequence[Normal], group: Iterable[int]) -> Side:
    group = list(group)
    claims = _once(said.claims[i] for i in group)
    return Side(value=claims[0].value, claims=claims, misfit=_misfits(normals[group[0]]))


def _in_order(sides: Iterable[Side]) -> list[Side]:
    """Sides in an order of their own: no two begin with the same claim."""
    listed = list(sides)
    return sorted(listed, key=lambda s: words(s.claims[0])[1:]) if len(listed) > 1 else listed


def _once(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Each claim once, the surest first, whatever the order they came in."""
    claims = tuple(claims)
    if len(claims) == 1:
        return claims
    unique = {words(claim): claim for claim in claims}
    return tuple(unique[words] for words in sorted(unique))


def _misfits(value: Normal) -> bool:
    return isinstance(value, Atom) and value.misfit


# ── what comes before what ────────────────────────────────────────────────────────────────────


def _circles(said: Said) -> Iterator[Contradiction]:
    chains = [(n, c) for n, c in zip(said.normals(), said.claims, strict=True)]
    decided = normal(said.decision.value, said.key) if said.decision else None
    orders = [n for n, _ in chains if isinstance(n, Chain)]
    orders += [decided] if isinstance(decided, Chain) else []
    for circle in circles(orders):
        those = [(n, c) for n, c in chains if isinstance(n, Chain) and _is_in(n, circle)]
        by_order: dict[Normal, list[Claim]] = {}
        for chain, claim in those:
            by_order.setdefault(chain, []).append(claim)
        sides = [
            Side(value=claims[0].value, claims=claims)
            for _, claims in sorted((n, _once(those)) for n, those in by_order.items())
        ]
        if said.decision and isinstance(decided, Chain) and _is_in(decided, circle):
            sides.insert(0, Side(value=said.decision.value, held="decided"))
        why = f"in {said.key.name} these come before each other: {', '.join(sorted(circle))}"
        yield Contradiction(key=said.key.name, kind="order", sides=tuple(sides), why=why)
    if misfits := [c for n, c in chains if _misfits(n)]:
        sides = [Side(value=c.value, claims=(c,), misfit=True) for c in _once(misfits)]
        yield Contradiction(
            key=said.key.name, kind="type", sides=tuple(sides), why=_why(said, sides)
        )


def _is_in(chain: Chain, circle: frozenset[str]) -> bool:
    return any(a in circle and b in circle for a, b in pairwise(chain.items))


# ── what must hold ────────────────────────────────────────────────────────────────────────────


def holds(condition: Condition, value: JsonValue, key: Key) -> bool:
    """Whether a value of the condition's key meets it; a range does if part of it does."""
    if condition.op == "claimed":
        return True
    found = normal(value, key)
    if condition.op in ("in", "not in"):
        wanted = condition.value if isinstance(condition.value, list) else [condition.value]
        among = any(meets(found, normal(one, key)) for one in wanted)
        return among == (condition.op == "in")
    limit = normal(condition.value, key)
    if condition.op in ("is", "is not"):
        return meets(found, limit) == (condition.op == "is")
    if not (isinstance(found, Span) and isinstance(limit, Span)):
        return False
    same = found.dimension == limit.dimension
    return same and (
        found.high >= limit.low if condition.op == "at least" else found.low <= limit.high
    )


def _broken(constraint: Constraint, said: Mapping[str, Said]) -> Iterator[Contradiction]:
    """Where what is claimed or decided breaks a constraint."""
    must, when = constraint.must, constraint.when
    if must is None:
        return
    about = said.get(named(must.key))
    if when is None:
        if about is not None and (against := _sides(about, lambda v: not _ok(must, v, about))):
            law = Side(value=must.value, held=constraint.text)
            yield _breach("constraint", about, [law, *against], constraint)
        return
    cause = said.get(named(when.key))
    if cause is None or not (given := _sides(cause, lambda v: _ok(when, v, cause))):
        return
    if about is None:
        if must.op == "claimed" or must.op in ("is", "in", "at least", "at most"):
            law = Side(held=constraint.text)
            yield _breach("dependency", cause, [law, *given], constraint)
    elif against := _sides(about, lambda v: not _ok(must, v, about)):
        kind: Kind = "exclusion" if must.op in ("is not", "not in") else "dependency"
        yield _breach(kind, cause, [*given, *against], constraint)


def _ok(condition: Condition, value: JsonValue, said: Said) -> bool:
    key = said.key if said.declared else typed(condition, [claim.value for claim in said.claims])
    return holds(condition, value, key)


def _sides(said: Said, which: Callable[[JsonValue], bool]) -> list[Side]:
    """One side a group of claims of which it is so, and what is decided if it is so of that."""
    those = [claim for claim in said.claims if which(claim.value)]
    part = Said(said.key, those)
    normals = part.normals()
    sides = _in_order(_side(part, normals, group) for group in grouped(normals))
    if said.decision is not None and which(said.decision.value):
        held = normal(said.decision.value, said.key)
        agree, differ = _split(sides, said.key, held)
        claims = tuple(claim for side in agree for claim in side.claims)
        return [Side(value=said.decision.value, claims=claims, held="decided"), *differ]
    return sides


def _breach(kind: Kind, said: Said, sides: list[Side], constraint: Constraint) -> Contradiction:
    return Contradiction(key=said.key.name, kind=kind, sides=tuple(sides), why=constraint.text)


def _omitted(
    promises: Mapping[str, Sequence[str]], known: Collection[str]
) -> Iterator[Contradiction]:
    for key, tasks in promises.items():
        name = named(key)
        if name not in known:
            who = tuple(sorted(set(tasks)))
            why = f"{name} was promised by {', '.join(who)} and not delivered"
            yield Contradiction(key=name, kind="omission", promised=who, why=why)


def _pairs(many: int) -> int:
    return many * (many - 1) // 2


def _place(found: Contradiction) -> tuple[str, str]:
    return found.key, found.kind


def _by_text(found: Iterable[Contradiction]) -> list[Contradiction]:
    return sorted(found, key=Noun.model_dump_json)
