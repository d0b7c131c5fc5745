"""How a pipeline goes on: at a gate, after an answer, and when it is left."""

import pytest

from kapelle.state.approval import Approval, Choice, Escalation
from kapelle.state.budget import Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.gate import (
    Pass,
    after_answer,
    amended,
    at_gate,
    told,
    verdict_on,
)
from kapelle.state.line import (
    behind,
    collected,
    items_of,
    left_line,
    piece,
    stage_names,
    too_many,
)
from kapelle.state.policy import Policy
from kapelle.state.task import Failure, Result, Status, Task
from kapelle.state.verdict import Verdict

POLICY = Policy(rounds=2)


def made(task: str, status: Status = "done", **more: object) -> Result:
    """A stage's result."""
    return Result.model_validate({"task": task, "status": status, "agent": task, **more})


@pytest.mark.parametrize(
    ("status", "decision", "rounds", "way"),
    [
        ("done", None, 0, "next"),
        ("partial", None, 0, "next"),
        ("done", "accept", 2, "next"),
        ("done", "revise", 0, "again"),
        ("done", "revise", 1, "again"),
        ("done", "revise", 2, "stop"),
        ("done", "stop", 0, "stop"),
        ("done", "ask", 0, "ask"),
        ("waiting", None, 0, "ask"),
        ("failed", None, 0, "stop"),
        ("refused", None, 0, "stop"),
        ("failed", "accept", 0, "stop"),
    ],
)
def test_what_a_gate_does(status: Status, decision: str | None, rounds: int, way: Pass) -> None:
    verdict = Verdict.model_validate({"decision": decision}) if decision else None
    assert at_gate(made("draft", status), verdict, rounds, POLICY) == way


def test_a_failed_stage_may_go_to_a_person_a_refused_one_never() -> None:
    policy = Policy(on_failure="ask")
    assert at_gate(made("draft", "failed"), None, 0, policy) == "ask"
    assert at_gate(made("draft", "refused"), None, 0, policy) == "stop"
    assert at_gate(made("draft"), Verdict(decision="revise"), 2, policy) == "ask"
    broke = Failure(kind="budget", message="no room")
    assert at_gate(made("draft", "failed", failure=broke), None, 0, policy) == "stop"


@pytest.mark.parametrize(
    ("decision", "way"),
    [("approve", "next"), ("edit", "next"), ("reject", "stop"), ("respond", "again")],
)
def test_what_an_answer_does(decision: Choice, way: Pass) -> None:
    assert after_answer(Approval(decision=decision, by="ann")) == way


STOPPED = made(
    "draft",
    "waiting",
    output="old",
    escalation=Escalation(question="Well?"),
    failure=Failure(kind="raised", message="it broke"),
    usage=Usage(calls=3),
)


def test_approved_work_is_done_as_it_is() -> None:
    after = amended(STOPPED, Approval(decision="approve", by="ann"))
    assert (after.status, after.output, after.agent) == ("done", "old", "draft")
    assert (after.escalation, after.failure) == (None, None)


def test_edited_work_is_the_person_s() -> None:
    after = amended(STOPPED, Approval(decision="edit", by="ann", value="new"))
    assert (after.status, after.output, after.agent) == ("done", "new", "ann")
    assert (after.escalation, after.failure) == (None, None)


def test_rejected_work_says_who_and_why() -> None:
    after = amended(STOPPED, Approval(decision="reject", by="ann", reason="dull"))
    assert after.status == "refused"
    assert after.failure == Failure(kind="refused", message="ann rejected it: dull", agent="draft")
    assert after.escalation is None


@pytest.mark.parametrize("decision", ["approve", "edit", "reject", "respond"])
def test_every_answer_makes_a_later_revision_and_keeps_the_cost(decision: Choice) -> None:
    after = amended(STOPPED, Approval(decision=decision, by="ann"))
    assert after.revision == STOPPED.revision + 1
    assert after.usage == STOPPED.usage


def test_a_stage_is_told_all_that_was_wrong_oldest_first() -> None:
    verdict = Verdict(decision="revise", reason="too short")
    once = told((), verdict, None)
    twice = told(once, None, Approval(decision="respond", by="ann", value="say why"))
    assert twice == ("too short", "ann says: say why")
    assert told((), Verdict(decision="revise"), None) == ("it was not accepted",)


def test_stages_are_called_as_their_agent_and_numbered_where_it_has_several() -> None:
    assert stage_names(["a", "b", "a"]) == ["a 1", "b", "a 2"]
    with pytest.raises(Misbuilt, match="two stages would be called 'a 1'"):
        stage_names(["a", "a", "a 1"])


@pytest.mark.parametrize(
    ("said", "decision", "reason"),
    [(True, "accept", ""), (None, "accept", ""), ([], "accept", ""), ("", "accept", ""),
     (False, "revise", "it was not accepted"), ("dull", "revise", "dull"),
     (["a", "b"], "revise", "a; b"), (Verdict(decision="stop", reason="x"), "stop", "x")],
)  # fmt: skip
def test_what_a_plain_function_says(said: object, decision: str, reason: str) -> None:
    assert (verdict_on(said).decision, verdict_on(said).reason) == (decision, reason)


