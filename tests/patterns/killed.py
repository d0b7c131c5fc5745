"""Kills runs and goes on with them, each time in a new process; says as JSON what came of it.

    python killed.py SAVER FOLDER TIMES [GRAPH …]

SAVER is `official sqlite`, `sqlite`, or the URL of an empty database of ours on a server.
A part of the plan writes a line when it begins and one when it is finished. The n-th that begins
kills its process, after what others had finished was kept and before it is finished itself. The
processes are forked, so that nothing is imported twice.
"""

import asyncio
import importlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.base import BaseStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from langgraph.types import Command
from pydantic import JsonValue
from sqlalchemy import create_engine, select

from kapelle.checkpoints import Database
from kapelle.checkpoints.tables import blobs, checkpoints, payloads, writes
from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import FunctionAgent, GraphAgent, agent, as_agent
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.memory import Law, StoreMemory
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Approval, Escalation
from kapelle.state.ballot import AheadBy, Plurality, by_key
from kapelle.state.context import Claim, MasterContext
from kapelle.state.message import Channel, Message
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Reply, Task
from kapelle.state.verdict import Verdict

POLICY = Policy(timeout=300, backoff=0, attempts=1, parallel=4)

importlib.import_module("alembic.command")  # once here, not in every process

CONFIG: Any = {"configurable": {"thread_id": "t1"}}


class Work:
    """What the agents of one process do; `fatal`: which beginning kills it, 0 for none."""

    def __init__(self, kind: str, folder: Path, fatal: int) -> None:
        self.kind, self.folder, self.fatal = kind, folder, fatal
        self.begun = 0
        self.made: list[str] = []

    def note(self, what: str, task: str) -> None:
        """Write a line that outlives the process."""
        with (self.folder / "book").open("a") as book:
            book.write(f"{what} {task}\n")

    async def __call__(self, task: Task, brief: Brief) -> str:
        """Work on one part."""
        self.note("begin", task.id)
        if self.is_last():
            await self.kept()
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < self.fatal < self.begun:
            await asyncio.sleep(300)  # nobody else finishes before the end
        await asyncio.sleep(0)
        self.note("end", task.id)
        needed = ",".join(i for i in sorted(brief.results) if i in task.needs)
        self.made.append(f"<{task.id} of {needed}>")
        return self.made[-1]

    def is_last(self) -> bool:
        """One beginning more: whether it is the one that kills."""
        self.begun += 1
        return self.begun == self.fatal

    async def kept(self) -> None:
        """Wait until all that was made in this process is in the database."""
        async with asyncio.timeout(120):
            while not self.all_kept():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def all_kept(self) -> bool:
        """Whether what was made in this process is in the database."""
        look = in_tables if "://" in self.kind else in_files
        stored = look(self.kind, self.folder) if self.made else ""
        return all(made in stored for made in self.made)


def in_files(kind: str, folder: Path) -> str:
    """What is in the database's files."""
    return "".join(file.read_text("latin-1") for file in folder.glob("runs.*"))


def in_tables(url: str, folder: Path) -> str:
    """What any other connection to the server sees of the run."""
    engine, mine = create_engine(url), tenant_of(folder)
    with engine.connect() as connection:
        bodies = [
            body
            for table in (writes, blobs, checkpoints, payloads)
            for body in connection.scalars(select(table.c.body).where(table.c.tenant == mine))
        ]
    engine.dispose()
    return "".join(bytes(body or b"").decode("latin-1") for body in bodies)


def tenant_of(folder: Path) -> str:
    """Each run on a server is a tenant of its own."""
    return sha256(str(folder).encode()).hexdigest()


def plan_of(many: int) -> list[Task]:
    """A random DAG, always the same."""
    lot = random.Random(7)
    ids = [f"t{n}" for n in range(many)]
    return [
        Task(id=i, goal="work", needs=tuple(lot.sample(ids[:n], min(n, lot.randrange(3)))))
        for n, i in enumerate(ids)
    ]


