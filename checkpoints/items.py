"""The rows of the store: how items are found and changed.

A namespace is known by its hash, and has one row for each namespace it lies under, so that a search
under a prefix is a look-up by hash: no path is ever part of a statement or matched as a pattern.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.base import GetOp, Item, ListNamespacesOp, PutOp, SearchItem, SearchOp
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    RowMapping,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    or_,
    select,
    update,
)

from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.ids import raw, text
from kapelle.checkpoints.matching import Namespace, lists, matches
from kapelle.checkpoints.plain import dump
from kapelle.checkpoints.secret import Secret
from kapelle.checkpoints.serde import parted
from kapelle.checkpoints.statements import Statement, keep_first, locks, replace, same
from kapelle.checkpoints.tables import items, spaces, vectors
from kapelle.checkpoints.tied import tie, untie
from kapelle.checkpoints.vectors import Ranking, best
from kapelle.state.errors import PayloadTooLarge

Spot = tuple[bytes, bytes]
"""The hashes of a namespace and a key."""

_of_item = [items.c[k] == bindparam(f"of_{k}") for k in ("tenant", "space", "name")]
_of_vector = [vectors.c[k] == bindparam(f"of_{k}") for k in ("tenant", "space", "name")]

INSERT_SPACES = keep_first(spaces)
INSERT_ITEMS = replace(
    items,
    kept=("created_at",),
    created_at=db_now(),
    updated_at=db_now(),
    expires_at=db_now() + bindparam("minutes", type_=Float(53)) * 60,
)
INSERT_VECTORS = keep_first(vectors)
LOCK_SPACE = locks(spaces, "tenant", "space", "prefix")
DELETE_ITEMS = same(delete(items).where(*_of_item))
DELETE_VECTORS = same(delete(vectors).where(*_of_vector))
REFRESH = same(
    update(items)
    .where(*_of_item, items.c.ttl.is_not(None))
    .values(expires_at=db_now() + items.c.ttl * 60)
)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Whose items, and how their values are written and read."""

    tenant: str
    serde: SerializerProtocol
    most: int
    """Bytes of the largest value."""
    omit_expired: bool
    ranking: Ranking
    secret: Secret


def spot(namespace: Namespace, key: str) -> Spot:
    """Where an item lies."""
    return _space(namespace), sha256(raw(key)).digest()


def get(shelf: Shelf, connection: Connection, op: GetOp) -> Item | None:
    """One item."""
    space, name = spot(op.namespace, op.key)
    query = select(items, spaces.c.path).join(spaces, _itself()).where(items.c.space == space)
    row = connection.execute(_live(shelf, query).where(items.c.name == name)).mappings().first()
    return None if row is None else Item(**_item(shelf, row))


def search(
    shelf: Shelf, connection: Connection, op: SearchOp, near: Sequence[float] | None
) -> list[SearchItem]:
    """The items under a namespace that match: the nearest first, or those changed last."""
    if near is not None:
        return list(_page(op, _nearest(shelf, connection, op, near)))
    query = _under(shelf, op.namespace_prefix).order_by(items.c.updated_at.desc(), items.c.name)
    if not op.filter:
        query = query.limit(op.limit).offset(op.offset)
        return [SearchItem(**_item(shelf, row)) for row in connection.execute(query).mappings()]
    return list(_page(op, _matching(shelf, connection, query, op)))


def namespaces(shelf: Shelf, connection: Connection, op: ListNamespacesOp) -> list[Namespace]:
    """The namespaces that hold anything."""
    its = and_(items.c.tenant == spaces.c.tenant, items.c.space == spaces.c.space)
    held = exists().where(its, *_not_expired(shelf))
    query = select(spaces.c.path).where(
        spaces.c.tenant == shelf.tenant, spaces.c.prefix == _space(_beginning(op)), held
    )
    return lists(op, [_path(shelf, path) for path in connection.scalars(query)])


