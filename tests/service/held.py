"""A service whose team writes down what it does, and works until a file called `go` is there."""

import asyncio
from pathlib import Path

from examples import service
from kapelle import Database, Escalation, Runs, Task, agent
from kapelle.graphs import pipeline
from kapelle.state.task import Brief

service.EVERY = 0.2


def note(line: str) -> None:
    """Append to `done.txt`."""
    with Path("done.txt").open("a") as file:
        file.write(line + "\n")


@agent
async def ask(task: Task) -> Escalation:
    """Turn to a person, always."""
    note("ask")
    return Escalation(question="Go on?", evidence=task.goal)


@agent
async def work(task: Task, brief: Brief) -> str:
    """Work until the test says so."""
    note("begin")
    while not Path("go").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    note("end")
    return "worked"


app = service.service(Runs(Database("service.db"), {"held": pipeline([ask, work])}), "held")
