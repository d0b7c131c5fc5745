"""The limits of a run: one frozen object, the same for every pattern."""

from typing import Literal

from pydantic import Field

from kapelle.state.budget import Budget
from kapelle.state.noun import Noun


class Policy(Noun):
    """Every limit has a default; nothing is unbounded."""

    budget: Budget = Budget()
    timeout: float = Field(default=120.0, gt=0)
    """Seconds one attempt of one agent may take; time spent waiting for a person does not count."""
    attempts: int = Field(default=3, ge=1)
    """Tries of one agent at one task."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the second try at most; doubles with each further one (full jitter)."""
    backoff_cap: float = Field(default=30.0, ge=0)
    """Seconds between tries at most."""
    agents_per_task: int = Field(default=2, ge=1)
    """Different agents that may fail at a task before it is given up or a person is asked."""
    rounds: int = Field(default=2, ge=0)
    """Times a judge may send work back."""
    replans: int = Field(default=0, ge=0)
    """Times a plan may be made anew because subtasks were lost."""
    parallel: int = Field(default=50, ge=1)
    """Agents at work at once in one step of one graph."""
    max_tasks: int = Field(default=5_000, ge=1)
    """Subtasks in one plan."""
    max_bytes: int = Field(default=8_000_000, ge=1)
    """Bytes of one reply as JSON."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """A reply below it goes to a person."""
    approve_plan: bool = False
    """Show every plan to a person before work starts."""
    on_failure: Literal["partial", "ask"] = "partial"
    """A subtask nobody could do: go on without it, or ask a person."""
    seed: int = 0
    """Seeds whatever is drawn by lot, like jitter."""


def backoff(policy: Policy, attempt: int, lot: float) -> float:
    """Seconds to wait after failed attempt `attempt` (from 1), with `lot` drawn from [0, 1).

    Full jitter: uniform on [0, min(cap, base * 2^(attempt-1))] (M. Brooker, Exponential Backoff
    And Jitter, 2015).
    """
    return lot * min(policy.backoff_cap, policy.backoff * 2.0 ** min(attempt - 1, 1000))
