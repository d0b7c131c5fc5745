"""Simulated agents that do what a script says and count what they did, and a run to put them in."""

import asyncio
import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from langgraph.types import Command, Interrupt

from kapelle.nodes.agent import Agent, FunctionAgent, agent
from kapelle.nodes.in_memory import in_memory
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval, Choice
from kapelle.state.event import Event
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result, Task
from kapelle.state.verdict import Verdict

QUICK = Policy(timeout=60, backoff=0, attempts=1)
"""No pauses, one try."""


def task(id: str, *needs: str, **more: Any) -> Task:
    """A subtask."""
    return Task.model_validate({"id": id, "goal": f"do {id}", "needs": needs, **more})


class Crew:
    """Agents with a script: by task what they answer, an exception to raise it.

    A list is what they answer the first, the second, … time, the last one from then on. What is
    not in the script is answered with the task's id and the ids of what it needed.
    """

    def __init__(self) -> None:
        self.did: Counter[str] = Counter()
        """How often each subtask was worked on to its end."""
        self.by: list[tuple[str, str]] = []
        """Agent and task, in the order they began."""
        self.briefs: dict[str, list[Brief]] = {}
        """What was given with each task, each time."""

    @property
    def calls(self) -> int:
        """How many calls there were, of all agents together."""
        return len(self.by)

    def worker(
        self, name: str = "worker", skills: Sequence[str] = (), **script: object
    ) -> FunctionAgent:
        """An agent; `script` by task id."""

        @agent(name=name, skills=skills)
        async def work(task: Task, brief: Brief) -> object:
            self.by.append((name, task.id))
            self.briefs.setdefault(task.id, []).append(brief)
            await asyncio.sleep(0)
            answer: Any = script.get(task.id, script.get("anything", _made(task, brief)))
            if isinstance(answer, list):
                times = sum(done == (name, task.id) for done in self.by)
                answer = answer[min(times, len(answer)) - 1]
            if inspect.iscoroutinefunction(answer):
                answer = await answer()
            if isinstance(answer, BaseException):
                raise answer
            self.did[task.id] += 1
            return answer

        return work

    def planner(self, *plans: object, name: str = "planner") -> FunctionAgent:
        """Gives these plans one after the other, the last one from then on."""
        return self.worker(name, anything=list(plans))

    def judge(self, *verdicts: object, name: str = "critic") -> FunctionAgent:
        """Gives these verdicts one after the other; in the end it accepts."""
        return self.worker(name, anything=[*verdicts, Verdict(decision="accept")])


def _made(task: Task, brief: Brief) -> str:
    needed = ",".join(need for need in sorted(brief.results) if need in task.needs)
    return f"{task.id}({needed})"


class Run:
    """A graph at work on one thread."""

    def __init__(
        self, graph: Any, saver: object = None, thread: str = "t1", goal: str = "all of it"
    ) -> None:
        self.graph = graph.compile(checkpointer=saver)
        self.saved = saver is not None
        self.config: dict[str, Any] = {"configurable": {"thread_id": thread}}
        self.services: Services = in_memory()
        self.task = Task(goal=goal)
        self.final: dict[str, Any] = {}

    async def go(self, given: object = None) -> Self:
        """Start, or go on with what is given."""
        how: dict[str, Any] = {"durability": "sync"} if self.saved else {}
        self.final = await self.graph.ainvoke(
            given or {"task": self.task}, self.config, context=self.services, **how
        )
        return self

    @property
    def result(self) -> Result:
        """What left the graph; there must be no ask."""
        assert self.final.get("__interrupt__", []) == [], "it waits for a person"
        result = self.final["result"]
        assert isinstance(result, Result), "it ended without a result"
        return result

    @property
    def asks(self) -> dict[str, Interrupt]:
        """What it waits for, by task."""
        return {ask.value.task: ask for ask in self.final.get("__interrupt__", [])}

    async def answer(self, *tasks: str, decision: Choice = "approve", **more: Any) -> Self:
        """Answer the asks about these tasks, or the one there is, all in the same way."""
        assert self.asks, "nothing is asked"
        asked = [self.asks[t] for t in tasks] or list(self.asks.values())
        assert tasks or len(asked) == 1, "say which ask"
        answer = Approval.model_validate({"decision": decision, "by": "ann", **more})
        return await self.go(Command(resume={a.id: answer.model_dump() for a in asked}))

    async def events(self) -> list[Event]:
        """What was journaled on its thread."""
        return await self.services.journal.read(self.config["configurable"]["thread_id"])


def names(agents: Sequence[Agent]) -> list[str]:
    """The agents' names."""
    return [a.card.name for a in agents]
