"""What a person is asked about a subtask, and what their answer makes of it."""

import pytest

from kapelle.state.answers import answered
from kapelle.state.approval import Approval, Choice, Escalation
from kapelle.state.breaker import give_up
from kapelle.state.ladder import weighed
from kapelle.state.policy import Policy
from kapelle.state.task import Result, Task
from tests.laws.teams import made

FAILED = made("a", "failed", "raised", agent="ann")
TASK = Task(id="a", goal="work")
STOPPED = made("a", "waiting", output="old", agent="x", escalation=Escalation(question="Well?"))
GIVEN_UP = FAILED.model_copy(update={"status": "waiting", "escalation": give_up(TASK, FAILED)})


def test_the_ask_about_what_nobody_could_do_shows_the_tries_and_offers_no_approval() -> None:
    ask = give_up(TASK, FAILED)
    assert (ask.task, ask.by, ask.reason) == ("a", "ann", "a broke")
    assert "approve" not in ask.offers


def test_approved_work_is_done_as_it_is() -> None:
    after = answered(STOPPED, Approval(decision="approve", by="ann"))
    assert (after.status, after.output, after.agent) == ("done", "old", "x")


@pytest.mark.parametrize("stopped", [STOPPED, GIVEN_UP])
def test_edited_work_is_the_person_s_and_no_failure(stopped: Result) -> None:
    after = answered(stopped, Approval(decision="edit", by="ann", value="new"))
    assert (after.status, after.output, after.agent) == ("done", "new", "ann")
    assert after.failure is None


def test_rejected_work_says_who_and_why() -> None:
    after = answered(STOPPED, Approval(decision="reject", by="ann", reason="dull"))
    assert after.status == "refused"
    assert after.failure is not None
    assert after.failure.message == "ann rejected it: dull"


def test_work_to_be_done_again_says_what_was_said() -> None:
    after = answered(STOPPED, Approval(decision="respond", by="ann", value="say why"))
    assert after.status == "refused"
    assert after.failure is not None
    assert after.failure.message == "ann wants it done again: say why"


@pytest.mark.parametrize("decision", ["approve", "edit", "reject", "respond"])
def test_every_answer_makes_a_later_revision_without_an_ask(decision: Choice) -> None:
    after = answered(STOPPED, Approval(decision=decision, by="ann"))
    assert after.revision == STOPPED.revision + 1
    assert after.escalation is None


def test_a_reply_below_the_confidence_asked_for_waits_for_a_person() -> None:
    policy = Policy(min_confidence=0.8)
    doubtful = weighed(made("a", agent="x", confidence=0.79, output="maybe"), policy)
    assert doubtful.status == "waiting"
    assert doubtful.escalation is not None
    assert "79% sure of 'a'" in doubtful.escalation.question
    assert doubtful.escalation.evidence == "maybe"


def test_a_reply_that_is_sure_enough_or_does_not_say_passes() -> None:
    policy = Policy(min_confidence=0.8)
    for result in (made("a", confidence=0.8), made("a"), made("a", "failed", "raised")):
        assert weighed(result, policy) == result
