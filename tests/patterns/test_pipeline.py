"""A pipeline hands work from stage to stage, and a gate behind each lets nothing bad through."""

from typing import Any

import pytest
from pydantic import BaseModel

from kapelle.graphs import pipeline
from kapelle.nodes.agent import as_agent
from kapelle.state.approval import Choice, Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.errors import Misbuilt, Renamed
from kapelle.state.policy import Policy
from kapelle.state.task import Reply, Task
from kapelle.state.verdict import Verdict
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Go on?", evidence="a thought")
AGAIN = Verdict(decision="revise", reason="too short")


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


async def test_each_stage_works_on_what_the_earlier_ones_made(
    crew: Crew, everywhere: Saver
) -> None:
    stages = [crew.worker(name) for name in ("find", "draft", "polish")]
    result = (await Run(pipeline(stages, policy=QUICK), everywhere, goal="write").go()).result
    assert (result.task, result.status, result.agent) == ("task", "done", "polish")
    assert crew.by == [(n, n) for n in ("find", "draft", "polish")]
    (last,) = crew.briefs["polish"]
    assert list(last.results) == ["find", "draft"]
    assert last.context.goal == "write"
    assert result.usage.calls == 3


async def test_without_a_saver_it_works_as_well(crew: Crew) -> None:
    assert (await Run(pipeline([crew.worker()], policy=QUICK)).go()).result.output == "worker()"


async def test_the_line_stops_where_a_stage_fails_and_keeps_what_was_finished(
    crew: Crew, everywhere: Saver
) -> None:
    stages = [
        crew.worker("find"),
        crew.worker("draft", draft=ValueError("no")),
        crew.worker("last"),
    ]
    result = (await Run(pipeline(stages, policy=QUICK), everywhere).go()).result
    assert (result.status, result.output) == ("partial", {"find": "find()"})
    assert result.missing == ("draft", "last")
    assert result.failure is not None
    assert result.failure.message == "draft raised ValueError: no"
    assert "last" not in crew.did


async def test_a_line_whose_first_stage_fails_failed(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker("find", find=ValueError("no")), crew.worker("draft")]
    result = (await Run(pipeline(stages, policy=QUICK), saver).go()).result
    assert (result.status, result.output, result.missing) == ("failed", None, ("find", "draft"))


async def test_a_gate_sends_work_back_with_its_verdict(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker("find"), crew.worker("draft", draft=["short", "longer", "longest"])]
    judge = crew.judge(AGAIN, Verdict(decision="revise", reason="still too short"))
    line = pipeline(stages, gates={"draft": judge}, policy=QUICK)
    result = (await Run(line, saver).go()).result
    assert result.output == "longest"
    assert crew.did["find"] == 1
    drafts = [b for b, by in zip(crew.briefs["draft"], ["d", "c"] * 3, strict=True) if by == "d"]
    assert [b.feedback for b in drafts] == [
        (),
        ("too short",),
        ("too short", "still too short"),
    ]
    assert result.usage.calls == crew.calls


async def test_one_judge_may_stand_at_every_gate(crew: Crew, memory: Saver) -> None:
    stages = [crew.worker("find"), crew.worker("draft")]
    await Run(pipeline(stages, gates=crew.judge(), policy=QUICK), memory).go()
    assert [name for name, _ in crew.by] == ["find", "critic", "draft", "critic"]


async def test_a_judge_does_not_judge_what_failed(crew: Crew, memory: Saver) -> None:
    stages = [crew.worker("find", find=ValueError("no"))]
    await Run(pipeline(stages, gates=crew.judge(), policy=QUICK), memory).go()
    assert [name for name, _ in crew.by] == ["find"]


ANSWERS = [
    ("approve", {}, "done", "last(first)"),
    ("edit", {"value": "mine"}, "done", "last(first)"),
    ("reject", {"reason": "dull"}, "refused", None),
    ("respond", {"value": "say why"}, "done", "last(first)"),
]


