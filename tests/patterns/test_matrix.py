"""Each pattern within each: it works, it is stopped for a person and goes on, it fails and says so.

How each goes on when it is killed is in `test_killed.py`; what is special to one is in its own.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Agent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Escalation
from kapelle.state.ballot import Plurality
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")

Around = Callable[[Crew, Agent], Pattern]


def a_team(crew: Crew, agent: Agent) -> Pattern:
    """One part."""
    plan = crew.planner([task(f"{agent.card.name} part")], name=f"planner of {agent.card.name}")
    return manager_worker(plan=plan, workers=[agent], policy=QUICK)


def a_line(crew: Crew, agent: Agent) -> Pattern:
    """One stage."""
    return pipeline([agent], policy=QUICK)


def a_swarm(crew: Crew, agent: Agent) -> Pattern:
    """One peer."""
    return swarm([agent], rule=Plurality(), policy=QUICK)


def a_market(crew: Crew, agent: Agent) -> Pattern:
    """One contractor."""
    return marketplace([agent], policy=QUICK)


def a_chart(crew: Crew, agent: Agent) -> Pattern:
    """One team."""
    return hierarchy({"team": agent}, merge=lambda made: made["team"], policy=QUICK)


PATTERNS: list[Around] = [a_team, a_line, a_swarm, a_market, a_chart]

within = pytest.mark.parametrize("inner", PATTERNS, ids=lambda build: build.__name__)
around = pytest.mark.parametrize("outer", PATTERNS, ids=lambda build: f"in {build.__name__}")


def nested(crew: Crew, outer: Around, inner: Around, says: object) -> Pattern:
    """One within the other, and in that somebody who says this."""
    who: Any = crew.worker("who", anything=says)
    return outer(crew, as_agent(inner(crew, who), name="inner"))


def once(crew: Crew) -> bool:
    """Whether whoever works in there was called once."""
    return [name for name, _ in crew.by].count("who") == 1


@around
@within
async def test_what_is_made_deep_within_comes_out(
    crew: Crew, saver: Saver, outer: Around, inner: Around
) -> None:
    result = (await Run(nested(crew, outer, inner, "made"), saver).go()).result
    assert (result.status, result.output, once(crew)) == ("done", "made", True)


@around
@within
async def test_who_is_stopped_for_a_person_goes_on_and_nothing_is_done_twice(
    crew: Crew, saver: Saver, outer: Around, inner: Around
) -> None:
    run = await Run(nested(crew, outer, inner, ASK), saver).go()
    assert len(run.asks) == 1
    result = (await run.answer()).result
    assert (result.status, result.output, once(crew)) == ("done", "a thought", True)


@around
@within
async def test_what_fails_deep_within_is_a_state_that_says_why(
    crew: Crew, memory: Saver, outer: Around, inner: Around
) -> None:
    result = (await Run(nested(crew, outer, inner, ValueError("no way")), memory).go()).result
    assert result.status in ("failed", "partial")
    assert "no way" in result.model_dump_json()
