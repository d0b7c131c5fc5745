"""Reconcile what a team claims: before its work is merged, and once more with what the draft says.

gather ─ reconcile ─┬─ gather      settled; who relied on what fell works again
                    └─ arbitrate ─ reconcile       what no rule settles, by the judge;
                                   what it does not settle goes to a person
"""

from typing import Any, Protocol

from langgraph.runtime import Runtime

from kapelle.nodes.deciding import Case, held_by, tell_flagged
from kapelle.nodes.here import Here, here
from kapelle.nodes.posting import tell_dropped
from kapelle.nodes.services import Services
from kapelle.state.answers import advice
from kapelle.state.delivery import post, requested
from kapelle.state.leaving import with_record
from kapelle.state.policy import Policy
from kapelle.state.review import (
    Found,
    again,
    answered_by,
    flagged,
    recorded,
    sent_back,
    standing,
    still_open,
    to_review,
    told,
)
from kapelle.state.task import Plan, Revision, merge_revisions
from kapelle.state.team import Team, claimed, presented, to_claim, used


class Reviewer(Protocol):
    """A node that settles what can't all hold."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was found and decided, who works again, what is asked, as an update."""
        ...


def reconcile(policy: Policy, *, judged: bool) -> Reviewer:
    """The node that finds what contradicts and settles it by rule, or as judge or person said.

    With a judge, what stays open is first left to `arbitrate`.
    """

    async def reconcile(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        place, answer, found = here(runtime), state["answer"], state["found"]
        if answer is not None and answer.decision == "respond":
            return _told(state, advice(answer))
        case = Case(claimed(state), to_claim(state), state["task"].id, place, policy)
        held = await held_by(place)
        if answer is not None:
            found = answered_by(found, answer, held)
        elif not found:
            found = await case.found(held)
            if judged and still_open(found):
                return {"found": found}
        ask = await case.asked(found)
        if ask is not None:
            return {"answer": None, "found": found, "escalation": ask}
        found = await case.decided(found, held)
        return {"answer": None} | _closed(state, found, place, policy, judged=judged)

    return reconcile


def _told(state: Team, what: str) -> dict[str, Any]:
    """A person answered `what` instead of deciding: whoever claimed what is open works again."""
    found, draft = state["found"], state["draft"]
    record = recorded(state["contradictions"], found)
    update: dict[str, Any] = {"found": (), "answer": None, "reviewed": (), "contradictions": record}
    update |= {"revisions": told(found, what, _plan(state), state["results"])}
    return update if draft is None else update | _redraft(state, (what,))


def _closed(
    state: Team, found: Found, place: Here, policy: Policy, *, judged: bool
) -> dict[str, Any]:
    """Who works again; what is recorded, and what stands."""
    plan, results, draft, whole = _plan(state), state["results"], state["draft"], state["task"].id
    orders = again(found, plan, results) if state["reviews"] < policy.reviews else {}
    reviews = state["reviews"] + bool(orders)
    amiss = _amiss(state, found, policy)
    if not orders and not amiss:
        found = flagged(found, plan, whole)
        tell_flagged(place, found)
    orders = merge_revisions(orders, _letters(state, policy, place))
    for task, order in orders.items():
        why = "; ".join(order.feedback) or "a message asks for it"
        place.tell("choice", "reopened", task=task, why=why, mark=order.number)
    if amiss:
        why, mark = "; ".join(amiss), f"draft/{state['redrafts']}"
        place.tell("choice", "reopened", task=whole, why=why, mark=mark)
    record = recorded(state["contradictions"], found)
    update = {
        "found": (),
        "contradictions": record,
        "reviewed": to_review(plan, results, state.get("planned", ())),
        "reviews": reviews,
        "revisions": orders,
        "claims": standing(claimed(state), found),
    }
    if draft is None:
        return update
    if orders or amiss:
        return update | _redraft(state, amiss)
    draft = with_record(draft, record).model_copy(update={"usage": used(state)})
    return update | {"vetted": True} | presented(draft, judged=judged)


def _amiss(state: Team, found: Found, policy: Policy) -> tuple[str, ...]:
    """What whoever merged is to mend, if that may be once more."""
    draft = state["draft"]
    if draft is None or draft.agent is None or state.get("redrafts", 0) >= policy.reviews:
        return ()
    return sent_back(found, draft)


def _redraft(state: Team, said: tuple[str, ...]) -> dict[str, Any]:
    """The update by which a draft is dropped and made anew."""
    feedback = (*state["feedback"], *said)
    return {"draft": None, "feedback": feedback, "redrafts": state.get("redrafts", 0) + bool(said)}


def _letters(state: Team, policy: Policy, place: Here) -> dict[str, Revision]:
    """The orders that unread requests come to; what was dropped is told."""
    if not policy.channels:
        return {}
    letters = post(state["results"], policy.channels, state["passed"])
    tell_dropped(place, letters)
    return requested(state["results"], letters.carried, policy.rounds)


def _plan(state: Team) -> Plan:
    plan = state["plan"]
    assert plan is not None
    return plan