@pytest.mark.parametrize(("decision", "more", "status", "_"), ANSWERS)
async def test_a_stage_may_turn_to_a_person(
    crew: Crew, everywhere: Saver, decision: Choice, more: dict[str, Any], status: str, _: object
) -> None:
    stages = [crew.worker("first", first=[ASK, "thought through"]), crew.worker("last")]
    run = await Run(pipeline(stages, policy=QUICK), everywhere).go()
    assert run.asks["first"].value == ASK.model_copy(update={"task": "first", "by": "first"})
    await run.answer(decision=decision, **more)
    assert run.result.status == status
    if decision == "reject":
        assert "last" not in crew.did
        assert run.result.failure is not None
        assert "ann rejected it: dull" in run.result.failure.message
    else:
        seen = crew.briefs["last"][0].results["first"].output
        assert seen == {"approve": "a thought", "edit": "mine"}.get(decision, "thought through")
    assert crew.did["first"] == (2 if decision == "respond" else 1)
    if decision == "respond":
        assert crew.briefs["first"][1].feedback == ("ann says: say why",)


async def test_work_a_judge_is_never_content_with_stops_the_line(crew: Crew, saver: Saver) -> None:
    judge = crew.worker("critic", last=AGAIN, anything=Verdict(decision="accept"))
    stages = [crew.worker("first"), crew.worker("last"), crew.worker("never")]
    result = (await Run(pipeline(stages, gates=judge, policy=change(rounds=1)), saver).go()).result
    assert (result.status, result.output) == ("partial", {"first": "first()"})
    assert result.missing == ("last", "never")
    assert (result.parts["last"].status, result.parts["last"].output) == ("refused", "last()")
    assert result.failure is not None
    assert result.failure.message == (
        "the gate behind 'last' stopped the line after 2 tries: too short"
    )
    assert crew.calls == result.usage.calls == 6


async def test_work_a_judge_is_never_content_with_may_go_to_a_person(
    crew: Crew, saver: Saver
) -> None:
    judge = crew.worker("critic", anything=AGAIN)
    line = pipeline([crew.worker("first"), crew.worker("last")], gates={"first": judge},
                    policy=change(rounds=1, on_failure="ask"))  # fmt: skip
    run = await Run(line, saver).go()
    shown = run.asks["first"].value
    assert (shown.reason, shown.evidence) == ("too short", "first()")
    done = crew.calls
    assert (await run.answer()).result.status == "done"
    assert crew.calls == done + 1, "what a person lets through is not judged again"


@pytest.mark.parametrize("broken", [ValueError("blind"), "prose"])
async def test_a_judge_that_gives_no_verdict_is_no_judge_and_a_person_is_asked(
    crew: Crew, memory: Saver, broken: object
) -> None:
    judge = crew.worker("critic", anything=broken)
    run = await Run(pipeline([crew.worker("only")], gates=judge, policy=QUICK), memory).go()
    assert "no verdict" in run.asks["only"].value.reason
    assert (await run.answer()).result.output == "only()"


async def test_a_judge_may_word_its_own_ask(crew: Crew, memory: Saver) -> None:
    own = Escalation(question="Is this a joke?")
    judge = crew.judge(Verdict(decision="ask", escalation=own))
    run = await Run(pipeline([crew.worker("only")], gates=judge, policy=QUICK), memory).go()
    assert run.asks["only"].value.question == "Is this a joke?"


@pytest.mark.parametrize(
    ("decision", "more", "output"),
    [("edit", {"value": "by hand"}, "by hand"), ("respond", {"value": "knock"}, "in"),
     ("reject", {}, None)],
)  # fmt: skip
async def test_a_person_may_be_asked_what_to_do_with_a_stage_that_failed(
    crew: Crew, saver: Saver, decision: Choice, more: dict[str, Any], output: object
) -> None:
    stages = [crew.worker("only", only=[ValueError("locked"), "in"])]
    run = await Run(pipeline(stages, policy=change(on_failure="ask")), saver).go()
    assert run.asks["only"].value.offers == ("edit", "reject", "respond")
    await run.answer(decision=decision, **more)
    assert run.result.output == output
    assert run.result.status == ("refused" if decision == "reject" else "done")


