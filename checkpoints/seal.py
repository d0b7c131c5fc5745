"""A seal on each row that holds a value: it was written here, and not changed since.

Without a key it finds what broke by itself: a flipped bit, a row cut short, one of another thread.
With a key it also finds what somebody who can write to the database has changed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import ormsgpack
from sqlalchemy import Table

from kapelle.checkpoints.statements import Found
from kapelle.state.errors import Unreadable

OUTSIDE = frozenset(("seal", "seq", "at"))
"""Columns that the database fills, and the seal itself."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Makes and checks seals."""

    key: bytes = b""
    """At most 64 bytes, kept away from the database."""

    def on(self, table: Table, row: Found) -> bytes:
        """The seal of a row."""
        parts = [table.name, *(row[name] for name in _columns(table))]
        return hashlib.blake2b(ormsgpack.packb(parts), digest_size=16, key=self.key).digest()

    def check(self, table: Table, row: Found) -> None:
        """Raise `Unreadable` unless the row is as it was written."""
        if self.on(table, row) != row["seal"]:
            raise Unreadable(thread=row["thread"], why=f"a row of {table.name} was changed")


@cache
def _columns(table: Table) -> Sequence[str]:
    return tuple(column.name for column in table.c if column.name not in OUTSIDE)