def a_team(work: Work) -> Pattern:
    """A dozen parts."""

    @agent
    async def planner(task: Task) -> list[Task]:
        return plan_of(12)

    return manager_worker(plan=planner, workers=[agent(name="worker")(work)], policy=POLICY)


def a_team_that_asks(work: Work) -> Pattern:
    """Two of a dozen parts turn to a person."""
    asks = {"t0", "t5"}

    async def asking(task: Task, brief: Brief) -> object:
        made = await work(task, brief)
        return Escalation(question=f"{task.id}?", evidence=made) if task.id in asks else made

    @agent
    async def planner(task: Task) -> list[Task]:
        return plan_of(12)

    return manager_worker(plan=planner, workers=[agent(name="worker")(asking)], policy=POLICY)


def a_team_that_disagrees(work: Work) -> Pattern:
    """Of three contradictions one is settled by rule, one by the judge, one by a person.

    Whoever is told what holds works again, and keeps to it.
    """
    said: dict[str, tuple[str, JsonValue, float]] = {
        "a": ("ui", "React", 1.0),
        "b": ("ui", "Vue", 0.5),
        "c": ("db", "PostgreSQL", 1.0),
        "d": ("db", "MariaDB", 1.0),
        "e": ("lang", "Python", 1.0),
        "f": ("lang", "Rust", 1.0),
    }

    async def claiming(task: Task, brief: Brief) -> Reply:
        key, value, sure = said[task.id]
        if brief.feedback:
            held = {d.key: d.value for d in brief.context.decisions} if brief.context else {}
            value, task = held[key], task.model_copy(update={"id": f"{task.id}-again"})
        claim = Claim(key=key, value=value, confidence=sure)
        return Reply(output=await work(task, brief), claims=(claim,))

    @agent
    async def planner(task: Task) -> list[Task]:
        return [Task(id=i, goal="work") for i in said]

    workers = [agent(name="worker")(claiming)]
    return manager_worker(plan=planner, workers=workers, judge=a_judge(work), policy=POLICY)


def a_judge(work: Work) -> FunctionAgent:
    """Accepts all, and says which database it is; that it notes, for it is to be asked once."""

    @agent
    async def judge(task: Task, brief: Brief) -> Verdict:
        if not brief.disputes:
            return Verdict(decision="accept")
        work.note("end", f"ruling-of-{task.id}")
        return Verdict(decision="accept", rulings={"db": "MariaDB"})

    return judge


def a_writer(work: Work, name: str, to: str, **acts: Any) -> FunctionAgent:
    """Writes from some of its tasks; what it is known to have finished names what it had read."""

    @agent(name=name)
    async def writing(task: Task, brief: Brief) -> Reply:
        read = ",".join(m.id for m in brief.messages)
        made = await work(task.model_copy(update={"id": f"{task.id}[{read}]"}), brief)
        letter = {"receiver": to, "performative": acts.get(task.id), "body": f"from {task.id}"}
        letters = (Message.model_validate(letter),) if task.id in acts else ()
        bodies = [f"{m.sender}: {m.body}" for m in brief.messages]
        return Reply(output=[made, *bodies], messages=letters)

    return writing


WRITING = POLICY.model_copy(update={"channels": (Channel(),)})


def a_line_that_writes(work: Work) -> Pattern:
    """Each stage tells the next one something; the last wants something of the first, twice."""
    stages = [
        a_writer(work, "coder", "reader", coder="inform"),
        a_writer(work, "reader", "tester", reader="inform"),
        a_writer(work, "tester", "coder", tester="request"),
    ]
    return pipeline(stages, policy=WRITING)


