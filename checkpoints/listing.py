"""Listing checkpoints, newest first, a page at a time; nothing is held between two pages.

What is earlier: in one namespace what was put earlier. A nested graph's checkpoints are put beside
those of the graph around it, in whatever order they arrive, so there their metadata decide: a
nested checkpoint belongs to the outer one that it names as its parent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    or_,
    select,
)

from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.ids import exact, place, text
from kapelle.checkpoints.marks import is_marked, mark
from kapelle.checkpoints.reading import View, tuples
from kapelle.checkpoints.statements import Query
from kapelle.checkpoints.tables import HASH, checkpoints, marks, ordered
from kapelle.state.errors import BadId

PAGE = 50
"""Checkpoints that are read at once."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The checkpoint before which others are wanted."""

    id: str
    row: Found | None
    """None if it was never put."""

    @property
    def where(self) -> Row:
        """What leaves out all that is surely not earlier."""
        if self.row is None:
            return {"before_id": self.id}
        return {
            "before_seq": self.row["seq"],
            "beside_thread": self.row["thread"],
            "beside_place": self.row["place"],
        }


_tenant = bindparam("of_tenant", type_=checkpoints.c.tenant.type)
_size = bindparam("of_size", type_=Integer)

_elsewhere = and_(
    checkpoints.c.thread == bindparam("of_beside_thread"),
    checkpoints.c.place != bindparam("of_beside_place"),
)

CONDITIONS: Mapping[str, ColumnElement[bool]] = {
    "thread": checkpoints.c.thread == bindparam("of_thread"),
    "place": checkpoints.c.place == bindparam("of_place"),
    "id": checkpoints.c.id == bindparam("of_id"),
    "last_seq": checkpoints.c.seq < bindparam("of_last_seq"),
    "before_id": checkpoints.c.id < bindparam("of_before_id"),
    "before_seq": or_(checkpoints.c.seq < bindparam("of_before_seq"), _elsewhere),
}
"""What each of the values that may be asked for says of a checkpoint."""


