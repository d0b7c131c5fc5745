"""How a pipeline goes on: at a gate, after an answer, and when it is left."""

import pytest

from kapelle.state.approval import Approval, Choice, Escalation
from kapelle.state.budget import Usage
from kapelle.state.line import Pass, after_answer, amended, at_gate, left_line, told
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
        ("done", "revise", 2, "ask"),
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


def test_a_line_a_person_stopped_is_refused() -> None:
    result = left(made("find", output="facts"), made("draft", "refused"))
    assert result.status == "refused"
    assert result.missing == ("draft", "polish")


def test_what_a_stage_did_in_part_makes_the_whole_partial() -> None:
    half = {"status": "partial", "missing": ("a", "b")}
    last = left(made("find"), made("draft"), made("polish", output="p", **half))
    assert (last.status, last.output) == ("partial", "p")
    assert last.missing == ("polish/a", "polish/b")
    first = left(made("find", **half), made("draft"), made("polish", output="p"))
    assert (first.status, first.output) == ("partial", "p")
    assert first.missing == ("find/a", "find/b")