def a_team_that_writes(work: Work) -> Pattern:
    """Testers tell a coder something, and want something: it works again, and reads it all."""

    @agent
    async def planner(task: Task) -> list[Task]:
        who = {"c1": "coder", "c2": "coder", "t1": "tester", "t2": "tester", "t3": "tester"}
        return [Task(id=i, goal="work", agent=name) for i, name in who.items()]

    tester = a_writer(work, "tester", "coder", t1="inform", t2="request", t3="inform")
    workers = [a_writer(work, "coder", "tester"), tester]
    return manager_worker(plan=planner, workers=workers, policy=WRITING)


def teams_that_disagree(work: Work) -> Pattern:
    """One such team in a team in a line."""
    inner = as_agent(a_team_that_disagrees(work), name="inner")

    @agent
    async def planner(task: Task) -> list[Task]:
        return [Task(id="part", goal="work")]

    team = as_agent(manager_worker(plan=planner, workers=[inner], policy=POLICY), name="outer")
    return pipeline([team, agent(name="last")(work)], policy=POLICY)


def a_line_with_a_team_in_it(work: Work) -> Pattern:
    """A stage, a team, a stage."""
    first, last = agent(name="first")(work), agent(name="last")(work)
    return pipeline([first, as_agent(a_team(work), name="team"), last], policy=POLICY)


def a_stream(work: Work) -> Pattern:
    """Four items on three stages."""
    return pipeline([agent(name=name)(work) for name in ("first", "next", "last")], policy=POLICY)


def a_tree(work: Work) -> Pattern:
    """A dozen leaves under five managers; what they made, one after the other."""
    return hierarchy(agent(name="leaf")(work), merge=" ".join, branching=3, policy=POLICY)


def voter(work: Work, name: str, answer: str) -> FunctionAgent:
    """A peer that always says the same."""

    @agent(name=name)
    async def vote(task: Task, brief: Brief) -> dict[str, str]:
        return {"vote": answer, "made": await work(task, brief)}

    return vote


def a_swarm(work: Work) -> Pattern:
    """Two waves: three of five are asked, one of whom differs; then both others."""
    peers = [voter(work, f"p{n}", answer) for n, answer in enumerate("xyxyx")]
    return swarm(peers, rule=Plurality(), same=by_key("vote"), policy=POLICY)


def a_line_that_asks(work: Work, shown: Callable[[str], JsonValue]) -> GraphAgent:
    """Two stages, of which the second turns to a person."""

    @agent(name="asking")
    async def asking(task: Task, brief: Brief) -> Escalation:
        return Escalation(question="Is it so?", evidence=shown(await work(task, brief)))

    return as_agent(pipeline([agent(name="first")(work), asking], policy=POLICY), name="graph")


def a_chart_that_is_held(work: Work) -> Pattern:
    """A person holds the only step, within a team; another fails meanwhile, and is redone."""

    async def moody(task: Task, brief: Brief) -> str:
        again = f"{task.id}-again" if brief.feedback else task.id
        made = await work(task.model_copy(update={"id": again}), brief)
        if not brief.feedback:
            raise ValueError(made)
        return made

    chart = {
        "law": a_line_that_asks(work, lambda made: made),
        "web": agent(name="web")(moody),
        "press": agent(name="press")(work),
    }
    return hierarchy(chart, merge=dict, policy=POLICY)


def a_swarm_that_is_held(work: Work) -> Pattern:
    """A person holds the first wave, within a peer that is a graph; the others vote meanwhile."""
    graph = a_line_that_asks(work, lambda made: {"vote": "x", "made": made})
    peers = [voter(work, f"p{n}", answer) for n, answer in enumerate("yxxy")]
    return swarm([graph, *peers], rule=Plurality(), same=by_key("vote"), policy=POLICY)


def a_line_of_swarms(work: Work) -> Pattern:
    """Three stages, each a swarm that asks one peer again until it has said the same four times."""
    crowds = [
        as_agent(
            swarm(
                [voter(work, f"{name}-peer", "x")],
                rule=AheadBy(k=4),
                same=by_key("vote"),
                policy=POLICY,
            ),
            name=name,
        )
        for name in ("one", "two", "three")
    ]
    return pipeline(crowds, policy=POLICY)


