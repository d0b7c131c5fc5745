"""Which items a search finds: the law of filters and namespaces, the same on every database."""

from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

Namespace = tuple[str, ...]

ORDERS: dict[str, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether an item has all that a filter wants.

    >>> matches({"size": 3, "by": {"name": "ann"}}, {"size": {"$gt": 2}, "by": {"name": "ann"}})
    True
    """
    return all(_fits(value.get(key), one) for key, one in (wanted or {}).items())


def lists(op: ListNamespacesOp, namespaces: Sequence[Namespace]) -> list[Namespace]:
    """The namespaces that are listed, cut to a depth, in order, a page of them."""
    found = [n for n in namespaces if all(_lies(n, c) for c in op.match_conditions or ())]
    ordered = sorted({n[: op.max_depth] for n in found})
    return ordered[op.offset : op.offset + op.limit]


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(key).startswith("$") for key in wanted):
            return all(_holds(value, name, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and matches(value, wanted)
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(_fits, value, wanted))
        )
    return _equal(value, wanted)


def _holds(value: Any, operator: str, other: Any) -> bool:
    if operator == "$eq":
        return _equal(value, other)
    if operator == "$ne":
        return not _equal(value, other)
    if operator not in ORDERS:
        raise ValueError(f"Unsupported operator: {operator}")
    return _comparable(value, other) and ORDERS[operator](value, other)


def _equal(a: Any, b: Any) -> bool:
    """As JSON says: a number is a number, but `True` is none."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _comparable(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return False
    return isinstance(a, int | float) == isinstance(b, int | float) and (
        isinstance(a, int | float | str) and isinstance(b, int | float | str)
    )


def _lies(namespace: Namespace, condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)]
    if condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