class Pages:
    """The checkpoints that match, a page at a turn."""

    def __init__(
        self,
        config: RunnableConfig | None,
        matching: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._wanted = config["configurable"] if config else {}
        self._matching = {k: v for k, v in (matching or {}).items() if is_marked(v)}
        self._empty = {k: mark(k, v) for k, v in (matching or {}).items() if not is_marked(v)}
        self._before = before["configurable"].get("checkpoint_id") if before else None
        self._left = _whole(limit)
        self._last: int | None = None
        self.ended = self._left == 0

    def turn(self, view: View, connection: Connection) -> list[CheckpointTuple]:
        """The next page; it may hold less than is left."""
        size = PAGE if self._left is None else min(PAGE, self._left)
        bound = self._bound(view.tenant, connection)
        where = self._where(bound)
        rows = [] if where is None else _found(connection, view.tenant, where, size)
        self._last = rows[-1]["seq"] if rows else None
        earlier = tuples(view, connection, _earlier(view, connection, bound, rows))
        found = [one for one in earlier if self._has(one.metadata)]
        if self._left is not None:
            self._left -= len(found)
        self.ended = len(rows) < size or self._left == 0
        return found

    def _bound(self, tenant: str, connection: Connection) -> Bound | None:
        if not self._before:
            return None
        before = exact("checkpoint id", self._before, 128)
        query = select(checkpoints).where(
            checkpoints.c.tenant == tenant, checkpoints.c.id == before, *self._thread()
        )
        namespace = self._wanted.get("checkpoint_ns")
        here = checkpoints.c.place == place(namespace or "")
        query = query.order_by(here.desc(), checkpoints.c.seq.desc()).limit(1)
        return Bound(before, connection.execute(query).mappings().first())

    def _where(self, bound: Bound | None) -> Row | None:
        """What is asked for, by the names of `CONDITIONS` and one a mark; None: nothing matches."""
        where: Row = {} if bound is None else bound.where
        if "thread_id" in self._wanted:
            where["thread"] = exact("thread", self._wanted["thread_id"])
        if (namespace := self._wanted.get("checkpoint_ns")) is not None:
            where["place"] = place(namespace)
        if wanted := self._wanted.get("checkpoint_id"):
            where["id"] = exact("checkpoint id", wanted, 128)
        if self._last is not None:
            where["last_seq"] = self._last
        for number, (key, value) in enumerate(self._matching.items()):
            where[f"mark_{number}"] = mark(key, value)
        return None if None in where.values() else where

    def _has(self, metadata: Mapping[str, Any]) -> bool:
        """Whether metadata have all that is wanted and not marked."""
        return all(one and one == mark(key, metadata.get(key)) for key, one in self._empty.items())

    def _thread(self) -> Iterable[ColumnElement[bool]]:
        if "thread_id" in self._wanted:
            yield checkpoints.c.thread == exact("thread", self._wanted["thread_id"])


def _found(connection: Connection, tenant: str, where: Row, size: int) -> list[Row]:
    given = {f"of_{name}": value for name, value in where.items()}
    given |= {"of_tenant": tenant, "of_size": size}
    return _query(frozenset(where)).rows(connection, given)


@lru_cache(maxsize=100)
def _query(names: frozenset[str]) -> Query:
    """The query for checkpoints of which all these values are asked."""
    said = [CONDITIONS[name] for name in sorted(names & CONDITIONS.keys())]
    hashes = [_marked(name) for name in sorted(names) if name.startswith("mark_")]
    if hashes and "thread" not in names:
        query = _by_marks(said, hashes)
    else:
        if "thread" in names and "id" not in names:
            said.append(ordered(checkpoints.c.seq))
        query = _in_order(said, hashes)
    return Query(lambda _: query)


def _marked(name: str) -> Select[tuple[int]]:
    """The numbers of the checkpoints with a mark."""
    its = marks.alias()
    hashed = its.c.mark == bindparam(f"of_{name}", type_=HASH)
    return select(its.c.seq).where(its.c.tenant == _tenant, hashed)


def _by_marks(
    said: Sequence[ColumnElement[bool]], hashes: Sequence[Select[tuple[int]]]
) -> Select[Any]:
    """By the index of marks, and in its order: a page is found as fast among many as among few.

    A checkpoint is known by its `seq` alone: PostgreSQL, while it has no statistics, would take the
    tenant for as good, and read all of the tenant's for each.
    """
    first, *others = (marked.subquery() for marked in hashes)
    query = select(checkpoints).join(first, first.c.seq == checkpoints.c.seq).where(*said)
    for other in others:
        query = query.join(other, other.c.seq == first.c.seq)
    return query.order_by(first.c.seq.desc()).limit(_size)


def _in_order(
    said: Sequence[ColumnElement[bool]], hashes: Sequence[Select[tuple[int]]]
) -> Select[Any]:
    """By an index of checkpoints alone, looking at the marks of each; then the rows of the page."""
    number = checkpoints.c.seq
    page = select(number).where(checkpoints.c.tenant == _tenant, *said)
    for marked in hashes:
        (its,) = marked.selected_columns
        page = page.where(marked.where(its == number).scalar_subquery().is_not(None))
    found = page.order_by(number.desc()).limit(_size).subquery()
    return select(checkpoints).join(found, found.c.seq == number).order_by(number.desc())


def _earlier(
    view: View, connection: Connection, bound: Bound | None, rows: Sequence[Found]
) -> Sequence[Found]:
    """The rows that are earlier than the bound, those of other namespaces by their parents."""
    if bound is None or bound.row is None:
        return rows
    spot = bound.row["thread"], bytes(bound.row["place"])
    beside = [r for r in rows if r["thread"] == spot[0] and bytes(r["place"]) != spot[1]]
    if not beside:
        return rows
    around = {row["seq"]: _parent(view, row, text(bound.row["namespace"])) for row in beside}
    known = _order(connection, bound.row, {parent for parent in around.values() if parent})
    late = {
        row["seq"]
        for row in beside
        if known.get(around[row["seq"]] or "", row["seq"]) >= bound.row["seq"]
    }
    return [row for row in rows if row["seq"] not in late]


def _parent(view: View, row: Found, namespace: str) -> str | None:
    """The checkpoint of a namespace around it that a nested checkpoint belongs to."""
    parent: str | None = (view.metadata(row).get("parents") or {}).get(namespace)
    return parent


def _order(connection: Connection, bound: Found, ids: Iterable[str]) -> dict[str, int]:
    here = [checkpoints.c[name] == bound[name] for name in ("tenant", "thread", "place")]
    query = select(checkpoints.c.id, checkpoints.c.seq).where(*here, checkpoints.c.id.in_(ids))
    return {row.id: row.seq for row in connection.execute(query)}


def _whole(limit: object) -> int | None:
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise BadId(what="limit", value=limit, why="it is no whole number")
    return max(limit, 0)
