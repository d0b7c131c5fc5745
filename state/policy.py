"""The limits of a run: one frozen object, the same for every pattern."""

from typing import Literal

from pydantic import Field

from kapelle.state.budget import Budget
from kapelle.state.message import Channel
from kapelle.state.noun import Noun
from kapelle.state.rate import Limits


class Policy(Noun):
    """Every limit has a default; nothing is unbounded."""

    budget: Budget = Budget()
    """Of the run; in a nested graph its own, which comes out of those around it."""
    per_task: Budget = Budget()
    """Of each task that an agent is called for, all its tries together."""
    per_agent: Budget = Budget()
    """Of each agent, all its tasks of this graph together."""
    budget_wait: float = Field(default=600.0, ge=0)
    """Seconds a call waits for room in a budget that running calls may leave."""
    on_budget: Literal["partial", "ask"] = "partial"
    """When a budget is exhausted: end with what is finished, or ask a person for more."""
    ask_above: Budget = Budget()
    """Ask a person before a graph begins what is expected to use more (a team once it has a plan),
    and before an award that costs more. Seconds are not looked at."""
    models: dict[str, Limits] = Field(default_factory=dict)
    """Limits of each model, like `openai:gpt-4o`, that all agents of the process share; `*` holds
    for every other model."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds one attempt of one agent may take; time spent waiting for a person does not count."""
    task_timeout: float | None = Field(default=None, gt=0)
    """Seconds one call of an agent may take with all its tries and the pauses between; None is no
    limit but `timeout` times `attempts`."""
    attempts: int = Field(default=3, ge=1)
    """Tries of one agent at one task."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the second try at most; doubles with each further one (full jitter)."""
    backoff_cap: float = Field(default=30.0, ge=0)
    """Seconds between tries at most."""
    agents_per_task: int = Field(default=3, ge=1)
    """Different agents that may fail at a task before the breaker trips: nobody else tries. 1: only
    one tries, and there is no such breaker."""
    breaker_window: int = Field(default=20, ge=0)
    """Last calls of an agent that its breaker looks at; 0 is no breaker."""
    breaker_share: float = Field(default=0.5, gt=0, le=1)
    """Share of that window which, failed, opens the breaker: the agent is left alone. An agent that
    fails one call in five by chance is so sick in .0026 of the windows (binomial, 10 of 20), and
    then left alone until a probe; where agents fail often and nobody else fits, set it higher."""
    breaker_probe: float = Field(default=10.0, gt=0)
    """Seconds until an agent that is left alone gets one call, to see whether it is well again."""
    rounds: int = Field(default=2, ge=0)
    """Times a judge may send work back."""
    stalls: int = Field(default=1, ge=0)
    """Rounds in a row that may bring nothing new; one more, and the plan is made anew or a person
    is asked."""
    replans: int = Field(default=0, ge=0)
    """Times a plan may be made anew, because subtasks were lost or the work stalled."""
    parallel: int = Field(default=50, ge=1)
    """Agents at work at once in one step of one graph."""
    max_tasks: int = Field(default=5_000, ge=1)
    """Subtasks in one plan, items in one stream."""
    max_votes: int = Field(default=200, ge=1)
    """Votes a swarm may ask for in one round."""
    look_back: int = Field(default=50, ge=0)
    """Earlier stages of a line whose results a stage is given: so many, the last ones."""
    max_leaves: int = Field(default=100_000, ge=1)
    """Items a tree may have."""
    max_branching: int = Field(default=100, ge=2)
    """Children of one manager, where a tree chooses their number itself."""
    redos: int = Field(default=1, ge=0)
    """Times a branch of a tree that failed is done anew."""
    max_bytes: int = Field(default=8_000_000, ge=1)
    """Bytes of one reply as JSON."""
    max_input_bytes: int = Field(default=32_000_000, ge=1)
    """Bytes of what an agent is given, as JSON: the task's inputs and the results it builds on."""
    max_depth: int = Field(default=100, ge=1, le=200)
    """Lists and objects within each other, in what an agent is given or gives."""
    max_nesting: int = Field(default=8, ge=1)
    """Graphs within each other."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """A reply below it goes up the ladder: to the next tier; then to a judge, where a team, a gate
    or a market has one, whose score becomes its confidence and who decides; then to a person. A
    reply that names no confidence is let through."""
    approve_tools: tuple[str, ...] = ()
    """Tools that models call only once a person has approved the call: names, or patterns like
    `send_*`; beside those marked `consequential(approve=True)`."""
    approve_plan: bool = False
    """Show every plan to a person before work starts."""
    on_failure: Literal["breaker", "partial", "ask"] = "breaker"
    """What nobody could do, in every pattern: ask a person if as many different agents failed at it
    as may (`agents_per_task`), and else go on without it; always go on without it; always ask. A
    stage of a pipeline and a leaf of a tree have one agent, whose failure alone trips no breaker.
    """
    worth: int = Field(default=1_000_000, ge=0)
    """What a task done well is worth, in millionths of a US dollar: what a market weighs the
    chance of it against price and time with."""
    cost_of_second: int = Field(default=100, ge=0)
    """What a market reckons a second of work to cost, in millionths of a US dollar."""
    max_price: int | None = Field(default=None, ge=0)
    """The most a bid may ask, in millionths of a US dollar; a dearer one does not count."""
    trust: float = Field(default=2.0, gt=0)
    """How many measured outcomes the confidence that a bidder names counts for."""
    decay: float = Field(default=0.95, gt=0, le=1)
    """How much each outcome of an agent counts, compared with its next one."""
    reviews: int = Field(default=1, ge=0)
    """Times a team may do tasks again because what they relied on does not stand; then they are
    flagged. Where work is not merged by a team, they are flagged at once."""
    on_contradiction: Literal["ask", "show"] = "ask"
    """A contradiction neither rule nor judge can settle: ask a person, or leave it open in the
    result."""
    context_tokens: int = Field(default=4_000, ge=100)
    """Tokens of the master context in one brief (bytes / 3); hard constraints come in any case."""
    max_decisions: int = Field(default=10_000, ge=0)
    """Decisions, and open questions, that one master context holds; a further one is left out of
    it, and the journal says so. What is decided already can change all the same."""
    channels: tuple[Channel, ...] = ()
    """Which agents of a team, or of a pipeline's stages, may write to each other; none, if nothing
    is said. Other patterns refuse any."""
    on_messages: Literal["partial", "ask"] = "partial"
    """When the limit of a channel is reached: go on without the messages it does not carry and end
    with what is finished, or ask a person whether it may carry them."""
    seed: int = 0
    """Seeds whatever is drawn by lot, like jitter."""


def backoff(policy: Policy, attempt: int, lot: float) -> float:
    """Seconds to wait after failed attempt `attempt` (from 1), with `lot` drawn from [0, 1).

    Full jitter: uniform on [0, min(cap, base * 2^(attempt-1))] (M. Brooker, Exponential Backoff
    And Jitter, 2015).
    """
    return lot * min(policy.backoff_cap, policy.backoff * 2.0 ** min(attempt - 1, 1000))