def a_market(work: Work) -> Pattern:
    """Eight tasks side by side, spread over three bidders."""
    agents = [agent(name=name)(work) for name in ("ann", "bob", "cyd")]
    return marketplace(agents, rule="assignment", policy=POLICY)


def a_market_that_disagrees(work: Work) -> Pattern:
    """At its end one contradiction is settled by rule, one by the judge, one by a person."""
    said: dict[str, tuple[str, JsonValue, float]] = {
        "m0": ("ui", "React", 1.0),
        "m1": ("ui", "Vue", 0.5),
        "m2": ("db", "PostgreSQL", 1.0),
        "m3": ("db", "MariaDB", 1.0),
        "m4": ("lang", "Python", 1.0),
        "m5": ("lang", "Rust", 1.0),
    }

    async def claiming(task: Task, brief: Brief) -> Reply:
        made = await work(task, brief)
        if task.id not in said:
            return Reply(output=made)
        key, value, sure = said[task.id]
        return Reply(output=made, claims=(Claim(key=key, value=value, confidence=sure),))

    agents = [agent(name=name)(claiming) for name in ("ann", "bob", "cyd")]
    return marketplace(agents, rule="assignment", judge=a_judge(work), policy=POLICY)


TASKS = [{"id": f"m{n}", "goal": "work"} for n in range(8)]
"""What the market awards."""

ITEMS: dict[str, list[Any]] = {"a_stream": list("abcd"), "a_tree": list(range(12))}
"""What is given to the graphs that take items."""

GRAPHS: dict[str, Callable[[Work], Pattern]] = {
    graph.__name__: graph
    for graph in (
        a_team,
        a_team_that_asks,
        a_team_that_disagrees,
        a_team_that_writes,
        a_line_that_writes,
        a_market_that_disagrees,
        teams_that_disagree,
        a_line_with_a_team_in_it,
        a_stream,
        a_tree,
        a_swarm,
        a_swarm_that_is_held,
        a_chart_that_is_held,
        a_line_of_swarms,
        a_market,
    )
}


WRITE = ("a_team_that_writes", "a_line_that_writes")
"""The graphs that are killed between steps as well: there messages are on their way."""


class FatalMemory(StoreMemory):
    """A memory that kills its process right after a change, before anything else is kept."""

    def __init__(self, store: BaseStore, work: Work) -> None:
        super().__init__(store)
        self._work = work

    async def change(self, thread: str, law: Law) -> MasterContext:
        """Change the document; to be killed by a change counts as a beginning."""
        before = await self.context(thread)
        now = await super().change(thread, law)
        if now.decisions != before.decisions and self._work.is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        return now


def at_each_step(saver: Any, work: Work) -> None:
    """Have each checkpoint count as a beginning: killed by it, a process ends between two steps."""
    put = saver.aput

    async def aput(*given: Any, **named: Any) -> Any:
        where = await put(*given, **named)
        if work.is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        return where

    saver.aput = aput


@asynccontextmanager
async def saver_in(kind: str, folder: Path) -> AsyncIterator[tuple[Any, BaseStore]]:
    """What the run is kept in, and its memory."""
    if kind != "official sqlite":
        url, tenant = (kind, tenant_of(folder)) if "://" in kind else (folder / "runs.db", "all")
        async with Database(str(url), tenant=tenant) as db:
            yield db.saver, db.store
    else:
        path = str(folder / "runs.sqlite")
        async with (
            AsyncSqliteSaver.from_conn_string(path) as official,
            AsyncSqliteStore.from_conn_string(str(folder / "memory.sqlite")) as store,
        ):
            await store.setup()
            yield official, store


