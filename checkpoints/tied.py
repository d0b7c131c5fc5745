"""Values under a cipher, each encrypted together with its place.

LangGraph's ciphers take nothing that is authenticated beside what they encrypt. So the place goes
in front of the value, and is compared when it is read: what was moved to another row is unreadable,
though it is encrypted with the right key. Each piece of a value that grows is encrypted by itself.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import CipherProtocol
from sqlalchemy import Table

from kapelle.checkpoints.compiled import Found
from kapelle.state.errors import Unreadable

TIED = b"\xc1tied\x00"
"""How what is encrypted with its place begins; no other value does."""

SIGN = "/"
"""Stands between a value's type and the name of the cipher."""

UNTIED = "+"
"""The same of LangGraph's, as versions up to 0005 wrote it: encrypted, and tied to nothing."""

SIZE = 16
"""Bytes of a place."""

BESIDE = frozenset(
    ("seal", "seq", "at", "type", "body", "payload", "more", "metadata_type", "metadata")
)
"""Columns of a row that say nothing of its place."""


def tie(
    cipher: CipherProtocol | None, typed: tuple[str, bytes], place: Sequence[Any]
) -> tuple[str, bytes]:
    """Type and bytes of a value as they are stored in a place."""
    if cipher is None:
        return typed
    kind, data = typed
    name, hidden = cipher.encrypt(_front(kind, place) + data)
    return f"{kind}{SIGN}{name}", hidden


def untie(
    cipher: CipherProtocol | None,
    typed: tuple[str, bytes],
    place: Sequence[Any],
    thread: str = "?",
) -> tuple[str, bytes]:
    """What `tie` was given; `Unreadable` if it is not encrypted by this cipher, key and place."""
    if cipher is None:
        return typed
    kind, sign, name = typed[0].partition(SIGN)
    if not sign:
        kind, sign, name = typed[0].partition(UNTIED)
    if not sign:
        raise Unreadable(thread=thread, why="it is not encrypted")
    try:
        data = cipher.decrypt(name, typed[1])
    except Exception as error:
        raise Unreadable(thread=thread, why=str(error) or type(error).__name__) from error
    front = _front(kind, place) if sign == SIGN else b""
    if not data.startswith(front) or (sign == UNTIED and data.startswith(TIED)):
        raise Unreadable(thread=thread, why="it was encrypted for another place")
    return kind, data[len(front) :]


def place(table: Table, row: Found, column: str = "body") -> Sequence[Any]:
    """Where a value lies: in a column of a row, which is known by what else it holds."""
    return (table.name, column, *_placed(table)(row))


@cache
def _placed(table: Table) -> Callable[[Found], tuple[Any, ...]]:
    return itemgetter(*(column.name for column in table.c if column.name not in BESIDE))


def _front(kind: str, place: Sequence[Any]) -> bytes:
    where = ormsgpack.packb((kind, *place))
    return TIED + hashlib.blake2b(where, digest_size=SIZE).digest()