async def test_an_unsure_stage_waits_for_a_person(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker("only", only=Reply(output="perhaps", confidence=0.4))]
    run = await Run(pipeline(stages, policy=change(min_confidence=0.5)), saver).go()
    assert (await run.answer()).result.output == "perhaps"


async def test_a_second_task_on_the_thread_starts_afresh(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker("first"), crew.worker("last")]
    run = await Run(pipeline(stages, gates=crew.judge(AGAIN), policy=QUICK), saver).go()
    first = crew.calls
    run.task = Task(goal="something else")
    result = (await run.go()).result
    assert crew.briefs["first"][-2].feedback == ()
    assert crew.briefs["first"][-2].context.goal == "something else"
    assert result.usage == Usage(calls=crew.calls - first)
    assert crew.calls - first == 4


async def test_a_gate_may_stop_the_line_at_once(crew: Crew, saver: Saver) -> None:
    judge = crew.worker("critic", last=Verdict(decision="stop", reason="it would hurt someone"))
    stages = [crew.worker("first"), crew.worker("last"), crew.worker("never")]
    result = (await Run(pipeline(stages, gates={"last": judge}, policy=QUICK), saver).go()).result
    assert (result.status, result.output) == ("partial", {"first": "first()"})
    assert result.failure is not None
    assert "it would hurt someone" in result.failure.message
    assert "never" not in crew.did


async def test_what_was_finished_before_a_person_said_no_is_kept(crew: Crew, saver: Saver) -> None:
    stages = [crew.worker("first"), crew.worker("last", last=ASK)]
    run = await Run(pipeline(stages, policy=QUICK), saver).go()
    result = (await run.answer(decision="reject", reason="dull")).result
    assert (result.status, result.output) == ("partial", {"first": "first()"})
    assert (result.missing, result.parts["last"].output) == (("last",), "a thought")
    assert result.failure is not None
    assert result.failure.kind == "refused"


class Letter(BaseModel):
    """What a stage is to write."""

    text: str
    pages: int


async def test_a_schema_may_be_a_gate_and_says_what_is_wrong(crew: Crew, memory: Saver) -> None:
    drafts = [{"text": "Dear"}, {"text": "Dear", "pages": 1}]
    line = pipeline([crew.worker("draft", draft=drafts)], gates=Letter, policy=QUICK)
    result = (await Run(line, memory).go()).result
    assert result.output == {"text": "Dear", "pages": 1}
    assert crew.briefs["draft"][1].feedback == ("pages: Field required",)


@pytest.mark.parametrize(
    ("said", "feedback"),
    [(False, "it was not accepted"), ("too loud", "too loud"), (["a", "b"], "a; b"),
     (Verdict(decision="revise", reason="dull"), "dull")],
)  # fmt: skip
async def test_a_plain_function_may_be_a_gate(
    crew: Crew, memory: Saver, said: object, feedback: str
) -> None:
    def loud(output: object) -> object:
        return said if output == "LOUD" else True

    stage = crew.worker("draft", draft=["LOUD", "soft"])
    result = (await Run(pipeline([stage], gates=loud, policy=QUICK), memory).go()).result
    assert (result.output, result.usage.calls) == ("soft", 2)
    assert crew.briefs["draft"][1].feedback == (feedback,)


async def test_where_a_plain_function_breaks_a_person_decides(crew: Crew, memory: Saver) -> None:
    line = pipeline([crew.worker("draft")], gates=lambda output: output["pages"], policy=QUICK)
    run = await Run(line, memory).go()
    assert "raised TypeError" in run.asks["draft"].value.reason
    assert (await run.answer()).result.output == "draft()"