async def drive(kind: str, graph: str, folder: Path, fatal: int) -> None:
    """Start or go on, answering what is asked, to the end; the result goes to a file."""
    work = Work(kind, folder, fatal)
    async with saver_in(kind, folder) as (saver, store):
        if graph in WRITE:
            at_each_step(saver, work)
        app = GRAPHS[graph](work).compile(checkpointer=saver)
        services = replace(in_memory(), memory=FatalMemory(store, work))
        begun = await saver.aget_tuple(CONFIG) is not None
        inputs: dict[str, Any] = {"items": ITEMS[graph]} if graph in ITEMS else {"tasks": TASKS}
        given: Any = None if begun else {"task": Task(goal="all of it", inputs=inputs)}
        while True:
            final = await app.ainvoke(given, CONFIG, context=services, durability="sync")
            asks = final.get("__interrupt__")
            if not asks:
                break
            answer = Approval(decision="approve", by="ann").model_dump()
            given = Command(resume={asks[0].id: answer})
        (folder / "result").write_text(final["result"].model_dump_json())
        held = await services.memory.context("t1")
        (folder / "context").write_text(
            held.model_dump_json(exclude={"decisions": {"__all__": {"step"}}})
        )


def forked(work: Callable[[], None]) -> int:
    """Do it in a process of its own; the process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """The signal that ended a process; 0 if it came to its end."""
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def story(kind: str, graph: str, folder: Path, fatal: list[int]) -> None:
    """One run, in as many processes as it takes; what is told of it goes to a file."""
    ends = [
        ended(forked(lambda n=n: asyncio.run(drive(kind, graph, folder, n))))  # type: ignore[misc]
        for n in fatal
    ]
    (folder / "story").write_text(json.dumps(told(folder, ends)))


def told(folder: Path, ends: list[int]) -> dict[str, Any]:
    """What is left of a run: how its processes ended, what was finished how often, its result."""
    lines = [line.split() for line in (folder / "book").read_text().splitlines()]
    result = json.loads((folder / "result").read_text()) if (folder / "result").exists() else {}
    return {
        "ended": ends,
        "finished": Counter(task for what, task in lines if what == "end"),
        "status": result.get("status"),
        "output": result.get("output"),
        "calls": result.get("usage", {}).get("calls"),
        "contradictions": result.get("contradictions"),
        "context": (folder / "context").read_text() if (folder / "context").exists() else None,
    }


BEGINNINGS = {
    "a_team": 12,
    "a_team_that_asks": 12,
    "a_team_that_disagrees": 10,
    "a_team_that_writes": 20,
    "a_line_that_writes": 30,
    "a_market_that_disagrees": 9,
    "teams_that_disagree": 11,
    "a_line_with_a_team_in_it": 14,
    "a_stream": 12,
    "a_tree": 12,
    "a_swarm": 5,
    "a_swarm_that_is_held": 6,
    "a_chart_that_is_held": 5,
    "a_line_of_swarms": 12,
    "a_market": 8,
}
"""How often a part begins in an undisturbed run."""


def main(kind: str, root: Path, times: int, graphs: list[str]) -> None:
    """Each graph: undisturbed; killed once, at so many places in turn; then three times in one run.

    With one time it is killed in the middle, and that is all.
    """
    stories: dict[str, dict[str, Any]] = {}
    for graph in graphs or BEGINNINGS:
        most = BEGINNINGS[graph]
        once = [1 + most // 2]
        if times > 1:
            once = sorted({1 + n * (most - 1) // (times - 1) for n in range(times)})
        thrice = [[2, 2, 2, 0]] if times > 1 else []
        folders = {}
        for fatal in ([0], *([n, 0] for n in once), *thrice):
            folders[str(fatal)] = folder = root / f"{graph} {fatal}"
            folder.mkdir()
            forked(lambda: story(kind, graph, folder, fatal))  # noqa: B023  at work when it returns
        for _ in folders:
            os.wait()
        stories[graph] = {
            fatal: json.loads((folder / "story").read_text()) for fatal, folder in folders.items()
        }
    print(json.dumps(stories))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
