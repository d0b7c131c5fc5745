"""The one door to agents: whatever an agent does, a typed result comes back.

    try ─┬─ result
     ▲   └─ pause: full jitter, or as the provider asks ─┬─ try      if it can help
     └───────────────────────────────────────────────────┴─ failure  else

`call` never raises for what an agent did. It lets LangGraph's own control flow through, so that an
interrupt of a nested graph surfaces. Retries are never nested: client libraries are told not to.
What a try is stands in `trying`; what pays for it in `paying`; what comes of its answer in
`answering`, of an error in `failing`; what is told of it in `telling`.
"""

import random
from collections.abc import Callable

from kapelle.nodes.agent import Agent
from kapelle.nodes.attempt import Outcome, Try
from kapelle.nodes.effect import Doing, Flaws
from kapelle.nodes.envelopes import envelopes
from kapelle.nodes.here import Here
from kapelle.nodes.trying import take
from kapelle.nodes.turns import Turns
from kapelle.state.policy import Policy, backoff
from kapelle.state.task import Brief, Failure, Result, Task, Tier, total_usage

Check = Flaws
"""The caller's own check of an output: each flaw a sentence, none if it is good."""


async def call(  # noqa: PLR0913 - what a call is, and limits with defaults
    agent: Agent,
    task: Task,
    brief: Brief,
    *,
    here: Here,
    policy: Policy,
    limit: Turns | None = None,
    check: Check | None = None,
    whole: Doing | None = None,
) -> Result:
    """Have an agent do a task.

    Args:
        agent: Who does it.
        task: What is to be done.
        brief: What the agent is given with it.
        here: The node that calls.
        policy: Budgets, limits of models, seconds, attempts, backoff, sizes.
        limit: A further limit on how many work at once; waited for at each attempt, by the task's
            priority. A graph needs no turn: its own agents do.
        check: What an output must pass beside the card's schema.
        whole: The call that this one is a part of, where an agent is a graph of its own calls.

    Returns:
        `done` or `waiting` (the agent turned to a person) with the output as plain JSON;
        `failed` with a `Failure`; or the result of a nested graph as it is.
    """
    agent = _at_tier(agent, task.tier)
    if ungated(agent, policy):
        return _ungated(agent, task)
    mine = Try(
        agent=agent,
        task=task,
        brief=brief.model_copy(update={"key": f"{here.step}/{task.id}"}),
        here=here,
        policy=policy,
        limit=limit,
        check=check,
        whole=whole,
        envelopes=envelopes(here, agent, task, policy),
    )
    most = 1 if mine.nested else policy.attempts
    while True:
        outcome = await take(mine)
        if outcome.result is not None:
            return outcome.result
        mine = _after(mine, outcome)
        pause = outcome.pause or _backoff(mine)
        if len(mine.before) >= most or not outcome.again or not _has_time(mine, pause):
            return _failed(mine)
        if not outcome.all_pause:
            await here.services.clock.sleep(pause)


def _at_tier(agent: Agent, tier: Tier | None) -> Agent:
    at: Callable[[Tier | None], Agent] | None = getattr(agent, "at", None)
    return agent if at is None else at(tier)


def _after(mine: Try, outcome: Outcome) -> Try:
    """The next try, after one that failed."""
    attempt, end, feedback = outcome.attempt, mine.end, mine.brief.feedback
    failure = attempt.failure
    assert failure is not None, "it has no result"
    if failure.kind == "unavailable" and mine.before:  # its breaker opened meanwhile
        return mine
    if not mine.before and mine.policy.task_timeout is not None:
        end = attempt.started + mine.policy.task_timeout
    if failure.kind == "invalid":
        feedback = (*feedback, failure.message)
    change = {"feedback": feedback, "attempt": attempt.number + 1}
    brief = mine.brief.model_copy(update=change)
    return mine._replace(brief=brief, before=(*mine.before, attempt), end=end)


def _backoff(mine: Try) -> float:
    """Seconds before it, drawn by lot."""
    number = len(mine.before)
    lot = random.Random(f"{mine.policy.seed}/{mine.here.step}/{mine.task.id}/{number}").random()
    return backoff(mine.policy, number, lot)


def _has_time(mine: Try, pause: float) -> bool:
    return mine.end is None or mine.now() + pause < mine.end


def _failed(mine: Try) -> Result:
    """What leaves when all tries so far failed, and no other can help."""
    tries = mine.before
    return Result(
        task=mine.task.id,
        status="failed",
        agent=mine.name,
        failure=tries[-1].failure,
        usage=total_usage(tries),
        attempts=tries,
    )


def ungated(agent: Agent, policy: Policy) -> bool:
    """Whether an agent has tools that need a gate, and none is around it (see `gated`)."""
    needs: Callable[[Policy], bool] | None = getattr(agent, "needs_gate", None)
    return needs is not None and needs(policy)


def _ungated(agent: Agent, task: Task) -> Result:
    name = agent.card.name
    why = f"{name} has tools with consequences, and nobody can be asked here: use gated({name}, …)"
    failure = Failure(kind="refused", message=why, agent=name)
    return Result(task=task.id, status="failed", agent=name, failure=failure)
