"""A step of a long thread has a server read no more rows than one of a short thread.

Nor does a look read more rows for what else there is in the database. Not even while the server has
no statistics of the tables, which is when it guesses.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Interrupt
from sqlalchemy import Connection, text

from kapelle.checkpoints import Database
from kapelle.checkpoints.inbox import having
from kapelle.checkpoints.listing import Pages
from kapelle.checkpoints.reading import LAST, NAMED
from kapelle.checkpoints.tables import metadata
from kapelle.checkpoints.writing import INSERT_CHECKPOINT, KEY, LOCK_PARENT, insert_marks
from tests.checkpoints.conftest import VARIABLES, url_of


class Counted(TypedDict, total=False):
    """A count, and a text too long to stand in a row itself."""

    count: int
    text: str


@pytest.fixture(params=VARIABLES)
def fresh(
    request: pytest.FixtureRequest, tmp_path: Path, made: dict[str, str]
) -> Iterator[Database]:
    """New tables, of which the server has no statistics."""
    url = url_of(request.param, tmp_path, made)
    with Database(url, table_prefix=f"long_{uuid4().hex[:8]}_") as database:
        yield database


def filled(database: Database, thread: str, steps: int, text: str = "") -> None:
    """A thread of so many steps, named in its metadata; each step says something else."""
    graph = StateGraph(Counted)
    said: Any = lambda count: {"text": f"{count} {text}"} if text else {}  # noqa: E731
    count: Any = lambda state: {"count": state["count"] + 1, **said(state["count"])}  # noqa: E731
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges(
        "count", lambda state: "count" if state["count"] < steps else END, ["count", END]
    )
    at: Any = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 2}
    at["metadata"] = {"owner": thread, "kind": "fine"}
    graph.compile(checkpointer=database.saver).invoke({"count": 0}, at)
    last = database.saver.get_tuple(at)
    assert last is not None
    asks = Interrupt(value="Pay?", id="0" * 32)
    database.saver.put_writes(last.config, [("__interrupt__", [asks])], "task")


def asked(connection: Connection, thread: str) -> int:
    """What a step asks; how many rows the server read for it."""
    spot = {"of_tenant": "default", "of_thread": thread, "of_place": b""}
    with connection.begin():
        begun = read(connection)
        (last,) = LAST.rows(connection, spot)
        assert NAMED.rows(connection, {**spot, "of_id": last["id"]}) == [last]
        row = {k: v for k, v in last.items() if k not in ("seq", "at")} | {"id": "next"}
        of = {f"of_{k}": row[k] for k in KEY}
        LOCK_PARENT.run(connection, [{k: last[k] for k in KEY}])
        follows = {**row, **of, "of_parent": last["id"], "of_branch": 0}
        INSERT_CHECKPOINT.run(connection, [follows])
        insert_marks(1).run(connection, [{"mark_0": b"mark", **of}])
        assert having(connection, tenant="default", status=["superseded"], thread=thread)
        return read(connection) - begun


def read(connection: Connection) -> int:
    """How many rows this transaction has read, or this connection."""
    if connection.dialect.name == "postgresql":
        prefix = connection.get_execution_options()["kapelle_prefix"]
        names = [table.name.replace("kapelle_", prefix) for table in metadata.sorted_tables]
        tables_and_indexes = text(
            "SELECT sum(pg_stat_get_xact_tuples_returned(its)) FROM"
            " (SELECT oid AS its FROM pg_class WHERE relname = ANY(:names) UNION ALL"
            " SELECT indexrelid FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
            " WHERE relname = ANY(:names)) AS ours"
        )
        return int(connection.scalar(tables_and_indexes, {"names": names}))
    counts = connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'")).all()
    return sum(int(count) for _, count in counts)


def test_a_step_of_a_long_thread_reads_as_few_rows_as_one_of_a_short_thread(
    fresh: Database,
) -> None:
    filled(fresh, "short", 3)
    filled(fresh, "long", 200)
    with fresh.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        assert asked(connection, "long") <= asked(connection, "short") + 3


LOOKS: Mapping[str, tuple[Any, Any]] = {
    "by one pair": (None, {"owner": "wanted"}),
    "by two pairs": (None, {"owner": "wanted", "kind": "fine"}),
    "by a pair that all have": (None, {"kind": "fine"}),
    "by a pair in a thread": ({"configurable": {"thread_id": "wanted"}}, {"kind": "fine"}),
    "in a thread": ({"configurable": {"thread_id": "wanted"}}, None),
}


def looked(database: Database, connection: Connection, at: Any, pairs: Any) -> int:
    """How many rows the server reads to find five checkpoints."""
    with connection.begin():
        begun = read(connection)
        pages = Pages(at, pairs, None, 5)
        assert len(pages.turn(database.saver.view, connection)) == 5
        return read(connection) - begun


def test_what_else_there_is_takes_no_time_to_look(fresh: Database) -> None:
    filled(fresh, "wanted", 3)
    with fresh.connect() as connection:
        alone = {name: looked(fresh, connection, *look) for name, look in LOOKS.items()}
        filled(fresh, "other", 200)
        after = {name: looked(fresh, connection, *look) for name, look in LOOKS.items()}
    assert {name for name in LOOKS if after[name] > alone[name] + 20} == set()


def test_the_long_values_of_a_thread_are_not_all_read_for_each_that_is_wanted(
    fresh: Database,
) -> None:
    at = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}
    filled(fresh, "long", 10, text="long" * 100)
    with fresh.connect() as connection:
        short = looked(fresh, connection, at, None)
        filled(fresh, "long", 100, text="long" * 100)
        assert looked(fresh, connection, at, None) <= short + 100 + 20
