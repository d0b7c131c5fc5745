"""What a try is: one agent, once, at one task; and what came of it."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple

from kapelle.nodes.agent import Agent
from kapelle.nodes.effect import Doing, Flaws
from kapelle.nodes.here import Here
from kapelle.nodes.turns import Turns
from kapelle.state.budget import Envelope, Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Attempt, Brief, Failure, Reply, Result, Task

NOTHING, ONE = Usage(), Usage(calls=1)

FREE = nullcontext()
"""Where nobody need wait."""

_UNTOLD = Reply().usage


class Try(NamedTuple):
    """One agent, once, at one task."""

    agent: Agent
    task: Task
    brief: Brief
    here: Here
    policy: Policy
    limit: Turns | None
    """On how many work at once."""
    check: Flaws | None
    """What an output must pass beside the card's schema."""
    whole: Doing | None
    """The call that this one is a part of, where an agent is a graph: they have their effects in
    common."""
    envelopes: tuple[Envelope, ...]
    """What it is paid from, outermost first."""
    before: tuple[Attempt, ...] = ()
    """The tries before it."""
    end: float | None = None
    """When the time of all tries together is up, as Unix time in seconds."""

    @property
    def name(self) -> str:
        """The agent's."""
        return self.agent.card.name

    @property
    def nested(self) -> bool:
        """Whether the agent is a graph, whose own agents are tried, guarded and paid for."""
        return self.agent.where == "graph"

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """A turn among those who work at once; a graph needs none: its own agents do."""
        if self.limit is None or self.nested:
            return FREE
        return self.limit.at(self.task.priority)

    @property
    def doing(self) -> Doing:
        """What its agent's code is told of it."""
        whole, task = self.whole, self.task.id
        scope = whole.scope if whole else f"{self.here.run}/{self.here.place}/{task}"
        return Doing(self.here, task, self.name, scope, self.check, self.limit)

    def now(self) -> float:
        """Unix time in seconds."""
        return self.here.services.clock.now()

    def attempt(
        self, started: float, usage: Usage, failure: Failure | None = None, model: str = ""
    ) -> Attempt:
        """The record of it."""
        return Attempt(
            agent=self.name,
            number=self.brief.attempt,
            started=started,
            seconds=self.now() - started,
            usage=usage,
            model=model,
            failure=failure,
        )


class Outcome(NamedTuple):
    """What came of a try."""

    attempt: Attempt
    result: Result | None = None
    """What it gave; None if it failed."""
    again: bool = False
    """Whether another try can help."""
    pause: float = 0.0
    """Seconds the provider asks to wait before it."""
    all_pause: bool = False
    """Whether all who use the model wait for it to be over, this one with them."""


def counted(usage: Usage) -> Usage:
    """What a reply says it used: one call at least."""
    if usage is _UNTOLD:
        return ONE
    return usage if usage.calls else usage.model_copy(update={"calls": 1})
