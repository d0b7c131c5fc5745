"""How values lie in rows: short ones in the row itself, long ones once per thread and content.

Numbers and None are in the checkpoint itself, as they take less room there than a reference.

A list or dict is a header, which counts, and a body: its elements, one after the other. If what the
channel held before is how the body begins, only the rest is stored, and `base` names the version
that holds the beginning: what grows by appending is stored once, however often it is saved. Because
the header stands apart, `[x]` as a write and `x` at the end of a list are one payload.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

from sqlalchemy import Select, Table, select

from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.statements import keep_first
from kapelle.checkpoints.tables import payloads
from kapelle.state.errors import Unreadable

INLINE = 256
"""Bytes of a value that stand in the row itself at most."""

SMALL = (type(None), bool, int, float)
"""Types of what is shorter than any name for it."""

INSERT = keep_first(payloads)


class Value(NamedTuple):
    """A serialized value, taken apart."""

    type: str
    head: bytes
    """The header of a list or dict; empty for all else."""
    body: bytes

    @property
    def whole(self) -> tuple[str, bytes]:
        """As the serializer gave it."""
        return self.type, self.head + self.body


def apart(typed: tuple[str, bytes]) -> Value:
    r"""A value as the serializer gave it, taken apart.

    >>> apart(("msgpack", bytes([0x92, 1, 2]))).body
    b'\x01\x02'
    """
    kind, data = typed
    size = _header(data) if kind == "msgpack" else 0
    return Value(kind, bytes(data[:size]), bytes(data[size:]) if size else bytes(data))


def columns(tenant: str, thread: str, value: Value, long: list[Row]) -> Row:
    """The columns of a value in a row; a payload is added to `long` if it needs one."""
    if len(value.body) <= INLINE:
        return {"type": value.type, "head": value.head, "body": value.body, "payload": None}
    digest = blake2b(value.body, digest_size=16).digest()
    long.append({"tenant": tenant, "thread": thread, "hash": digest, "body": value.body})
    return {"type": value.type, "head": value.head, "body": None, "payload": digest}


def with_payloads(table: Table, *more: Any) -> Select[Any]:
    """A query for rows of a table with values; the long ones come as `payload_body`.

    Each is looked up by its whole key. Joined, PostgreSQL reads all of the thread's for each, as
    long as it has no statistics.
    """
    its = select(payloads.c.body).where(
        payloads.c.tenant == table.c.tenant,
        payloads.c.thread == table.c.thread,
        payloads.c.hash == table.c.payload,
    )
    body = its.correlate(table).scalar_subquery()
    return select(table, body.label("payload_body"), *more).select_from(table)


def stored(row: Found) -> Value:
    """The value in a row that `with_payloads` found, or what of it is not in its base."""
    digest = row["payload"]
    body = row["body"] if digest is None else row["payload_body"]
    if body is None:
        raise Unreadable(thread=row["thread"], why="a payload is missing")
    if digest is not None and not _is_of(bytes(digest), body):
        raise Unreadable(thread=row["thread"], why="a payload was changed")
    return Value(row["type"], bytes(row["head"]), bytes(body))


def is_small(value: object) -> bool:
    """Whether a value stands in each checkpoint that has it, rather than in a row of its own.

    >>> is_small(7), is_small(2**70), is_small([7])
    (True, False, False)
    """
    if type(value) not in SMALL:
        return False
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _is_of(digest: bytes, body: bytes) -> bool:
    """Whether a payload has this digest. Versions up to 0005 made them by SHA-256."""
    made = sha256(body) if len(digest) == 32 else blake2b(body, digest_size=16)
    return made.digest() == digest


def chunks(items: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """Pieces of at most `size`: no database takes any number of parameters."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _header(data: bytes) -> int:
    """How many bytes the header of a msgpack array or map takes; 0 if it is neither."""
    if not data:
        return 0
    first = data[0]
    if 0x80 <= first <= 0x9F:
        return 1
    return {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}.get(first, 0)
