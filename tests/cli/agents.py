"""Graphs that the command line runs; each test has a copy of this file in a folder of its own."""

import os
import time
from pathlib import Path
from typing import NoReturn

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel

from kapelle import Brief, Budget, Escalation, Plan, Policy, Reply, Task, Verdict, agent
from kapelle.graphs import manager_worker
from kapelle.nodes.agent import Unusable
from kapelle.nodes.pattern import Pattern
from kapelle.state.budget import Usage
from kapelle.state.context import Claim


@agent
def plan(task: Task) -> Plan:
    """As many parts as `inputs["parts"]` says."""
    parts = range(int(str(task.inputs.get("parts", 3))))
    return Plan(tasks=tuple(Task(id=f"part{n}", goal=f"Part {n}", skills=("work",)) for n in parts))


@agent(skills=["work"])
def work(task: Task) -> str:
    """Do it."""
    return f"{task.id} is done"


@agent(skills=["work"])
def ask(task: Task) -> Escalation:
    """Turn to a person."""
    return Escalation(question=f"May I do {task.id}?", evidence={"cost": 3})


@agent(skills=["work"])
def note(task: Task) -> str:
    """Note the beginning, in the working directory; after a dozen, wait until `go` is there."""
    with Path("begun").open("a", encoding="utf-8") as file:
        file.write(f"{task.id}\n")
    while len(Path("begun").read_text(encoding="utf-8").split()) > 12 and not Path("go").exists():
        time.sleep(0.01)
    return task.id


@agent(skills=["work"])
def insist(task: Task) -> Reply:
    """Claim of each part what no other claims, and stay with it."""
    ui = Claim(key="ui", value=task.id, evidence="seen" if task.id == "part0" else "")
    return Reply(output=task.id, claims=(ui,))


class Seen(BaseModel):
    """What an agent of another process sends back."""

    process: int


@agent(skills=["work"], output=Seen, cpu=True)
def look(task: Task) -> Seen:
    """See where this is."""
    return Seen(process=os.getpid())


@agent(skills=["work"])
def fail(task: Task) -> NoReturn:
    """Fail."""
    raise TypeError("broken by design")


@agent(skills=["work"])
def steer(task: Task) -> Escalation:
    """Try to steer the terminal."""
    return Escalation(question="Clear\x1b[2J the [red]screen[/red]?", evidence="\x1b]0;title\x07")


@agent(skills=["work"])
def falter(task: Task, brief: Brief) -> Reply:
    """Fail at the first try; tokens are used all the same."""
    used = Usage(input_tokens=90, output_tokens=10, calls=1)
    if brief.attempt == 1:
        raise Unusable("no good", used, "small-1")
    return Reply(output="good", usage=used, model="small-1")


@agent(skills=["work"])
def hang(task: Task) -> NoReturn:
    """Never return."""
    while True:
        time.sleep(1)


@agent
def judge(task: Task) -> Verdict:
    """Turn to a person."""
    return Verdict(decision="ask", reason="It is severe.")


done = manager_worker(plan=plan, workers=[work])
asking = manager_worker(plan=plan, workers=[work], judge=judge)
several = manager_worker(plan=plan, workers=[ask])
slow = manager_worker(plan=plan, workers=[note], policy=Policy(parallel=3))
away = manager_worker(plan=plan, workers=[look])
faltering = manager_worker(plan=plan, workers=[falter], policy=Policy(attempts=2, backoff=0))
failing = manager_worker(plan=plan, workers=[fail], policy=Policy(attempts=1))
steering = manager_worker(plan=plan, workers=[steer])
stuck = manager_worker(plan=plan, workers=[hang], policy=Policy(attempts=1, timeout=0.2))
number = 7


def make() -> Pattern:
    """Make a graph, without being told anything."""
    return done


def tuned(config: RunnableConfig) -> Pattern:
    """Make a graph that says what it was made with."""
    given = dict(config.get("configurable", {}))

    @agent(skills=["work"])
    def tell(task: Task) -> dict[str, object]:
        return given

    return manager_worker(plan=plan, workers=[tell], judge=judge)


async def later() -> Pattern:
    """Make a graph that has to be waited for."""
    return done


def greedy(one: object, two: object) -> Pattern:
    """Take more than anyone gives."""
    return done


def broken() -> Pattern:
    """Make nothing."""
    raise ValueError("no graph today")


short = manager_worker(
    plan=plan, workers=[work], policy=Policy(budget=Budget(calls=3), on_budget="ask")
)
insisting = manager_worker(plan=plan, workers=[insist])
