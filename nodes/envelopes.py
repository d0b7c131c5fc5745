"""The envelopes around a call: the run's, those of graphs it is nested in, its task's, its agent's.

A graph that works as an agent inherits the envelopes of the call that runs it, by way of the
context that asyncio hands on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from kapelle.nodes.agent import Agent
from kapelle.nodes.here import Here
from kapelle.state.budget import Budget, Envelope
from kapelle.state.policy import Policy
from kapelle.state.task import Task


class _Around(NamedTuple):
    thread: str
    those: tuple[Envelope, ...]
    part: bool
    """Whether the graph within is a part of the one around it, with no budget of its own."""


_NOTHING = _Around("", (), part=False)

_around: ContextVar[_Around] = ContextVar("_around", default=_NOTHING)


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
    """The envelopes of the graph a node is in."""
    outer = _outer(here, policy)
    if not here.place or not policy.budget.bounded or _is_part(here):
        return outer
    return (*outer, Envelope(here.place, policy.budget))


@contextmanager
def around(here: Here, those: tuple[Envelope, ...]) -> Iterator[None]:
    """Calls made in this context come out of these envelopes too."""
    with _set(_Around(here.thread, those, part=False)):
        yield


@contextmanager
def same(here: Here, policy: Policy) -> Iterator[None]:
    """The graph that runs in this context is a part of the one around it: they share its budget."""
    with _set(_Around(here.thread, of_graph(here, policy), part=True)):
        yield


@contextmanager
def _set(what: _Around) -> Iterator[None]:
    token = _around.set(what)
    try:
        yield
    finally:
        _around.reset(token)


def _is_part(here: Here) -> bool:
    found = _around.get()
    return found.part and found.thread == here.thread


def _outer(here: Here, policy: Policy) -> tuple[Envelope, ...]:
    found = _around.get()
    if here.place and found.thread == here.thread and found.those:
        return found.those
    return (Envelope("", Budget() if here.place else policy.budget),)
