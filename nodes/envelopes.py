"""The envelopes around a call: the run's, those of graphs it is nested in, its task's, its agent's.

A graph that works as an agent inherits the envelopes of the call that runs it, by way of the
context that asyncio hands on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kapelle.nodes.agent import Agent
from kapelle.nodes.here import Here
from kapelle.state.budget import Budget, Envelope
from kapelle.state.policy import Policy
from kapelle.state.task import Task

_NOTHING: tuple[str, tuple[Envelope, ...]] = ("", ())

_around: ContextVar[tuple[str, tuple[Envelope, ...]]] = ContextVar("_around", default=_NOTHING)


def envelopes(here: Here, agent: Agent, task: Task, policy: Policy) -> tuple[Envelope, ...]:
    """All envelopes a call must fit in, outermost first; those without a limit are left out."""
    place = here.place
    found = [*of_graph(here, policy)]
    if policy.per_task.bounded:
        found.append(Envelope(f"{place}/task {task.id}", policy.per_task))
    if task.budget is not None and task.budget.bounded:
        found.append(Envelope(f"{place}/task {task.id} itself", task.budget))
    if policy.per_agent.bounded:
        found.append(Envelope(f"{place}/agent {agent.card.name}", policy.per_agent))
    return tuple(found)


def of_graph(here: Here, policy: Policy) -> tuple[Envelope, ...]:
    """The envelopes of the graph a node is in; `around` what it goes on in by itself."""
    outer = _outer(here, policy)
    if not here.place or not policy.budget.bounded:
        return outer
    return (*outer, Envelope(here.place, policy.budget))


@contextmanager
def around(here: Here, those: tuple[Envelope, ...]) -> Iterator[None]:
    """Calls made in this context come out of these envelopes too."""
    token = _around.set((here.thread, those))
    try:
        yield
    finally:
        _around.reset(token)


def _outer(here: Here, policy: Policy) -> tuple[Envelope, ...]:
    thread, those = _around.get()
    if here.place and thread == here.thread and those:
        return those
    return (Envelope("", Budget() if here.place else policy.budget),)
