"""No peer that waits for a person holds up another's vote, nor a decision it can't change."""

from itertools import permutations

import pytest
from langgraph.types import Command

from kapelle.graphs import manager_worker, pipeline, swarm
from kapelle.nodes.agent import Agent, GraphAgent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Approval, Escalation
from kapelle.state.ballot import AheadBy, Borda, Judged, LogOdds, Plurality, Rule
from kapelle.state.policy import Policy
from kapelle.state.task import Task
from kapelle.state.verdict import Preference
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="x")


def line(crew: Crew, name: str, *answers: object) -> GraphAgent:
    """A graph as a peer: what it answers each time; within it, it may turn to a person."""
    stages = [crew.worker(f"{name} first"), crew.worker(f"{name} last", anything=[*answers])]
    return as_agent(pipeline(stages, policy=QUICK), name=name)


def vote(
    *peers: Agent, rule: Rule | None = None, rounds: int = 0, policy: Policy = QUICK
) -> Pattern:
    """By plurality, if nothing else is said."""
    return swarm(peers, rule=rule or Plurality(), rounds=rounds, policy=policy)


def plain(crew: Crew, **said: object) -> list[Agent]:
    """Peers that are no graphs, by name."""
    return [crew.worker(name, anything=answer) for name, answer in said.items()]


def in_turn(*answers: object) -> object:
    """What a peer says the first, the second, … time, in whatever slot."""
    left = list(answers)

    async def say() -> object:
        return left.pop(0)

    return say


async def asked(run: Run) -> list[list[str]]:
    """The slots of each wave, in the order of asking."""
    return [e.data["due"] for e in await run.events() if e.what == "asked" and "due" in e.data]  # type: ignore[misc]


async def test_a_vote_ends_without_who_waits_for_a_person_if_it_can_change_nothing(
    crew: Crew, everywhere: Saver
) -> None:
    graph = vote(line(crew, "a", ASK), *plain(crew, b="x", c="x", d="x", e="y"))
    run = await Run(graph, everywhere).go()
    assert (run.result.status, run.result.output) == ("done", "x")
    assert await asked(run) == [["a/1", "b/2", "c/3"], ["d/4"]], "nobody is asked in vain"
    assert ("waiting", "a/1") in [(e.what, e.task) for e in await run.events()]


async def test_all_others_have_voted_before_a_person_is_asked_within_a_graph(
    crew: Crew, everywhere: Saver
) -> None:
    graph = vote(line(crew, "a", ASK), *plain(crew, b="x", c="y", d="y", e="x"))
    run = await Run(graph, everywhere).go()
    assert set(run.asks) == {"a last"}
    assert [crew.did[slot] for slot in ("b/2", "c/3", "d/4", "e/5")] == [1, 1, 1, 1]
    run = await run.answer(decision="edit", value="y")
    assert (run.result.status, run.result.output, run.result.confidence) == ("done", "y", 0.6)
    assert set(crew.did.values()) == {1}, "nobody votes twice"
    assert run.result.usage.calls == crew.calls


@pytest.mark.parametrize("order", list(permutations(["a last", "b last"])))
async def test_what_a_person_wants_again_of_one_peer_waits_for_no_other(
    crew: Crew, saver: Saver, order: tuple[str, ...]
) -> None:
    graphs = [line(crew, "a", ASK, "x"), line(crew, "b", ASK, "x")]
    run = await Run(vote(*graphs, *plain(crew, c="y", d="x")), saver).go()
    assert set(run.asks) == {"a last", "b last"}
    for n, name in enumerate(order, 1):
        await run.answer(name, decision="respond", value="think")
        assert crew.did[name] == 2, "the first answer, and the second"
        assert len(run.final.get("__interrupt__", [])) == 2 - n
    assert (run.result.output, run.result.usage.calls) == ("x", crew.calls)


async def test_a_peer_votes_again_while_another_waits_for_a_person(
    crew: Crew, saver: Saver
) -> None:
    graph = vote(*plain(crew, a=[ASK, ASK, "x"], b=ASK, c="y", d="x"))
    run = await Run(graph, saver).go()
    assert set(run.asks) == {"a/1", "b/2"}
    await run.answer("a/1", decision="respond", value="think")
    assert set(run.asks) == {"a/1", "b/2"}, "it turned to a person once more"
    await run.answer("a/1", decision="respond", value="think again")
    assert set(run.asks) == {"b/2"}
    assert crew.briefs["a/1"][2].feedback == ("ann says: think", "ann says: think again")
    assert (await run.answer()).result.output == "x"
    assert run.result.usage.calls == crew.calls


async def test_peers_are_asked_again_and_again_while_one_waits_for_a_person(
    crew: Crew, everywhere: Saver
) -> None:
    graph = vote(line(crew, "a", ASK), *plain(crew, b="x"), rule=AheadBy(k=4))
    run = await Run(graph, everywhere).go()
    assert (run.result.output, run.result.confidence) == ("x", 1)
    assert [name for name, _ in crew.by].count("b") == 4