def changes(
    shelf: Shelf, puts: Iterable[PutOp], found: Mapping[int, Sequence[bytes]]
) -> list[tuple[Statement, list[Row]]]:
    """The rows that puts and deletions come to; `found`: their vectors, by number of the put."""
    here: dict[str, list[Row]] = {"space": [], "item": [], "gone": [], "old": [], "vector": []}
    for number, put in enumerate(puts):
        space, name = spot(put.namespace, put.key)
        of = {"of_tenant": shelf.tenant, "of_space": space, "of_name": name}
        here["old"].append(of)
        if put.value is None:
            here["gone"].append(of)
            continue
        here["space"] += _ancestors(shelf, put.namespace)
        here["item"].append(_row(shelf, put))
        its = {"tenant": shelf.tenant, "space": space, "name": name}
        here["vector"] += [
            {**its, "number": n, "vector": shelf.secret.hide(vector)}
            for n, vector in enumerate(found.get(number, ()))
        ]
    return [
        (INSERT_SPACES, here["space"]),
        (DELETE_ITEMS, here["gone"]),
        (INSERT_ITEMS, here["item"]),
        (DELETE_VECTORS, here["old"]),
        (INSERT_VECTORS, here["vector"]),
    ]


def change(connection: Connection, *, rows: Sequence[tuple[Statement, list[Row]]]) -> None:
    """Write what `changes` said, in this order."""
    for statement, those in rows:
        if those:
            statement.run(connection, those)


def swap(
    shelf: Shelf,
    op: GetOp,
    expected: Mapping[str, Any] | None,
    rows: Sequence[tuple[Statement, list[Row]]],
    connection: Connection,
) -> bool:
    """Write what `changes` said if the item still has this value; one at a time a namespace."""
    its = _ancestors(shelf, op.namespace)[-1]
    INSERT_SPACES.run(connection, [its])
    LOCK_SPACE.run(connection, [{k: its[k] for k in ("tenant", "space", "prefix")}])
    space, name = spot(op.namespace, op.key)
    query = select(items, spaces.c.path).join(spaces, _itself()).where(items.c.space == space)
    query = _live(shelf, query).where(items.c.name == name).with_for_update(of=items)
    row = connection.execute(query).mappings().first()
    if (_item(shelf, row)["value"] if row else None) != expected:
        return False
    change(connection, rows=rows)
    return True


def refreshed(shelf: Shelf, seen: Iterable[Item]) -> list[Row]:
    """What gives items that were read their full time again."""
    spots = {spot(item.namespace, item.key) for item in seen}
    return [{"of_tenant": shelf.tenant, "of_space": s, "of_name": n} for s, n in sorted(spots)]


def sweep(connection: Connection, *, tenant: str) -> int:
    """Forget items whose time is over; how many."""
    over = and_(items.c.tenant == tenant, items.c.expires_at < db_now())
    gone = connection.execute(delete(items).where(over)).rowcount
    its = and_(
        items.c.tenant == vectors.c.tenant,
        items.c.space == vectors.c.space,
        items.c.name == vectors.c.name,
    )
    if gone:
        connection.execute(delete(vectors).where(vectors.c.tenant == tenant, ~exists().where(its)))
    return gone


def _matching(
    shelf: Shelf, connection: Connection, query: Select[Any], op: SearchOp
) -> Iterator[SearchItem]:
    streamed = connection.execution_options(yield_per=200)
    with streamed.execute(query) as rows:
        for row in rows.mappings():
            item = SearchItem(**_item(shelf, row))
            if matches(item.value, op.filter):
                yield item


def _nearest(
    shelf: Shelf, connection: Connection, op: SearchOp, near: Sequence[float]
) -> Iterator[SearchItem]:
    """Items by their nearest vector; then those without one, the last changed first."""
    query = _under(shelf, op.namespace_prefix).order_by(items.c.updated_at.desc(), items.c.name)
    there = {(item.namespace, item.key): item for item in _matching(shelf, connection, query, op)}
    its = and_(
        vectors.c.tenant == items.c.tenant,
        vectors.c.space == items.c.space,
        vectors.c.name == items.c.name,
    )
    embedded = _under(shelf, op.namespace_prefix).join(vectors, its)
    embedded = embedded.with_only_columns(spaces.c.path, items.c.key, vectors.c.vector)
    rows = [
        ((_path(shelf, row["path"]), _key(shelf, row["key"])), shelf.secret.show(row["vector"]))
        for row in connection.execute(embedded).mappings()
    ]
    rows = [row for row in rows if row[0] in there]
    scores = shelf.ranking(near, [vector for _, vector in rows])
    ranked = best([(where, score) for (where, _), score in zip(rows, scores, strict=True)])
    for where, score in ranked.items():
        found = there.pop(where)
        found.score = score
        yield found
    yield from there.values()


