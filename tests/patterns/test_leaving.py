"""Nothing leaves a pattern whose claims contradict unseen: in all of them by the same law."""

from collections.abc import Callable
from typing import Any

import pytest

from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import FunctionAgent, agent, as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.ballot import Plurality
from kapelle.state.context import Claim, Condition, Constraint, Key, MasterContext
from kapelle.state.errors import Misbuilt
from kapelle.state.message import Channel
from kapelle.state.policy import Policy
from kapelle.state.task import Reply, Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

UI = "frontend.framework"


def claims(value: object, confidence: float = 1.0, **more: Any) -> Reply:
    """A reply that claims a value."""
    claim = Claim.model_validate({"key": UI, "value": value, "confidence": confidence, **more})
    return Reply(output="done", claims=(claim,))


def sayer(name: str, *replies: Reply, skills: tuple[str, ...] = ()) -> FunctionAgent:
    """An agent that gives these replies, one for each item; else the first."""

    @agent(name=name, skills=skills)
    async def say(task: Task) -> Reply:
        item = task.inputs.get("item", 0)
        return replies[item if isinstance(item, int) else 0]

    return say


def items(count: int) -> dict[str, Any]:
    """Inputs of a task with so many items."""
    return {"inputs": {"items": [*range(count)]}}


def a_line(a: Reply, b: Reply, policy: Policy) -> tuple[Pattern, Task]:
    """Two items on a line."""
    return pipeline([sayer("stage", a, b)], policy=policy), Task(goal="all", **items(2))


def a_swarm(a: Reply, b: Reply, policy: Policy) -> tuple[Pattern, Task]:
    """Two peers that agree on the answer, not on what they claim."""
    return swarm([sayer("a", a), sayer("b", b)], rule=Plurality(), policy=policy), Task(goal="all")


def a_market(a: Reply, b: Reply, policy: Policy) -> tuple[Pattern, Task]:
    """Two contractors with a task each."""
    tasks = [task("one", skills=("x",)), task("two", skills=("y",))]
    given: Any = [t.model_dump(mode="json") for t in tasks]
    crew = [sayer("a", a, skills=("x",)), sayer("b", b, skills=("y",))]
    return marketplace(crew, policy=policy), Task(goal="all", inputs={"tasks": given})


def a_tree(a: Reply, b: Reply, policy: Policy) -> tuple[Pattern, Task]:
    """Four leaves in two branches; two of them claim something."""
    leaf = sayer("leaf", a, Reply(output="-"), Reply(output="-"), b)
    return hierarchy(leaf, merge=len, branching=2, policy=policy), Task(goal="all", **items(4))


Made = Callable[[Reply, Reply, Policy], tuple[Pattern, Task]]

each_pattern = pytest.mark.parametrize("made", [a_line, a_swarm, a_market, a_tree])


async def run_of(made: Made, a: Reply, b: Reply, saver: Saver, **change: Any) -> Run:
    """A run of two who claim this."""
    begun = change.pop("context", None)
    graph, work = made(a, b, QUICK.model_copy(update=change))
    run = Run(graph, saver)
    run.task = work.model_copy(update={"context": begun})
    return await run.go()


@each_pattern
async def test_what_contradicts_is_found_and_settled_in_every_pattern(
    made: Made, saver: Saver
) -> None:
    run = await run_of(made, claims("React", 0.9), claims("Vue", 0.5), saver)
    (found,) = run.result.contradictions
    assert found.decision is not None
    assert (found.rule, found.decision.value) == ("evidence", "React")
    assert [(side.value, side.stands) for side in found.sides] == [("React", True), ("Vue", False)]
    assert set(found.flagged) == {claim.task for claim in found.losing} != set()
    assert [claim.value for claim in run.result.claims] == ["React"]
    assert run.result.status == "done"
    (held,) = (await run.services.memory.context("t1")).decisions
    assert (held.value, held.rule) == ("React", "evidence")
    told = [e.data["tasks"] for e in await run.events() if e.what == "flagged"]
    assert told == [list(found.flagged)]
    ends = [e.what for e in await run.events() if e.kind == "run" and not e.place]
    assert ends == ["done"]


@each_pattern
async def test_what_no_rule_settles_goes_to_a_person_in_every_pattern(
    made: Made, saver: Saver
) -> None:
    run = await run_of(made, claims("React"), claims("Vue"), saver)
    (ask,) = run.asks.values()
    assert (ask.value.about, ask.value.offers) == ("claims", ("approve", "edit", "reject"))
    assert sorted(s["value"] for s in ask.value.evidence["sides"][UI]) == ["React", "Vue"]
    await run.answer(decision="edit", value="Vue")
    (found,) = run.result.contradictions
    assert found.decision is not None
    assert (found.rule, found.decision.who, found.decision.value) == ("person", "ann", "Vue")


@each_pattern
async def test_left_open_it_is_shown_in_every_pattern_if_the_policy_says_so(
    made: Made, memory: Saver
) -> None:
    run = await run_of(made, claims("React"), claims("Vue"), memory, on_contradiction="show")
    (found,) = run.result.contradictions
    assert found.rule is None
    assert len(run.result.claims) == 2


