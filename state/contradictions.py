"""What can't all hold: found exactly, the same for any order of arrival and any repetition."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress, groupby, pairwise

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
from kapelle.state.sayings import Said, grouped, sayings, typed

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
    groups = _apart(normals) if said.key.many else grouped(normals)
    misfit = said.declared and any(map(_misfits, normals))
    decided = None if said.key.many else _decided(said, normals)
    if misfit or (not said.key.many and (len(groups) > 1 or decided is not None)):
        sides = _sides(said, normals, groups, decided)
        yield _contradiction(said, sides, decided, "type" if misfit else "value")


def _apart(normals: Sequence[Normal]) -> list[list[int]]:
    """Positions of values of which several may hold, and each that is none of them."""
    good = [i for i, n in enumerate(normals) if not _misfits(n)]
    return sorted(filter(None, [good, *([i] for i, n in enumerate(normals) if _misfits(n))]))


def _decided(said: Said, normals: Sequence[Normal]) -> Decision | None:
    """The decision, if any claim can't hold beside it."""
    if said.decision is None:
        return None
    held = normal(said.decision.value, said.key)
    return None if all(meets(held, n) for n in normals) else said.decision


def _sides(
    said: Said, normals: Sequence[Normal], groups: Iterable[list[int]], decided: Decision | None
) -> list[Side]:
    """One a group; before them what is decided, with the claims that can hold beside it."""
    if decided is None:
        return [_side(said, normals, group) for group in groups]
    held = normal(decided.value, said.key)
    beside = [meets(held, n) for n in normals]
    agree = tuple(compress(said.claims, beside))
    others = ([i for i in group if not beside[i]] for group in groups)
    return [
        Side(value=decided.value, claims=agree, held="decided"),
        *(_side(said, normals, group) for group in others if group),
    ]


def _side(said: Said, normals: Sequence[Normal], group: Sequence[int]) -> Side:
    claims = tuple([said.claims[i] for i in group])
    return Side(value=claims[0].value, claims=claims, misfit=_misfits(normals[group[0]]))


def _contradiction(
    said: Said, sides: Sequence[Side], decided: Decision | None, kind: Kind
) -> Contradiction:
    if decided is not None and kind == "value":
        late = (c.version < decided.version for side in sides[1:] for c in side.claims)
        kind = "stale" if all(late) else kind
    return Contradiction(key=said.key.name, kind=kind, sides=tuple(sides), why=_why(said, sides))


def _why(said: Said, sides: Sequence[Side]) -> str:
    return f"{said.key.name} is said to be " + " and ".join(f"{side.value!r}" for side in sides[:5])


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
        sides = [Side(value=some[0].value, claims=tuple(some)) for some in by_order.values()]
        if said.decision and isinstance(decided, Chain) and _is_in(decided, circle):
            sides.insert(0, Side(value=said.decision.value, held="decided"))
        why = f"in {said.key.name} these come before each other: {', '.join(sorted(circle))}"
        yield Contradiction(key=said.key.name, kind="order", sides=tuple(sides), why=why)
    if misfits := [c for n, c in chains if _misfits(n)]:
        sides = [Side(value=c.value, claims=(c,), misfit=True) for c in misfits]
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
        if about is not None and (against := _those(about, must, met=False)):
            law = Side(value=must.value, held=constraint.text)
            yield _breach("constraint", about, [law, *against], constraint)
        return
    cause = said.get(named(when.key))
    if cause is None or not (given := _those(cause, when, met=True)):
        return
    if about is None:
        if must.op == "claimed" or must.op in ("is", "in", "at least", "at most"):
            law = Side(held=constraint.text)
            yield _breach("dependency", cause, [law, *given], constraint)
    elif against := _those(about, must, met=False):
        kind: Kind = "exclusion" if must.op in ("is not", "not in") else "dependency"
        yield _breach(kind, cause, [*given, *against], constraint)


def _those(said: Said, condition: Condition, *, met: bool) -> list[Side]:
    """The sides of what meets a condition, or does not: claims, and what is decided."""
    key = said.key if said.declared else typed(condition, [claim.value for claim in said.claims])
    part = Said(said.key, [c for c in said.claims if holds(condition, c.value, key) == met])
    decided = said.decision
    if decided is not None and holds(condition, decided.value, key) != met:
        decided = None
    normals = part.normals()
    return _sides(part, normals, grouped(normals), decided)


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