async def test_an_ask_is_withdrawn_once_the_vote_can_end_without_it(
    crew: Crew, saver: Saver
) -> None:
    graph = vote(*plain(crew, a=in_turn(ASK, *"xxx"), b=ASK), rule=AheadBy(k=3))
    run = await Run(graph, saver).go()
    assert set(run.asks) == {"a/1", "b/2"}
    await run.answer("a/1")
    assert (run.result.output, [name for name, _ in crew.by]) == ("x", ["a", "b", "a", "a"])


async def test_only_those_are_asked_about_who_are_needed(crew: Crew, saver: Saver) -> None:
    graph = vote(*(line(crew, name, ASK) for name in "abc"))
    run = await Run(graph, saver).go()
    assert set(run.asks) == {"a last", "b last"}, "two that agree are enough"
    await run.answer("b last")
    assert set(run.asks) == {"a last"}
    await run.answer("a last", decision="edit", value="y")
    assert set(run.asks) == {"c last"}
    assert (await run.answer()).result.output == "x"
    assert set(crew.did.values()) == {1}


async def test_a_heavy_vote_settles_it_without_a_light_one_that_waits(
    crew: Crew, memory: Saver
) -> None:
    rule = LogOdds(accuracy={"a": 0.6, "b": 0.99, "c": 0.6})
    run = await Run(vote(line(crew, "a", ASK), *plain(crew, b="x", c="y"), rule=rule), memory).go()
    assert (run.result.output, [name for name, _ in crew.by]) == ("x", ["b"])


async def test_a_debate_is_held_like_a_first_vote(crew: Crew, saver: Saver) -> None:
    others = plain(crew, b=in_turn(*"xy"), c=in_turn(*"xy"), d=in_turn(*"yy"))
    run = await Run(vote(line(crew, "a", "y", ASK), *others, rounds=1), saver).go()
    assert run.result.output == "y", "three of four changed their mind, or kept to it"
    tallies = [(e.data["round"], e.what) for e in await run.events() if e.kind == "tally"]
    assert tallies[-1] == (1, "won")


async def test_what_is_ranked_is_what_was_proposed_while_nobody_waited(
    crew: Crew, saver: Saver
) -> None:
    peers = [
        line(crew, "a", "x", ["A", "B"]),
        *plain(crew, b=in_turn("y", ASK), c=in_turn("y", ["B", "A"])),
    ]
    run = await Run(vote(*peers, rule=Borda()), saver).go()
    assert len(run.asks) == 1
    assert (await run.answer(decision="edit", value=["B", "A"])).result.output == "y"
    assert run.result.usage.calls == crew.calls


async def test_a_graph_that_judges_may_ask_about_each_pair_by_itself(
    crew: Crew, saver: Saver
) -> None:
    better = Preference(better="first").model_dump()
    judge = line(crew, "judge", in_turn(ASK, ASK, better, better))
    peers = plain(crew, a="x", b="y")
    run = await Run(swarm(peers, rule=Judged(), judge=judge, policy=QUICK), saver).go()
    for left in (2, 1):
        asks = run.final["__interrupt__"]
        assert [ask.value.task for ask in asks] == ["judge last"] * left
        answer = Approval(decision="respond", by="ann", value="look again").model_dump()
        await run.go(Command(resume={asks[0].id: answer}))
    assert "2 answers are even" in run.asks["task"].value.reason, "it likes whatever is first"


@pytest.mark.parametrize("seed", range(3))
async def test_with_one_or_with_sixteen_at_once_a_held_vote_takes_the_same_course(
    seed: int,
) -> None:
    waves = []
    for parallel in (1, 16):
        crew, limits = Crew(), QUICK.model_copy(update={"parallel": parallel, "seed": seed})
        graphs = [line(crew, f"g{n}", ASK if n == seed else "x") for n in range(3)]
        peers = [*graphs, *plain(crew, b="y", c="x", d="y", e="x", f="x")]
        run = await Run(vote(*peers, policy=limits)).go()
        waves.append((run.result.output, await asked(run)))
    assert waves[0] == waves[1]


async def test_a_swarm_of_swarms_is_held_by_nobody_two_graphs_deep(
    crew: Crew, saver: Saver
) -> None:
    deep = vote(line(crew, "deep", ASK), *plain(crew, p="y", q="y", r="x"))
    graph = vote(as_agent(deep, name="a"), *plain(crew, b="x", c="y", d="x", e="x"))
    plan = [task("one", agent="crowd"), task("two", agent="worker")]
    workers = [as_agent(graph, name="crowd"), crew.worker()]
    team = manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK)
    run = await Run(team, saver).go()
    assert run.result.output == {"one": "x", "two": "two()"}


async def test_a_second_task_on_the_thread_is_not_held_by_the_first(
    crew: Crew, saver: Saver
) -> None:
    others = plain(crew, b="x", c=in_turn(*"xy"), d=in_turn(*"xy"))
    run = Run(vote(line(crew, "a", ASK, "y"), *others), saver)
    assert (await run.go()).result.output == "x"
    run.task = Task(goal="once more")
    assert (await run.go()).result.output == "y"
