"""Keeps all that a database can hold, and writes its rows down as a version of the schema has them.

    python kept.py FOLDER > versions/NNNN.json

Run it by the code of a version before the schema is changed: later code has to go on from there.

    done      a run that has ended; its checkpoints, journal, effects and book
    waiting   a run that asked a person
    claimed   a run whose ask was answered, and that did not go on yet
    killed    a run whose process died between two steps, the first one finished
    running   a run written down and not begun
"""

import asyncio
import base64
import json
import os
import sys
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import JsonValue
from sqlalchemy import select

from kapelle import Runs
from kapelle.checkpoints import Database
from kapelle.checkpoints.schema import HEAD
from kapelle.checkpoints.tables import metadata
from kapelle.state.approval import Approval, Escalation
from kapelle.state.event import Event
from kapelle.state.task import Result, Task

LONG = [f"line {number}: \u00e9 \x00 \U0001f600" for number in range(12)]
"""Too long for a row, and no text that every database takes as it is."""


class State(TypedDict, total=False):
    """What a run holds."""

    task: Task
    log: Annotated[list[str], add]
    result: Result


def graph(*, dies: bool = False) -> StateGraph[State]:
    """Three steps; the second asks where the task says so, or dies."""

    def first(state: State) -> State:
        return {"log": ["first", *LONG]}

    def second(state: State) -> State:
        if dies:
            os._exit(0)
        if "ask" in state["task"].goal:
            answer = interrupt(Escalation(question="Pay?", evidence={"amount": 100}))
            return {"log": [answer["decision"]]}
        return {"log": ["second"]}

    def last(state: State) -> State:
        said: list[JsonValue] = [*state["log"]]
        return {"result": Result(task=state["task"].id, status="done", output=said)}

    built = StateGraph(State)
    built.add_node("first", first)
    built.add_node("second", second)
    built.add_node("last", last)
    built.add_edge(START, "first")
    built.add_edge("first", "second")
    built.add_edge("second", "last")
    built.add_edge("last", END)
    return built


async def keep(url: str) -> None:
    """Keep something in every table there is."""
    async with Database(url) as db:
        runs = Runs(db, {"graph": graph()})
        await runs.start("graph", Task(id="t", goal="do"), thread="done")
        await runs.start("graph", Task(id="t", goal="ask"), thread="waiting")
        asked = await runs.start("graph", Task(id="t", goal="ask"), thread="claimed")
        await db.inbox.claim(asked.asks[0].id, Approval(decision="approve", by="ann"))
        await runs.begin("graph", Task(id="t", goal="do"), thread="running")
        db.journal.record([Event(kind="choice", what="planned", thread="done", key="k", why="so")])
        await db.store.aput(("people", "\u00e9"), "ann \x00", {"likes": LONG})
        await more(db)


async def more(db: Any) -> None:
    """Keep what came with later versions."""
    if hasattr(db, "effects"):
        from kapelle.state.effect import Effect  # noqa: PLC0415  # not there at first

        for key in ("paid", "in doubt"):
            await db.effects.begin(
                "done", Effect(key=key, name="pay", holder="h", told={"to": "ann"})
            )
        await db.effects.settle("done", "paid", "h", "done", {"paid": 100})
    if hasattr(db, "ledger"):
        from kapelle.state.budget import Budget, Envelope, Usage  # noqa: PLC0415

        book = [Envelope(account="", budget=Budget(tokens=1_000))]
        await db.ledger.open("killed", "run")
        for key in ("spent", "held"):
            await db.ledger.reserve("killed", key, Usage(input_tokens=100, calls=1), book)
        await db.ledger.settle("killed", "spent", Usage(input_tokens=50, calls=1))


async def die(url: str) -> None:
    """Begin a run and die in its second step."""
    async with Database(url) as db:
        await Runs(db, {"graph": graph(dies=True)}).start(
            "graph", Task(id="t", goal="do"), thread="killed"
        )


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows by table, as JSON can hold them."""
    with Database(url) as db, db.connect() as connection:
        return {
            table.name: [
                {name: plain(value) for name, value in row.items()}
                for row in connection.execute(select(table)).mappings()
            ]
            for table in metadata.sorted_tables
        }


def plain(value: Any) -> Any:
    """A column's value as JSON: bytes in Base64."""
    return [base64.b64encode(value).decode()] if isinstance(value, bytes) else value


def main(folder: Path) -> None:
    """Keep all, and print it."""
    url = f"sqlite:///{folder / 'kept.db'}"
    if os.fork() == 0:
        asyncio.run(die(url))
    os.wait()
    asyncio.run(keep(url))
    print(json.dumps({"version": HEAD, "tables": rows(url)}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
