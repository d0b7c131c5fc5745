"""A seal on each row that holds a value: it was written here, and not changed since.

Without a key it finds what broke by itself: a flipped bit, a row cut short, one of another thread.
With a key it also finds what somebody who can write to the database has changed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import ormsgpack
from sqlalchemy import Table

from kapelle.checkpoints.compiled import Found
from kapelle.state.errors import Unreadable

OUTSIDE = frozenset(("seal", "seq", "at"))
"""Columns that the database fills, and the seal itself."""

LATER = frozenset(("more",))
"""Columns that came after seals did: sealed where they hold something."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Makes and checks seals."""

    key: bytes = b""
    """At most 64 bytes, kept away from the database."""

    def on(self, table: Table, row: Found) -> bytes:
        """The seal of a row."""
        seal = _blank(self.key).copy()
        later = [row[name] for name in _later(table) if row[name] is not None]
        seal.update(ormsgpack.packb((table.name, *_sealed(table)(row), *later)))
        return seal.digest()

    def holds(self, table: Table, row: Found) -> bool:
        """Whether a row is as it was written."""
        return bool(self.on(table, row) == row["seal"])

    def check(self, table: Table, row: Found) -> None:
        """Raise `Unreadable` unless the row is as it was written."""
        if not self.holds(table, row):
            raise Unreadable(thread=row["thread"], why=f"a row of {table.name} was changed")


@cache
def _blank(key: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=16, key=key)


@cache
def _sealed(table: Table) -> Callable[[Found], tuple[Any, ...]]:
    """What a seal is put on, of a row."""
    return itemgetter(*(column.name for column in table.c if column.name not in OUTSIDE | LATER))


@cache
def _later(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.c if column.name in LATER)
