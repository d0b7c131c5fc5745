"""How values lie in rows: short ones in the row itself, long ones once per thread and content."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from kapelle.checkpoints.statements import Row, keep_first
from kapelle.checkpoints.tables import payloads
from kapelle.state.errors import PayloadTooLarge, Unreadable

INLINE = 256
"""Bytes of a value that stand in the row itself at most."""

INSERT = keep_first(payloads)


@dataclass(frozen=True, slots=True)
class Key:
    """A thread of a tenant."""

    tenant: str
    thread: str


def columns(key: Key, typed: tuple[str, bytes], stored: list[Row]) -> Row:
    """The columns of a value in a row; a payload row is added to `stored` if it needs one."""
    kind, data = typed
    if len(data) <= INLINE:
        return {"type": kind, "head": b"", "body": data, "payload": None}
    digest = sha256(data).digest()
    stored.append({"tenant": key.tenant, "thread": key.thread, "hash": digest, "body": data})
    return {"type": kind, "head": b"", "body": None, "payload": digest}


def limited(what: str, typed: tuple[str, bytes], most: int) -> tuple[str, bytes]:
    """`typed` itself, or `PayloadTooLarge`."""
    if len(typed[1]) > most:
        raise PayloadTooLarge(what=what, size=len(typed[1]), limit=most)
    return typed


def fetch(
    connection: Connection, tenant: str, rows: Sequence[RowMapping]
) -> Mapping[tuple[str, bytes], bytes]:
    """The payloads that rows point to, by thread and hash."""
    wanted = {bytes(row["payload"]) for row in rows if row["payload"] is not None}
    if not wanted:
        return {}
    threads = {row["thread"] for row in rows}
    found: dict[tuple[str, bytes], bytes] = {}
    for some in chunks(sorted(wanted)):
        query = select(payloads.c.thread, payloads.c.hash, payloads.c.body).where(
            payloads.c.tenant == tenant, payloads.c.thread.in_(threads), payloads.c.hash.in_(some)
        )
        found |= {(r.thread, bytes(r.hash)): bytes(r.body) for r in connection.execute(query)}
    return found


def typed(row: RowMapping, found: Mapping[tuple[str, bytes], bytes]) -> tuple[str, bytes]:
    """A row's value as the serializer gave it."""
    if row["payload"] is None:
        return row["type"], bytes(row["head"]) + bytes(row["body"])
    try:
        return row["type"], bytes(row["head"]) + found[row["thread"], bytes(row["payload"])]
    except KeyError:
        raise Unreadable(thread=row["thread"], why="a payload is missing") from None


def chunks(items: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """Pieces of at most `size`: no database takes any number of parameters."""
    return (items[i : i + size] for i in range(0, len(items), size))
