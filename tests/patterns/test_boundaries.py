"""Wherever keeping fails while a person holds a step, the run goes on and ends alike."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from kapelle.graphs import hierarchy, pipeline, swarm
from kapelle.nodes.agent import GraphAgent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Approval, Escalation
from kapelle.state.ballot import AheadBy, Plurality
from kapelle.state.task import Task
from tests.patterns.simulated import QUICK, Crew, Run

pytestmark = pytest.mark.anyio


class Broken(Exception):
    """Nothing is kept any more."""


class Frail(InMemorySaver):
    """Keeps nothing from the n-th time on, for whoever was at work then."""

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.left = [fatal]  # LangGraph copies savers
        self.broken, self.over = asyncio.Event(), asyncio.Event()

    async def _break(self) -> None:
        self.left[0] -= not self.broken.is_set()
        if self.left[0] == 0:
            self.broken.set()
        if self.broken.is_set():
            await self.over.wait()
            raise Broken

    async def aput(self, *args: Any, **more: Any) -> Any:
        """Keep a checkpoint."""
        await self._break()
        return await super().aput(*args, **more)

    async def aput_writes(self, *args: Any, **more: Any) -> None:
        """Keep what nodes wrote."""
        await self._break()
        await super().aput_writes(*args, **more)

    async def until_broken(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What comes of it; None if it is over before, as at the end of a process."""
        doing, broken = asyncio.ensure_future(work), asyncio.ensure_future(self.broken.wait())
        await asyncio.wait((doing, broken), return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if not self.broken.is_set():
            return await doing
        doing.cancel()
        self.over.set()
        await asyncio.wait((doing,))
        self.broken, self.over = asyncio.Event(), asyncio.Event()
        self.left[0] = -1
        return None


def line(crew: Crew, name: str) -> GraphAgent:
    """A graph that turns to a person."""
    ask = Escalation(question="Go on?", evidence="x")
    stages = [crew.worker(f"{name} first"), crew.worker(f"{name} last", anything=ask)]
    return as_agent(pipeline(stages, policy=QUICK), name=name)


def a_vote_that_needs_it(crew: Crew) -> Pattern:
    """Even, but for whom a person holds."""
    peers = [crew.worker(name, anything=said) for name, said in zip("bcde", "xyyx", strict=True)]
    return swarm([line(crew, "a"), *peers], rule=Plurality(), policy=QUICK)


def a_vote_that_does_not(crew: Crew) -> Pattern:
    """One goes on alone until it is ahead."""
    peers = [line(crew, "a"), crew.worker("b", anything="x")]
    return swarm(peers, rule=AheadBy(k=3), policy=QUICK)


def a_chart(crew: Crew) -> Pattern:
    """A team that is held, one that failed, one that is neither."""
    web = crew.worker("w", web=[ValueError("no"), "W"])
    chart = {"law": line(crew, "a"), "web": web, "press": crew.worker("p")}
    return hierarchy(chart, merge=dict, policy=QUICK)


async def ended(graph: Pattern, saver: Frail) -> Run:
    """Start, go on where it broke, and answer all that is asked."""
    run = Run(graph, saver)
    given: Any = {"task": Task(goal="all of it")}
    where: Any = run.config
    how: Any = {"context": run.services, "durability": "sync"}
    while True:
        made = await saver.until_broken(run.graph.ainvoke(given, run.config, **how))
        if made is None:
            given = None if await saver.aget_tuple(where) else given
            continue
        run.final = made
        asks = made.get("__interrupt__")
        if not asks:
            return run
        answer = Approval(decision="approve", by="ann").model_dump()
        given = Command(resume={asks[0].id: answer})


@pytest.mark.parametrize("build", [a_vote_that_needs_it, a_vote_that_does_not, a_chart])
async def test_wherever_keeping_ends_it_goes_on(build: Callable[[Crew], Pattern]) -> None:
    whole, calm = Frail(0), Crew()
    said = (await ended(build(calm), whole)).result
    places = -whole.left[0]
    assert places > 50
    for fatal in range(1, places + 1):
        crew = Crew()
        result = (await ended(build(crew), Frail(fatal))).result
        same = {"usage": said.usage}  # what was not kept is done, and used, once more
        assert result.model_copy(update=same) == said, fatal
        assert all(times <= 2 * calm.did[task] for task, times in crew.did.items()), fatal
