"""The metadata index: for each key and value of a checkpoint's metadata one hash, types included.

A filter is hashed in the same way, so that nothing of it ever is part of a statement, and every
database gives the same answer: `1`, `1.0`, `True` and `"1"` are four values, a key is never a path.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def mark(key: object, value: object) -> bytes | None:
    """The hash of one pair; None for what equals nothing (NaN) or can't be compared."""
    try:
        exact = _encode([key, value])
        if "NaN" in exact:
            json.loads(exact, parse_constant=_equal_to_itself)
    except (TypeError, ValueError, RecursionError):
        return None
    return sha256(exact.encode()).digest() if isinstance(key, str) else None


def marks_of(metadata: Mapping[str, Any]) -> list[bytes]:
    """The hashes of all pairs that can be looked for."""
    found = (mark(key, value) for key, value in metadata.items())
    return [hashed for hashed in found if hashed is not None]


def _equal_to_itself(constant: str) -> None:
    if constant == "NaN":
        raise ValueError(constant)


def _typed(value: object) -> object:
    if isinstance(value, bytes):
        return {"__bytes__": value.hex()}
    raise TypeError


_encode = json.JSONEncoder(sort_keys=True, default=_typed).encode
