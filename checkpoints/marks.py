"""The metadata index: for each key and value of a checkpoint's metadata one hash, types included.

A filter is hashed in the same way, so that nothing of it ever is part of a statement, and every
database gives the same answer: `1`, `1.0`, `True` and `"1"` are four values, a key is never a path.
An empty dict or list has no mark: nearly every checkpoint has one, and nobody looks for it.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

SIZE = 16
"""Bytes of a mark."""


def mark(key: object, value: object) -> bytes | None:
    """The hash of one pair; None for what equals nothing (NaN) or can't be compared."""
    try:
        exact = _encode([key, value])
        if "NaN" in exact:
            json.loads(exact, parse_constant=_equal_to_itself)
    except (TypeError, ValueError, RecursionError):
        return None
    return sha256(exact.encode()).digest()[:SIZE] if isinstance(key, str) else None


def is_marked(value: object) -> bool:
    """Whether a value has a mark, if it can be compared at all."""
    return bool(value) or not isinstance(value, Mapping | list | tuple)


def marks_of(metadata: Mapping[str, Any]) -> list[bytes]:
    """The hashes of all pairs that can be looked for."""
    found = (mark(key, value) for key, value in metadata.items() if is_marked(value))
    return [hashed for hashed in found if hashed is not None]


def _equal_to_itself(constant: str) -> None:
    if constant == "NaN":
        raise ValueError(constant)


def _typed(value: object) -> object:
    if isinstance(value, bytes):
        return {"__bytes__": value.hex()}
    raise TypeError


_encode = json.JSONEncoder(sort_keys=True, default=_typed).encode