def test_a_stage_is_given_the_last_stages_there_are() -> None:
    done = {name: made(name) for name in ("a", "b", "c")}
    assert behind(["a", "b", "c", "d"], 3, done, 2) == ["b", "c"]
    assert behind(["a", "b", "c", "d"], 3, done, 9) == ["a", "b", "c"]
    assert behind(["a", "b", "c", "d"], 3, done, 0) == []


ITEMS = Task(id="letters", goal="write", inputs={"items": ["x", "y", "z"], "tone": "warm"})


def test_each_item_has_the_task_with_itself_in_place_of_all() -> None:
    assert piece(ITEMS, 1).inputs == {"item": "y", "tone": "warm"}
    assert items_of(TASK) is None
    assert items_of(Task(goal="x", inputs={"items": "not a list"})) is None


def gathered(*results: Result) -> Result:
    """What leaves three items' lines."""
    return collected(ITEMS, STAGES, {str(i): r for i, r in enumerate(results)})


def test_what_came_of_items_leaves_in_their_order() -> None:
    result = gathered(*(made("line", output=o, usage=Usage(calls=2)) for o in "abc"))
    assert (result.status, result.output, result.missing) == ("done", ["a", "b", "c"], ())
    assert (result.usage.calls, result.parts) == (6, {})


def test_an_item_that_was_stopped_is_none_and_its_part_says_why() -> None:
    failure = Failure(kind="raised", message="too dark")
    bad = made("line", "partial", output={"find": "f"}, missing=("draft", "polish"),
               failure=failure)  # fmt: skip
    half = made("line", "partial", output="h", missing=("find/a",))
    result = gathered(made("line", output="a"), bad, half)
    assert (result.status, result.output) == ("partial", ["a", None, "h"])
    assert result.missing == ("1/draft", "1/polish", "2/find/a")
    assert result.parts == {"1": bad}
    assert result.failure == failure


@pytest.mark.parametrize(
    ("ends", "status"), [("rrr", "refused"), ("rrf", "failed"), ("fff", "failed")]
)
def test_where_nothing_came_of_any_item_the_whole_failed(ends: str, status: str) -> None:
    ended: dict[str, Status] = {"r": "refused", "f": "failed"}
    lost = [made("line", ended[end], missing=STAGES) for end in ends]
    assert gathered(*lost).status == status


def test_no_items_are_done_at_once() -> None:
    empty = collected(TASK, STAGES, {})
    assert (empty.status, empty.output) == ("done", [])


def test_a_stream_has_a_limit() -> None:
    assert too_many(ITEMS, Policy(max_tasks=3)) is None
    refused = too_many(ITEMS, Policy(max_tasks=2))
    assert refused is not None
    assert refused.failure is not None
    assert "3 items; the limit is 2" in refused.failure.message


STAGES = ("find", "draft", "polish")
TASK = Task(id="letter", goal="write")


def left(*results: Result) -> Result:
    """What leaves a line of three stages with these results."""
    return left_line(TASK, STAGES, {r.task: r for r in results}, Usage(calls=1))


def test_a_line_that_got_through_gives_the_last_stage_s_work() -> None:
    result = left(*(made(s, output=s, usage=Usage(calls=2)) for s in STAGES))
    assert (result.task, result.status, result.output) == ("letter", "done", "polish")
    assert result.missing == ()
    assert result.usage.calls == 7, "each stage's and the judges'"


def test_a_line_that_stopped_gives_what_was_finished() -> None:
    failure = Failure(kind="timeout", message="too slow")
    result = left(made("find", output="facts"), made("draft", "failed", failure=failure))
    assert (result.status, result.output) == ("partial", {"find": "facts"})
    assert result.missing == ("draft", "polish")
    assert result.failure == failure


def test_a_line_that_stopped_at_once_failed() -> None:
    result = left(made("find", "failed"))
    assert (result.status, result.output, result.missing) == ("failed", None, STAGES)


def test_a_line_a_person_stopped_keeps_what_was_finished() -> None:
    result = left(made("find", output="facts"), made("draft", "refused", output="no good"))
    assert (result.status, result.output) == ("partial", {"find": "facts"})
    assert result.missing == ("draft", "polish")
    assert result.parts["draft"].output == "no good"
    at_once = left(made("find", "refused", output="no good"))
    assert (at_once.status, at_once.output) == ("refused", None)


def test_what_a_stage_did_in_part_makes_the_whole_partial() -> None:
    half = {"status": "partial", "missing": ("a", "b")}
    last = left(made("find"), made("draft"), made("polish", output="p", **half))
    assert (last.status, last.output) == ("partial", "p")
    assert last.missing == ("polish/a", "polish/b")
    first = left(made("find", **half), made("draft"), made("polish", output="p"))
    assert (first.status, first.output) == ("partial", "p")
    assert first.missing == ("find/a", "find/b")