def _page(op: SearchOp, found: Iterator[SearchItem]) -> Iterator[SearchItem]:
    for number, item in enumerate(found):
        if number >= op.offset + op.limit:
            return
        if number >= op.offset:
            yield item


def _under(shelf: Shelf, prefix: Namespace) -> Select[Any]:
    its = and_(spaces.c.tenant == items.c.tenant, spaces.c.space == items.c.space)
    query = select(items, spaces.c.path).join(spaces, its)
    return _live(shelf, query.where(spaces.c.prefix == _space(tuple(prefix))))


def _itself() -> ColumnElement[bool]:
    return and_(
        spaces.c.tenant == items.c.tenant,
        spaces.c.space == items.c.space,
        spaces.c.prefix == items.c.space,
    )


def _live(shelf: Shelf, query: Select[Any]) -> Select[Any]:
    return query.where(items.c.tenant == shelf.tenant, *_not_expired(shelf))


def _not_expired(shelf: Shelf) -> list[ColumnElement[bool]]:
    if not shelf.omit_expired:
        return []
    return [or_(items.c.expires_at.is_(None), items.c.expires_at >= db_now())]


def _item(shelf: Shelf, row: RowMapping) -> dict[str, Any]:
    serde, cipher = parted(shelf.serde)
    return {
        "namespace": _path(shelf, row["path"]),
        "key": _key(shelf, row["key"]),
        "value": serde.loads_typed(untie(cipher, (row["type"], bytes(row["body"])), _place(row))),
        "created_at": datetime.fromtimestamp(row["created_at"], UTC),
        "updated_at": datetime.fromtimestamp(row["updated_at"], UTC),
    }


def _place(row: Found) -> Sequence[Any]:
    """What an item's value is tied to."""
    return (items.name, row["tenant"], bytes(row["space"]), bytes(row["name"]))


def _row(shelf: Shelf, put: PutOp) -> Row:
    serde, cipher = parted(shelf.serde)
    space, name = spot(put.namespace, put.key)
    its = {"tenant": shelf.tenant, "space": space, "name": name}
    kind, body = tie(cipher, serde.dumps_typed(dict(put.value or {})), _place(its))
    if len(body) > shelf.most:
        raise PayloadTooLarge(what=f"item {put.key!r}", size=len(body), limit=shelf.most)
    return {
        **its,
        "key": shelf.secret.hide(raw(put.key)),
        "type": kind,
        "body": body,
        "ttl": put.ttl,
        "minutes": put.ttl,
    }


def _path(shelf: Shelf, data: bytes) -> Namespace:
    return tuple(shelf.secret.shown_json(data))


def _key(shelf: Shelf, data: bytes) -> str:
    return text(shelf.secret.show(data))


def _ancestors(shelf: Shelf, namespace: Namespace) -> list[Row]:
    """A row for each namespace that this one lies under, the empty one and itself included."""
    path = shelf.secret.hide(dump(list(namespace)))
    its = {"tenant": shelf.tenant, "space": _space(namespace), "path": path}
    return [{**its, "prefix": _space(namespace[:depth])} for depth in range(len(namespace) + 1)]


def _beginning(op: ListNamespacesOp) -> Namespace:
    """What all listed namespaces begin with, as far as it can be looked up."""
    for condition in op.match_conditions or ():
        if condition.match_type == "prefix" and "*" not in condition.path:
            return tuple(condition.path)
    return ()


def _space(namespace: Namespace) -> bytes:
    return sha256(dump(list(namespace))).digest() if namespace else b""
