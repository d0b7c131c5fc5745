"""Folding by key: for channels that many nodes write to in one step."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def fold(
    old: Mapping[str, T] | None, new: Mapping[str, T] | None, rank: Callable[[T], Any]
) -> dict[str, T]:
    """What is known of either, under one key the first by rank.

    Order and repetition do not matter, where only what is equal has equal rank.
    """
    merged = dict(old or {})
    for key, value in (new or {}).items():
        merged[key] = min(merged[key], value, key=rank) if key in merged else value
    return merged
