"""What a person's answer makes of a call that a model proposes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.approval import CHOICES, Approval
from kapelle.state.proposal import Permit, Proposal, edited, needs_approval, request, ruled
from tests.laws.drawn import values

arguments = st.dictionaries(st.sampled_from(["to", "text", "n"]), values, max_size=3)

proposals = st.builds(
    Proposal, id=st.just("1.1"), call=st.just("c1"), tool=st.sampled_from(["send", "pay"]),
    args=arguments,
)  # fmt: skip

answers = st.builds(
    Approval, decision=st.sampled_from(CHOICES), by=st.just("ann"), value=values | arguments
)


@given(proposals, proposals, answers)
def test_nothing_is_used_but_what_was_shown(
    shown: Proposal, other: Proposal, answer: Approval
) -> None:
    ruling = ruled(other, Permit(digest=shown.digest, answer=answer))
    if shown.digest != other.digest:
        assert ruling is None
    assert ruled(other, None) is None


@given(proposals, answers)
def test_each_answer_means_one_thing(proposal: Proposal, answer: Approval) -> None:
    ruling = ruled(proposal, Permit(digest=proposal.digest, answer=answer))
    assert ruling is not None
    new = edited(answer.value)
    match answer.decision:
        case "approve":
            assert (ruling.use, ruling.say) == (True, "")
            assert repr(ruling.args) == repr(proposal.args)
        case "edit":
            assert ruling.use == (new is not None)
            assert repr(ruling.args) == repr(new or {})
        case "reject":
            assert (ruling.use, ruling.refused) == (False, True)
        case "respond":
            assert (ruling.use, ruling.refused) == (False, False)


@given(proposals)
def test_the_order_of_arguments_is_no_difference(proposal: Proposal) -> None:
    turned = dict(reversed(proposal.args.items()))
    assert proposal.model_copy(update={"args": turned}).digest == proposal.digest
    other = proposal.model_copy(update={"args": {**proposal.args, "more": 1}})
    assert other.digest != proposal.digest


def test_the_ask_has_the_ecosystem_s_words() -> None:
    shown: Any = request(Proposal(id="1.1", call="c", tool="send"), "Send.", {"type": "object"})
    (action,), (review,) = shown.evidence["action_requests"], shown.evidence["review_configs"]
    assert action == {"name": "send", "args": {}, "description": "Send."}
    assert review["action_name"] == "send"
    assert review["allowed_decisions"] == list(CHOICES) == list(shown.offers)


@pytest.mark.parametrize(
    ("value", "args"),
    [
        ({"to": "x"}, {"to": "x"}),
        ({"args": {"to": "x"}}, {"to": "x"}),
        ({"name": "send", "args": {"to": "x"}}, {"to": "x"}),
        ({"edited_action": {"name": "send", "args": {"to": "x"}}}, {"to": "x"}),
        ({"args": "-v", "name": "x"}, {"args": "-v", "name": "x"}),
        ("x", None),
        (None, None),
    ],
)
def test_edited_arguments_are_read_as_others_write_them(value: Any, args: object) -> None:
    assert edited(value) == args


def test_which_tools_need_approval() -> None:
    assert needs_approval("send_mail", ["send_mail"])
    assert needs_approval("anything", ["*"])
    assert not needs_approval("Send_mail", ["send_*"])
    assert not needs_approval("send_mail", [])
