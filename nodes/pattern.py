"""A pattern: LangGraph's own `StateGraph`, whose compiled form can be invoked sync as well."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from types import FunctionType
from typing import Any, Self, TypedDict

from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.config import get_config
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel.protocol import PregelProtocol
from langgraph.runtime import RunControl

from kapelle.nodes import door
from kapelle.nodes.agent import Agent
from kapelle.nodes.board import close_all
from kapelle.nodes.climbing import climbing
from kapelle.nodes.estimating import Shape
from kapelle.nodes.latecomers import dismiss
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Task


class Given(TypedDict):
    """What goes into every pattern."""

    task: Task


class Finished(TypedDict):
    """What leaves every pattern."""

    result: Result


STEPS = 1_000
"""Super-steps after which LangGraph stops a graph that does not end, if it does not need more."""


class CompiledPattern(CompiledStateGraph[Any, Any, Any, Any]):
    """LangGraph's compiled graph; `invoke` and `stream` go through the one door to async."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """`ainvoke` for sync callers, inside a running event loop as well."""
        return door.wait(self.ainvoke(input, config, **kwargs))

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """`astream` for sync callers, inside a running event loop as well."""
        return door.each(aiter(self.astream(input, config, **kwargs)))

    async def astream(
        self, input: Any, config: Any = None, *, control: RunControl | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """LangGraph's `astream`; forgets the boards of the run, also of one that waits.

        Who is still at work then, though nobody waits for it, is stopped.
        """
        own = control or (None if _nested() else RunControl())
        try:
            async for chunk in super().astream(input, config, control=own, **kwargs):
                yield chunk
        finally:
            if own is not None:
                close_all(own)
                await dismiss(own)


class Pattern(StateGraph[Any, Any, Any, Any]):
    """An uncompiled graph of agents."""

    shape: Shape | None = None
    """Who is called how often; what an estimate is made of."""

    steps: int = STEPS
    """Super-steps it may take."""

    def add_node(self, *given: Any, **named: Any) -> Self:
        """LangGraph's `add_node`; a node of ours is not taken apart each time it is compiled."""
        before = set(self.nodes)
        super().add_node(*given, **named)
        for name in self.nodes.keys() - before:
            _close(self.nodes[name].runnable)
        return self

    def keep_changes(self, *names: str) -> None:
        """Store of these folded channels what is added to them, not the whole at each step."""
        for name in names:
            whole = self.channels[name]
            assert isinstance(whole, BinaryOperatorAggregate), f"{name} has no reducer"
            self.channels[name] = DeltaChannel(_all(whole.operator), whole.typ)

    def compile(self, *args: Any, **kwargs: Any) -> CompiledPattern:
        """LangGraph's `compile`, with a limit on steps and a sync `invoke`."""
        plain = super().compile(*args, **kwargs)
        compiled = CompiledPattern.__new__(CompiledPattern)
        vars(compiled).update(vars(plain))
        compiled.config = {"recursion_limit": self.steps, **(plain.config or {})}
        return compiled


def remembered(name: str | list[str]) -> Any:
    """What the graph of the present node remembers, where it was not sent along."""
    return get_config()["configurable"]["__pregel_read"](name)


def _all(fold: Callable[[Any, Any], Any]) -> Callable[[Any, Sequence[Any]], Any]:
    def fold_all(old: Any, new: Sequence[Any]) -> Any:
        return reduce(fold, new, old)

    return fold_all


def _close(runnable: Any) -> None:
    """Keep LangGraph from disassembling a node to find graphs in it: most of what `compile` takes.

    Ours hold theirs in their closures or have none. Whoever else's function it is stays as it is.
    """
    for kind in ("func", "afunc"):
        work = getattr(runnable, kind, None)
        if isinstance(work, FunctionType) and _holds_no_graph(work):
            setattr(runnable, kind, partial(work))


def _holds_no_graph(work: FunctionType) -> bool:
    cells = [cell.cell_contents for cell in work.__closure__ or ()]
    held = [getattr(cell, "__self__", cell) for cell in cells]  # a graph's own `invoke` as well
    ours = work.__module__.startswith("kapelle.")
    return ours and not any(isinstance(one, PregelProtocol) for one in held)


def _nested() -> bool:
    try:
        get_config()
    except RuntimeError:
        return False
    return True


def must_be_agent(given: Agent) -> Agent:
    """What was given, if it is an agent.

    Raises:
        Misbuilt: when it is none.
    """
    if getattr(getattr(given, "card", None), "name", None) is None:
        raise Misbuilt(f"{given!r} is no agent; make it one with @agent or as_agent(graph, name=…)")
    return given


def must_be_node(name: str, reserved: Iterable[str]) -> str:
    """A name, if a node can have it.

    Raises:
        Misbuilt: when the graph needs it itself, or LangGraph does not allow it.
    """
    if name in set(reserved) or name.startswith("__") or "|" in name or ":" in name:
        raise Misbuilt(f"an agent can't be called {name!r} here; the graph needs that name itself")
    return name


def must_be_silent(policy: Policy, pattern: str, why: str) -> Policy:
    """A policy for agents that do not write to each other.

    Raises:
        Misbuilt: when it has channels.
    """
    if policy.channels:
        raise Misbuilt(
            f"a {pattern} has no channels: {why}; leave `channels` out of its policy, and put "
            "agents that are to write to each other in a manager_worker or a pipeline"
        )
    return policy


def seated(given: Agent, policy: Policy) -> Agent:
    """What was given as it works in a graph: tier by tier, with a gate for tools that need one.

    Raises:
        Misbuilt: when it is no agent.
    """
    return climbing(must_be_agent(given), policy)


def by_name(
    agents: Iterable[Agent], reserved: Iterable[str], policy: Policy | None = None
) -> Mapping[str, Agent]:
    """Agents by the names their nodes will have, each `seated` under the policy.

    Raises:
        Misbuilt: when there are none, or a name is taken twice, reserved, or none LangGraph allows.
    """
    named: dict[str, Agent] = {}
    for agent in agents:
        name = must_be_agent(agent).card.name
        if name in named:
            raise Misbuilt(f"two agents are called {name!r}; a name belongs to one")
        named[must_be_node(name, reserved)] = seated(agent, policy or Policy())
    if not named:
        raise Misbuilt("there is no agent to do the work; give at least one")
    return named
