"""An effect happens at most once, unless somebody says that it did not happen."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kapelle.state.approval import Approval
from kapelle.state.effect import Effect, began, doubt, meet, outcome, said, settled_by


class OneMail(RuleBasedStateMachine):
    """Executions that meet an effect, die at any point of it, and people who are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Effect | None = None
        self.at_work: dict[str, bool] = {}
        """Executions that were told to act: whether they have acted."""
        self.happened = 0
        self.denied = 0
        """How often it was said to have not happened, though it had."""
        self.count = 0

    def begin(self) -> str:
        """Meet it; what comes of it."""
        self.count += 1
        wanted = Effect(key="mail", name="mail", holder=f"t{self.count}")
        self.known = began(self.known, wanted)
        how = meet(self.known, wanted.holder)
        if how == "act":
            self.at_work[wanted.holder] = False
        return how

    @rule()
    def somebody_meets_it(self) -> None:
        """An execution begins, a second one while the first is at work."""
        before = self.known
        how = self.begin()
        if before is not None and before.status == "done":
            assert how == "known"
        if before is not None and before.status == "begun":
            assert how == "unsure"

    @precondition(lambda self: self.at_work)
    @rule(data=st.data())
    def it_happens(self, data: st.DataObject) -> None:
        """An execution acts."""
        holder = data.draw(st.sampled_from(sorted(self.at_work)))
        if not self.at_work[holder]:
            self.at_work[holder] = True
            self.happened += 1

    @precondition(lambda self: self.at_work)
    @rule(data=st.data(), dies=st.booleans())
    def an_execution_ends(self, data: st.DataObject, *, dies: bool) -> None:
        """It says how it ended, or dies before."""
        holder = data.draw(st.sampled_from(sorted(self.at_work)))
        acted = self.at_work.pop(holder)
        if not dies:
            assert self.known is not None
            self.known = settled_by(self.known, holder, "done" if acted else "undone", holder)

    @precondition(lambda self: self.known is not None and self.known.status == "begun")
    @rule(wrong=st.booleans())
    def a_person_answers(self, *, wrong: bool) -> None:
        """Right, or wrong; the one at work is dead, or its lease is lost."""
        assert self.known is not None
        self.at_work.pop(self.known.holder, None)
        did = self.happened > self.denied
        says_no = not did or wrong
        self.denied += did and wrong
        answer = Approval(decision="reject" if says_no else "approve", by="ann")
        status, output = outcome(answer)
        self.known = settled_by(self.known, self.known.holder, status, output)

    @invariant()
    def never_twice(self) -> None:
        """It happened once, and once more for each time a person said wrongly that it had not."""
        assert self.happened <= 1 + self.denied


OneMail.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
test_a_mail_is_never_sent_twice = OneMail.TestCase


def an_effect(**more: Any) -> Effect:
    """An effect in doubt."""
    return Effect(key="run/mail:42", name="mail:42", holder="t1", told={"to": "ann"}, **more)


def test_who_comes_late_with_a_failure_does_not_undo_what_another_did() -> None:
    done = settled_by(an_effect(), "t1", "done", "#1")
    assert settled_by(done, "t2", "undone", None) == done
    assert settled_by(an_effect(), "t2", "undone", None).status == "begun"


def test_what_is_idempotent_is_never_asked_of_a_person() -> None:
    assert meet(an_effect(), "t2") == "unsure"
    assert meet(an_effect(), "t2", idempotent=True) == "act"


def test_the_ask_shows_the_call_and_not_the_key_of_the_book() -> None:
    ask = doubt(an_effect(task="a", agent="clerk"))
    assert ask.question == "Did 'mail:42' happen?"
    assert ask.evidence == {"effect": "mail:42", "begun_at": 0.0, "call": {"to": "ann"}}
    answer = said(Approval(decision="approve", by="ann"), ask)
    assert answer.decision == "respond"
    assert str(answer.value).startswith("Did 'mail:42' happen? Yes")
