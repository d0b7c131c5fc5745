"""Agents: who can act. The port, and the two kinds that need no model: a function, a graph."""

import functools
import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import anyio
import anyio.to_process
from pydantic import BaseModel

from kapelle.nodes import door, elsewhere
from kapelle.nodes.patience import patience
from kapelle.nodes.threads import in_thread
from kapelle.state.budget import Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Result, Task, Tier

if TYPE_CHECKING:  # worker processes import agents, and need no LangGraph
    from langgraph.graph import StateGraph

Where = Literal["loop", "thread", "process", "graph"]
"""Where an agent works: on the event loop, in a thread, in a worker process, as a nested graph."""


_HowBrief = Literal["by name", "second", "not"]
"""How a function takes its brief."""

_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


_ONE = Usage(calls=1)


class Agent(Protocol):
    """Who can act. Only `call` calls it.

    `act` may return anything JSON-able, a pydantic model, a `Reply`, an `Escalation` or a `Result`;
    what it raises becomes a `Failure`.
    """

    @property
    def card(self) -> AgentCard:
        """What the agent says of itself."""
        ...

    @property
    def where(self) -> Where:
        """Where it works."""
        ...

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """The most one try may use."""
        ...

    async def act(self, task: Task, brief: Brief) -> object:
        """Do the task once."""
        ...


def may_ask(agent: Agent) -> bool:
    """Whether a person may be asked before it has a result: a graph may do that."""
    return agent.where == "graph" and bool(getattr(agent, "asks", True))


def rungs_of(agent: Agent, policy: Policy) -> Sequence[Agent]:
    """Who works in the place of one agent, the cheapest first; only it, if it has no tiers."""
    rungs: Callable[[Policy], Sequence[Agent]] | None = getattr(agent, "rungs", None)
    return [agent] if rungs is None else rungs(policy)


class Unusable(Exception):
    """An agent got an answer that can't be used: it is tried again and told why."""

    def __init__(self, why: str, usage: Usage | None = None, model: str = "") -> None:
        super().__init__(why)
        self.usage = usage or Usage()
        self.model = model


class FunctionAgent:
    """A Python function as an agent; still callable as the function it is."""

    def __init__(self, function: Callable[..., Any], card: AgentCard, *, cpu: bool = False) -> None:
        self.function = function
        self.card = card
        self._brief: _HowBrief = _brief_of(function)
        self.where: Where = (
            "loop"
            if _is_async(function)
            else "process"
            if cpu and _can_travel(function)
            else "thread"
        )
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<agent {self.card.name}>"

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """One call; a function uses no tokens unless its `Reply` says so."""
        return _ONE

    async def act(self, task: Task, brief: Brief) -> object:
        """Call the function: never on the event loop's thread unless it is async."""
        given, named = _given(self._brief, task, brief), _named(self._brief, brief)
        if self.where == "loop":
            return await self.function(*given, **named)
        if self.where == "process":
            return await _in_process(elsewhere.address(self.function), given, named)
        work = functools.partial(_answered, self.function, given, named)
        return await in_thread(work)


@overload
def agent(function: Callable[..., Any], /) -> FunctionAgent: ...
@overload
def agent(
    *,
    name: str | None = None,
    skills: Sequence[str] = (),
    description: str | None = None,
    output: type[BaseModel] | None = None,
    tier: Tier = "standard",
    cpu: bool = False,
    price: int | None = None,
    seconds: float | None = None,
    confidence: float | None = None,
) -> Callable[[Callable[..., Any]], FunctionAgent]: ...
def agent(  # noqa: PLR0913 - what a card says, each with a default
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    skills: Sequence[str] = (),
    description: str | None = None,
    output: type[BaseModel] | None = None,
    tier: Tier = "standard",
    cpu: bool = False,
    price: int | None = None,
    seconds: float | None = None,
    confidence: float | None = None,
) -> Any:
    """Make a function an agent.

    The function gets the `Task`, and the `Brief` as well if it takes a second parameter. Sync
    functions run in a thread, with `cpu=True` in a worker process (functions that can't be sent
    there, like a notebook's, in a thread). Outputs are validated against `output`. `price` (of one
    task, in millionths of a US dollar), `seconds` and `confidence` are what it bids in a market.
    """

    def made(function: Callable[..., Any]) -> FunctionAgent:
        if isinstance(skills, str):
            raise Misbuilt(f"skills of {name or _name(function)} must be a list, like [{skills!r}]")
        card = AgentCard(
            name=name or _name(function),
            skills=tuple(skills),
            description=description or inspect.getdoc(function) or "",
            output=output,
            tier=tier,
            price=price,
            seconds=seconds,
            confidence=confidence,
        )
        return FunctionAgent(function, card, cpu=cpu)

    return made if function is None else made(function)