async def test_several_checks_are_made_in_order_and_the_first_no_decides(
    crew: Crew, memory: Saver
) -> None:
    soft = crew.judge(name="soft")
    strict = crew.judge(AGAIN, name="strict")
    line = pipeline(
        [crew.worker("draft")], gates=[lambda output: True, soft, strict, soft], policy=QUICK
    )
    result = (await Run(line, memory).go()).result
    assert [n for n, _ in crew.by] == ["draft", "soft", "strict", "draft", "soft", "strict", "soft"]
    assert result.usage.calls == crew.calls


async def test_a_judge_that_answered_is_not_asked_again_when_a_later_one_waited(
    crew: Crew, saver: Saver
) -> None:
    asks = pipeline([crew.worker("weighs", weighs=ASK)], policy=QUICK)
    gates = [crew.judge(name="quick"), as_agent(asks, name="slow")]
    run = await Run(pipeline([crew.worker("draft")], gates=gates, policy=QUICK), saver).go()
    await run.answer("weighs", decision="edit", value={"decision": "accept"})
    assert run.result.output == "draft()"
    assert [n for n, _ in crew.by] == ["draft", "quick", "weighs"]


async def test_a_judge_the_budget_leaves_no_room_for_stops_the_line(
    crew: Crew, memory: Saver
) -> None:
    stages = [crew.worker("first"), crew.worker("last")]
    policy = change(budget=Budget(calls=3), on_failure="ask")
    result = (await Run(pipeline(stages, gates=crew.judge(), policy=policy), memory).go()).result
    assert (result.status, result.output) == ("partial", {"first": "first()"})
    assert result.parts["last"].output == "last()", "unjudged, and not lost"
    assert result.failure is not None
    assert result.failure.kind == "budget"


async def test_an_agent_may_have_several_stages(crew: Crew, saver: Saver) -> None:
    turn = crew.worker("turn")
    line = pipeline([turn, crew.worker("look"), turn], policy=change(look_back=1))
    result = (await Run(line, saver).go()).result
    assert [t for _, t in crew.by] == ["turn 1", "look", "turn 2"]
    assert list(crew.briefs["turn 2"][0].results) == ["look"]
    assert result.output == "turn 2()"


def test_gates_must_be_gates_and_stand_behind_a_stage(crew: Crew) -> None:
    with pytest.raises(Misbuilt, match="gates for \\['other'\\]"):
        pipeline([crew.worker()], gates={"other": crew.judge()})
    with pytest.raises(Misbuilt, match="is no agent"):
        pipeline([crew.worker()], gates=[3])  # type: ignore[list-item]
    one = crew.worker("a")
    with pytest.raises(Misbuilt, match="two stages would be called 'a 1'"):
        pipeline([one, one, crew.worker("a 1")])


async def test_a_run_whose_stages_were_renamed_says_so_and_goes_on_once_they_are_not(
    crew: Crew, saver: Saver
) -> None:
    def line(*names: str) -> Run:
        return Run(pipeline([crew.worker(n, draft=ASK) for n in names], policy=QUICK), saver)

    first = await line("find", "draft").go()
    renamed = line("find", "write")
    renamed.final = first.final
    with pytest.raises(Renamed, match="stopped at stage 'draft', where the pipeline now has") as no:
        await renamed.answer()
    assert "('find', 'draft') and resume" in str(no.value)
    same = line("find", "draft")
    same.final = first.final
    assert (await same.answer()).result.output == "a thought"


async def test_a_line_that_waits_forgets_its_ask_when_a_second_task_comes(
    crew: Crew, saver: Saver
) -> None:
    run = await Run(pipeline([crew.worker("only", only=[ASK, "sure"])], policy=QUICK), saver).go()
    assert run.asks
    run.task = Task(goal="another")
    assert (await run.go()).result.output == "sure"