@each_pattern
async def test_a_hard_constraint_wins_in_every_pattern(made: Made, memory: Saver) -> None:
    must = Constraint(text="No Vue", must=Condition(key=UI, op="is not", value="Vue"))
    both = claims("Vue", evidence="seen")
    run = await run_of(made, both, both, memory, context=MasterContext(constraints=(must,)))
    (found,) = run.result.contradictions
    assert (found.kind, found.rule) == ("constraint", "constraint")
    assert run.result.claims == ()


@each_pattern
async def test_what_agrees_is_held_as_undisputed_in_every_pattern(
    made: Made, memory: Saver
) -> None:
    run = await run_of(made, claims("React"), claims(" react "), memory)
    assert run.result.contradictions == ()
    (held,) = (await run.services.memory.context("t1")).decisions
    assert (held.key, held.rule) == (UI, "undisputed")


@each_pattern
async def test_a_promise_nobody_keeps_is_missing_in_every_pattern(
    made: Made, memory: Saver
) -> None:
    nothing = Reply(output="done")
    graph, work = made(nothing, nothing, QUICK)
    run = Run(graph, memory)
    if "tasks" in work.inputs:
        listed: Any = work.inputs["tasks"]
        listed[0]["promises"] = [UI]
    run.task = work.model_copy(update={"promises": (UI,)})
    await run.go()
    (found,) = run.result.contradictions
    assert found.kind == "omission"
    assert run.result.status == "partial"
    assert run.result.missing == tuple(f"{t}/{UI}" for t in found.promised) != ()


async def test_a_later_stage_revises_what_an_earlier_one_claimed(memory: Saver) -> None:
    line = [sayer("draft", claims("React")), sayer("review", claims("Vue"))]
    run = await Run(pipeline(line, policy=QUICK), memory).go()
    assert run.result.contradictions == ()
    assert [claim.value for claim in run.result.claims] == ["Vue"]


async def test_a_stage_that_was_not_shown_the_earlier_one_contradicts_it(memory: Saver) -> None:
    line = [sayer("draft", claims("React", 0.5)), sayer("review", claims("Vue"))]
    blind = QUICK.model_copy(update={"look_back": 0})
    (found,) = (await Run(pipeline(line, policy=blind), memory).go()).result.contradictions
    assert found.decision is not None
    assert found.decision.value == "Vue"
    assert found.flagged == ("draft", "review")  # which came after it


async def test_of_a_key_with_many_values_a_later_stage_adds_to_the_earlier(memory: Saver) -> None:
    line = [sayer("draft", claims("React")), sayer("review", claims("Vue"))]
    run = Run(pipeline(line, policy=QUICK), memory)
    run.task = Task(goal="all", context=MasterContext(keys=(Key(name=UI, many=True),)))
    assert [claim.value for claim in (await run.go()).result.claims] == ["React", "Vue"]


async def test_the_judge_of_a_market_is_asked_before_a_person(saver: Saver) -> None:
    crew = Crew()
    judge = crew.judge(*[Verdict(decision="accept", rulings={UI: "vue"})] * 3)
    graph, work = a_market(claims("React"), claims("Vue"), QUICK)
    graph = marketplace(
        [sayer("a", claims("React"), skills=("x",)), sayer("b", claims("Vue"), skills=("y",))],
        judge=judge,
        policy=QUICK,
    )
    run = Run(graph, saver)
    run.task = work
    (found,) = (await run.go()).result.contradictions
    assert found.decision is not None
    assert (found.rule, found.decision.who, found.decision.value) == ("judge", "critic", "Vue")
    assert run.result.usage.calls == 5  # two contractors, two verdicts, one ruling


async def test_what_a_nested_pattern_claims_is_reconciled_around_it(memory: Saver) -> None:
    crew = Crew()
    inner, _ = a_swarm(claims("React", 0.9), claims("React", 0.9), QUICK)
    workers = [as_agent(inner, name="peers"), sayer("alone", claims("Vue", 0.5))]
    plan = [task("a", agent="peers"), task("b", "a", agent="alone")]
    graph = manager_worker(plan=crew.planner(plan), workers=workers, policy=QUICK)
    (found,) = (await Run(graph, memory).go()).result.contradictions
    assert found.decision is not None
    assert (found.rule, found.decision.value) == ("decided", "React")
    assert found.flagged == ("b",)


@pytest.mark.parametrize("role", ["manager", "merge"])
async def test_what_a_manager_of_a_tree_claims_is_compared(role: str, memory: Saver) -> None:
    leaf = sayer("leaf", claims("React", 0.9), Reply(output="-"))
    goals = claims("Vue", 0.5).model_copy(update={"output": "measure"})
    roles: dict[str, Any] = {"merge": len, role: sayer("chief", goals)}
    run = Run(hierarchy(leaf, branching=2, policy=QUICK, **roles), memory)
    run.task = Task(goal="all", **items(2))
    (found,) = (await run.go()).result.contradictions
    assert found.decision is not None
    assert (found.decision.value, [c.by for c in found.losing]) == ("React", ["chief"])


@pytest.mark.parametrize("made", [a_swarm, a_market, a_tree])
def test_where_agents_do_not_write_to_each_other_channels_are_refused(made: Made) -> None:
    with pytest.raises(Misbuilt, match=r"has no channels: .*manager_worker"):
        made(Reply(), Reply(), QUICK.model_copy(update={"channels": (Channel(),)}))
