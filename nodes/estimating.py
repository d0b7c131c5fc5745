"""Estimate what a graph will use, from the shape of its pattern and the number of items."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kapelle.nodes.agent import Agent, rungs_of
from kapelle.state.budget import Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.estimate import Estimate, Forecast, Volume
from kapelle.state.policy import Policy
from kapelle.state.skills import fits
from kapelle.state.task import Brief, Task

LENGTH = 4
"""One answer in so many is expected to be as long as it may: a quarter of the longest."""


@dataclass(frozen=True)
class Role:
    """Who is called in a pattern, and how often: once, or once an item."""

    name: str
    agents: Sequence[Agent]
    each: bool = False
    """Whether every item needs a call."""
    most: int = 1
    """Calls at most, of each item if it is for each; tries of one call apart."""
    all: bool = False
    """Whether all of the agents are called, not one of them."""
    works: bool = False
    """Whether it does the work proper."""
    often: Callable[[int], int] | None = None
    """Calls that so many items need, where that is neither one nor one an item."""
    votes: tuple[int, int, int] | None = None
    """Calls at least, as expected, at most, where it is not known of whom of the agents."""
    tells: int = 0
    """Messages that each item takes beside those of calls, like a bid made by card."""


@dataclass(frozen=True)
class Shape:
    """The roles of a pattern."""

    policy: Policy
    roles: tuple[Role, ...]
    items: Callable[[Task], int] | None = None
    """How many items a task has; None: as its longest list of inputs, else one a worker."""


def estimate(graph: Any, task: Task) -> Estimate:
    """What a pattern will use for a task.

    Tokens of prompts are those the agents themselves estimate; answers are expected to be a quarter
    as long as they may be. What a worker answers is in the prompt of whoever comes after.

    Args:
        graph: A pattern, compiled or not.
        task: The task; its longest list of inputs is taken for the items, in a market its tasks.

    Raises:
        Misbuilt: the graph is none of Kapelle's patterns, so nobody knows its shape.
    """
    shape = _shape(graph)
    workers = max(1, *(len(r.agents) for r in shape.roles if r.works), 1)
    items = shape.items(task) if shape.items else items_of(task) or workers
    roles: dict[str, Forecast] = {}
    alone, written = Forecast(), 0
    for role in shape.roles:
        one = _call(role, task, shape.policy, written)
        often = role.often(items) if role.often else items if role.each else 1
        calls = role.votes or (often, often, often * role.most)
        roles[role.name] = one.times(*calls) + _told(role.tells * items)
        if role.works:
            single = Role(role.name, role.agents[:1])
            alone += _call(single, task, shape.policy, 0).times(often, often, often)
            written += one.expected.usage.output_tokens * calls[1]
    return Estimate(
        team=sum(roles.values(), Forecast()),
        alone=_silent(alone),
        items=items,
        roles=roles,
    )


_RANGE = ("least", "expected", "most")


def items_of(task: Task) -> int:
    """How many items a task has: the length of the longest list among its inputs."""
    return max((len(v) for v in task.inputs.values() if isinstance(v, list)), default=0)


def expected_of(graph: Any, task: Task, parts: Iterable[Task]) -> Usage:
    """What a team is expected to use once it has a plan of these parts: they, and who comes after.

    Each part is done by one of the workers that fit it; what they write is read by who merges.
    """
    shape, used, written = _shape(graph), Usage(), 0
    for role in shape.roles[1:]:  # the first has planned
        if not role.works:
            used += _call(role, task, shape.policy, written).expected.usage
            continue
        for part in parts:
            able = [agent for agent in role.agents if fits(agent.card, part)]
            one = _call(Role(part.id, able or role.agents), part, shape.policy, 0).expected.usage
            used, written = used + one, written + one.output_tokens
    return used


def guess(agent: Agent, task: Task, brief: Brief | None = None) -> Usage | None:
    """The most one call of an agent may use; None if it can't say."""
    try:
        return agent.estimate(task, brief or Brief())
    except Exception:  # noqa: BLE001  an agent's estimate may raise anything; `call` will say so
        return None


def _shape(graph: Any) -> Shape:
    found = getattr(getattr(graph, "builder", graph), "shape", None)
    if not isinstance(found, Shape):
        raise Misbuilt("nobody knows the shape of this graph: it is none of Kapelle's patterns")
    return found


def _call(role: Role, task: Task, policy: Policy, written: int) -> Forecast:
    """One call in a role: of all its agents, or of whichever of them it will be."""
    each = [_of_agent(agent, task, policy, written) for agent in role.agents]
    if role.all:
        return sum(each, Forecast())
    middle = sorted(each, key=lambda f: f.expected.usage.tokens)[len(each) // 2]
    least = min(each, key=lambda f: f.least.usage.tokens).least
    most = max(each, key=lambda f: f.most.usage.tokens).most
    return Forecast(least=least, expected=middle.expected, most=most)


def _silent(forecast: Forecast) -> Forecast:
    """The same without messages."""
    return Forecast.model_validate(
        {at: getattr(forecast, at).model_copy(update={"messages": 0}) for at in _RANGE}
    )


def _told(messages: int) -> Forecast:
    """Messages that no call goes with."""
    return Forecast().model_copy(update=dict.fromkeys(_RANGE, Volume(messages=messages)))


def _of_agent(agent: Agent, task: Task, policy: Policy, written: int) -> Forecast:
    agent = getattr(agent, "within", agent)
    rungs = rungs_of(agent, policy)
    if len(rungs) > 1:
        return _of_ladder(rungs, task, policy, written)
    inner = getattr(agent, "graph", None)
    if inner is not None and getattr(getattr(inner, "builder", None), "shape", None):
        return estimate(inner, task).team + _told(2)
    longest = agent.estimate(task, Brief()) if inner is None else Usage(calls=1)
    read, wrote = longest.input_tokens + written, longest.output_tokens
    once = (
        _used(agent, longest, read, 0),
        _used(agent, longest, read, wrote // LENGTH),
        _used(agent, longest, read, wrote),
    )
    least, expected, most = (Volume(usage=usage, messages=2) for usage in once)
    tries = policy.attempts
    return Forecast(
        least=least,
        expected=expected,
        most=most.times(tries).model_copy(update={"messages": 2}),
    )


def _of_ladder(rungs: Sequence[Agent], task: Task, policy: Policy, written: int) -> Forecast:
    """One call of an agent of several tiers: of confidences spread evenly, what is below climbs."""
    each = [_of_agent(agent, task, policy, written) for agent in rungs]
    likely = [f for at, f in enumerate(each) if policy.min_confidence**at >= 0.5]
    made = Forecast(
        least=each[0].least,
        expected=sum((f.expected for f in likely), Volume()),
        most=sum((f.most for f in each), Volume()),
    )
    return _silent(made) + _told(2)  # nobody but its caller hears of it


def _used(agent: Agent, longest: Usage, read: int, wrote: int) -> Usage:
    priced = getattr(agent, "usage", None)
    if callable(priced):
        return Usage.model_validate(priced(read, wrote))
    return longest.model_copy(update={"input_tokens": read, "output_tokens": wrote})