class GraphAgent:
    """A whole graph as an agent: its `{"task": …}` in, its `{"result": …}` out."""

    where: Where = "graph"

    def __init__(self, graph: "StateGraph[Any, Any, Any, Any]", card: AgentCard) -> None:
        self.card = card
        self.graph = graph.compile(name=card.name)

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, a graph>"

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """Nothing of its own: the agents inside reserve for themselves."""
        return Usage()

    async def act(self, task: Task, brief: Brief) -> Result:
        """Run the graph within the node that calls it: same thread, its own namespace.

        It finds what else is in the brief in its task's `inputs`: `results` by task, `feedback`,
        and `messages` that were written to it.
        """
        given = {key: result.output for key, result in brief.results.items()}
        inputs = {**task.inputs, "results": given} if given else task.inputs
        if brief.feedback:
            inputs = {**inputs, "feedback": list(brief.feedback)}
        if brief.messages:
            inputs = {**inputs, "messages": [m.told() for m in brief.messages]}
        final = await self.graph.ainvoke({"task": task.model_copy(update={"inputs": inputs})})
        return Result.model_validate(final["result"])


def as_agent(
    graph: "StateGraph[Any, Any, Any, Any]",
    *,
    name: str,
    skills: Sequence[str] = (),
    description: str = "",
) -> GraphAgent:
    """Make a graph an agent, so that it fits any agent slot of another pattern."""
    return GraphAgent(graph, AgentCard(name=name, skills=tuple(skills), description=description))


def _answered(
    function: Callable[..., Any], given: tuple[object, ...], named: dict[str, object]
) -> object:
    """Call a function in its thread, and say when it has answered."""
    try:
        return function(*given, **named)
    finally:
        waits = patience.get()
        if waits is not None:
            waits.answered()


def _brief_of(function: Callable[..., Any]) -> _HowBrief:
    signature = inspect.signature(function)
    named = signature.parameters.get("brief")
    placed = [p for p in signature.parameters.values() if p.kind in _PLACED]
    how: _HowBrief = "not"
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        how = "by name"
    elif placed[1:] and placed[1].default is inspect.Parameter.empty:
        how = "second"
    try:
        signature.bind(*_given(how, 0, 0), **_named(how, 0))
    except TypeError as error:
        name = _name(function)
        raise Misbuilt(
            f"agent {name} must take the task, and may take the brief as well, like "
            f"def {name}(task, brief): {error}"
        ) from None
    return how


def _given(how: _HowBrief, task: object, brief: object) -> tuple[object, ...]:
    return (task, brief) if how == "second" else (task,)


def _named(how: _HowBrief, brief: object) -> dict[str, object]:
    return {"brief": brief} if how == "by name" else {}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


async def _in_process(
    place: elsewhere.Address, given: tuple[object, ...], named: dict[str, object]
) -> object:
    """In a worker process of the door's loop, which lives as long as this process.

    anyio ends worker processes with the task that is the root of their loop; a notebook's loop has
    none, and the first node that finished would take the workers of all others with it.
    """
    if door.inside():
        return await _sent(place, given, named)
    doing = door.begin(_sent(place, given, named))
    try:
        return await in_thread(doing.result)
    finally:
        doing.cancel()


async def _sent(
    place: elsewhere.Address, given: tuple[object, ...], named: dict[str, object]
) -> object:
    try:
        return await anyio.to_process.run_sync(
            elsewhere.perform, place, given, named, cancellable=True
        )
    except anyio.BrokenWorkerProcess as error:
        if isinstance(error.__cause__, Misbuilt):
            raise error.__cause__ from error
        raise RuntimeError(f"its worker process died: {error.__cause__ or error}") from error


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(function, "__call__", None)  # noqa: B004  an object with an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _can_travel(function: Callable[..., Any]) -> bool:
    try:
        pickle.dumps(elsewhere.address(function))
    except elsewhere.NoAddress:
        return False
    return True
