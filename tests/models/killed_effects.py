"""Kills runs around an effect and goes on in a new process; says as JSON what came of it.

    python killed_effects.py MODEL_URL FOLDER DATABASE…

Killed are: the process that has written down that a mail is to be sent; the one that has sent it
and not yet said so; the one that has said so. A person, asked whether a mail was sent, looks into
the mailbox and says the truth. The processes are forked, so that nothing is imported twice.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from kapelle import Approval, Database, ModelAgent, Policy, Runs, Task, agent, as_agent
from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.effect import effect
from kapelle.nodes.pattern import Pattern
from kapelle.nodes.toolbox import consequential

POINTS = {"by_function": ("begun", "written"), "by_model": ("sent",)}
POLICY = Policy(timeout=120, backoff=0, attempts=1)

importlib.import_module("alembic.command")  # once here, not in every process
importlib.import_module("openai.resources.chat")


class Mailbox:
    """Mails, one line each; the process dies at `fatal`."""

    def __init__(self, folder: Path, fatal: str) -> None:
        self.folder, self.fatal = folder, fatal

    def die_at(self, point: str) -> None:
        """Be killed, if this is the point."""
        if point == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    async def send(self, to: str) -> str:
        """Send a mail."""
        self.die_at("begun")
        with (self.folder / "mails").open("a") as mails:
            mails.write(f"{to}\n")
        self.die_at("sent")
        return "receipt"

    @property
    def sent(self) -> list[str]:
        """What was sent."""
        mails = self.folder / "mails"
        return mails.read_text().splitlines() if mails.exists() else []


def by_function(box: Mailbox, url: str) -> Pattern:
    """A plain function sends, within a team."""

    @agent
    async def planner(task: Task) -> list[Task]:
        return [Task(id="mail", goal="send it")]

    @agent
    async def clerk(task: Task) -> Any:
        receipt = await effect("mail").once(box.send, "ann")
        box.die_at("written")
        return receipt or "sent, says a person"

    return manager_worker(plan=planner, workers=[clerk], policy=POLICY)


def by_model(box: Mailbox, url: str) -> Pattern:
    """A model sends once a person has approved, within a line within a line."""

    @consequential(approve=True)
    @tool
    async def send_mail(to: str) -> str:
        """Send a mail."""
        return await box.send(to)

    @tool
    async def rest() -> str:
        """Do nothing."""
        box.die_at("written")
        return "rested"

    settings: dict[str, Any] = {"model": "loopback", "api_key": "x", "base_url": url}
    model = ChatOpenAI(**settings, max_retries=0)
    clerk = ModelAgent("clerk", model, tools=[send_mail, rest])
    inner = as_agent(pipeline([clerk], policy=POLICY), name="inner")
    return pipeline([inner], policy=POLICY)


GRAPHS = {"by_function": by_function, "by_model": by_model}


async def drive(graph: str, db: str, thread: str, url: str, box: Mailbox) -> None:
    """Start or go on, saying the truth whatever is asked."""
    async with Database(db) as database:
        runs = Runs(database, {graph: GRAPHS[graph](box, url)})
        begun = (box.folder / "begun").exists()
        (box.folder / "begun").touch()
        run = await (runs.resume(thread) if begun else runs.start(graph, "go", thread=thread))
        while run.asks:
            ask = run.asks[0]
            with (box.folder / "asks").open("a") as asks:
                asks.write(f"{ask.question}\n")
            true = ask.question.startswith("Call") or bool(box.sent)
            answer = Approval(decision="approve" if true else "reject", by="ann")
            run = await runs.answer(ask.id, answer)
        (box.folder / "result").write_text(f"{run.status}")


def forked(work: Any) -> int:
    """Do it in a process of its own; the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def story(graph: str, db: str, fatal: str, folder: Path, url: str) -> dict[str, Any]:
    """One run in two processes."""
    folder.mkdir(parents=True)
    thread = f"{folder.name}-{os.getpid()}".replace(" ", "-")
    first, second = Mailbox(folder, fatal), Mailbox(folder, "")
    ends = [forked(lambda box=box: drive(graph, db, thread, url, box)) for box in (first, second)]
    asks = (folder / "asks").read_text().splitlines() if (folder / "asks").exists() else []
    result = folder / "result"
    status = result.read_text() if result.exists() else "none"
    return {"ended": ends, "sent": second.sent, "asks": asks, "status": status}


def main(url: str, root: Path, databases: list[str]) -> None:
    """Each graph on each database, killed at its points."""
    told = {
        name: story(graph, db, fatal, root / name, url)
        for graph, points in POINTS.items()
        for number, db in enumerate(databases)
        for fatal in points
        for name in [f"{graph} {number} {fatal}"]
    }
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
