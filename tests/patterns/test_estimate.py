"""What a run will use, before it has begun."""

import math
from typing import Any

import pytest

from kapelle import estimate
from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import Where, as_agent
from kapelle.state.ballot import AheadBy, Judged, LogOdds, Plurality, expected_votes
from kapelle.state.budget import Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Task
from kapelle.state.tree import managers_of
from tests.patterns.conftest import Saver
from tests.patterns.simulated import Crew, Run

pytestmark = pytest.mark.anyio


class Writer:
    """Reads a hundred tokens, writes at most four hundred, at a micro-dollar a token."""

    where: Where = "loop"

    def __init__(self, name: str) -> None:
        self.card = AgentCard(name=name)

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """The most it may use."""
        return self.usage(100, 400)

    def usage(self, read: int, wrote: int) -> Usage:
        """What so many tokens are."""
        return Usage(input_tokens=read, output_tokens=wrote, calls=1, micro_usd=read + wrote)

    async def act(self, task: Task, brief: Brief) -> object:
        """Never, here."""
        raise AssertionError("an estimate calls nobody")


MANY = Task(goal="all", inputs={"tasks": [*"abcdefghij"]})
TEN = Task(goal="all", inputs={"items": [*"abcdefghij"]})


def test_a_team_is_estimated_from_its_roles_and_the_number_of_items() -> None:
    roles: Any = {role: Writer(role) for role in ("plan", "synthesize", "judge")}
    policy = Policy(attempts=2, agents_per_task=2, rounds=1, replans=1)
    found = estimate(manager_worker(workers=[Writer("w")], policy=policy, **roles), TEN)
    least, expected, most = found.team.least, found.team.expected, found.team.most
    assert (least.usage.calls, expected.usage.calls, least.messages) == (13, 13, 26)
    assert most.usage.calls == 2 * (2 + 10 * 2 + 2 + 2), "every retry, replan and round"
    assert least.usage.output_tokens == 0
    assert expected.usage.output_tokens == 13 * 100
    assert expected.usage.input_tokens == 13 * 100 + 2 * 10 * 100, "merged and judged"
    alone = found.alone.expected.usage
    assert (alone.calls, alone.input_tokens, alone.output_tokens) == (10, 1000, 1000)
    assert found.alone.expected.messages == 0
    assert expected.usage.micro_usd == expected.usage.tokens
    assert found.coordination == pytest.approx(2.3)


def test_items_go_through_every_stage_and_nested_graphs_count_what_is_in_them() -> None:
    inner = as_agent(pipeline([Writer("a"), Writer("b")]), name="inner")
    found = estimate(pipeline([inner, Writer("c")]), TEN)
    assert found.team.expected.usage.calls == 10 * (2 * 10 + 1)
    assert found.roles["inner"].expected.messages == 10 * (2 * 20 + 2)


def test_a_tree_is_estimated_with_all_its_managers() -> None:
    roles: Any = {role: Writer(role) for role in ("merge", "manager")}
    found = estimate(hierarchy(Writer("leaf"), branching=3, policy=Policy(), **roles), TEN)
    managers = managers_of(10, 3)
    assert found.team.expected.usage.calls == 10 + 2 * managers
    assert found.alone.expected.usage.calls == 10
    plain = estimate(hierarchy({"a": Writer("a"), "b": Writer("b")}, merge=sum), TEN)
    assert plain.team.expected.usage.calls == 2


async def test_a_market_is_estimated_with_its_bids(crew: Crew, memory: Saver) -> None:
    agents, bids = [Writer("ann"), Writer("bob")], {"ann": Writer("estimator")}
    found = estimate(marketplace(agents, bids=bids, judge=Writer("judge")), MANY)
    assert found.team.expected.usage.calls == 10 * (1 + 1 + 1)
    assert found.roles["bid"].expected.messages == 10 * (2 + 2 + 1)
    run = await Run(marketplace([crew.worker("ann"), crew.worker("bob")]), memory).go()
    said = [e for e in await run.events() if e.kind == "message"]
    card = estimate(marketplace([Writer("ann"), Writer("bob")]), Task(goal="all"))
    expected = card.team.expected
    assert (len(said), run.result.usage.calls) == (expected.messages, expected.usage.calls)


def test_a_plurality_may_stop_early() -> None:
    peers = [Writer(name) for name in "abcde"]
    found = estimate(swarm(peers, rule=Plurality()), Task(goal="all")).team
    assert (found.least.usage.calls, found.expected.usage.calls) == (3, 5)
    judged = estimate(swarm(peers, rule=Judged(), judge=Writer("j")), Task(goal="all")).team
    assert judged.least.usage.calls == 6


def test_votes_are_estimated_by_the_rule_and_how_often_peers_are_right() -> None:
    peers = [Writer(name) for name in "abc"]
    policy = Policy(max_votes=50)
    found = estimate(swarm(peers, rule=AheadBy(k=3), policy=policy), Task(goal="all")).team
    calls = [getattr(found, at).usage.calls for at in ("least", "expected", "most")]
    assert calls == [3, 50, 50 * policy.attempts], "nobody knows how often they are right"
    for peer in peers:
        peer.card = peer.card.model_copy(update={"confidence": 0.8})
    known = estimate(swarm(peers, rule=AheadBy(k=3), policy=policy), Task(goal="all")).team
    assert known.expected.usage.calls == math.ceil(expected_votes(0.8, 3)) == 5
    counted = estimate(swarm(peers, rule=Plurality()), Task(goal="all")).team
    assert counted.expected.usage.calls == 3, "2.32 of three that are right in 8 of 10"
    odds = LogOdds(accuracy={"a": 0.99, "b": 0.6, "c": 0.6})
    weighed = estimate(swarm(peers, rule=odds), Task(goal="all")).team
    calls = [getattr(weighed, at).usage.calls for at in ("least", "expected", "most")]
    assert calls == [1, 1, 3 * Policy().attempts], "nobody can change what the first says"


def test_a_graph_nobody_knows_the_shape_of_is_refused() -> None:
    with pytest.raises(Misbuilt, match="nobody knows the shape"):
        estimate(object(), TEN)
