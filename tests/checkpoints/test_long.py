"""A step of a long thread has a server read no more rows than one of a short thread.

Not even while the server has no statistics of the tables, which is when it guesses.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.graph import END, START, StateGraph
from sqlalchemy import Connection, text

from kapelle.checkpoints import Database
from kapelle.checkpoints.inbox import TASK_WENT_ON, THREAD_WENT_ON
from kapelle.checkpoints.reading import LAST, NAMED
from kapelle.checkpoints.tables import metadata
from kapelle.checkpoints.writing import INSERT_CHECKPOINT, KEY, LOCK_PARENT, insert_marks
from tests.checkpoints.conftest import VARIABLES, url_of


class Counted(TypedDict):
    """A count."""

    count: int


@pytest.fixture(params=VARIABLES)
def fresh(
    request: pytest.FixtureRequest, tmp_path: Path, made: dict[str, str]
) -> Iterator[Database]:
    """New tables, of which the server has no statistics."""
    url = url_of(request.param, tmp_path, made)
    with Database(url, table_prefix=f"long_{uuid4().hex[:8]}_") as database:
        yield database


def filled(database: Database, thread: str, steps: int) -> None:
    """A thread of so many steps."""
    graph = StateGraph(Counted)
    count: Any = lambda state: {"count": state["count"] + 1}  # noqa: E731
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges(
        "count", lambda state: "count" if state["count"] < steps else END, ["count", END]
    )
    at: Any = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 2}
    graph.compile(checkpointer=database.saver).invoke({"count": 0}, at)


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
        went_on = {k: of[k] for k in ("of_tenant", "of_thread")}
        THREAD_WENT_ON.run(connection, [{**went_on, "of_checkpoint": "next"}])
        TASK_WENT_ON.run(connection, [{**went_on, "of_task": "task"}])
        return read(connection) - begun


def read(connection: Connection) -> int:
    """How many rows this transaction has read, or this connection."""
    if connection.dialect.name == "postgresql":
        prefix = connection.get_execution_options()["kapelle_prefix"]
        names = [table.name.replace("kapelle_", prefix) for table in metadata.sorted_tables]
        indexes = text(
            "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index"
            " JOIN pg_class ON pg_class.oid = indrelid WHERE relname = ANY(:names)"
        )
        return int(connection.scalar(indexes, {"names": names}))
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
