"""Reconcile what a team's workers claim: before their work is merged, nothing contradicts unseen.

gather ─ reconcile ─┬─ gather      settled; who relied on what fell works again
                    └─ arbitrate ─ reconcile       what no rule settles, by the judge;
                                   what it does not settle goes to a person
"""

from typing import Any, Protocol

from langgraph.runtime import Runtime

from kapelle.nodes.deciding import Case, held_by
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.state.delivery import post, requested
from kapelle.state.policy import Policy
from kapelle.state.review import (
    Found,
    again,
    answered_by,
    claims_of,
    flagged,
    promised,
    recorded,
    still_open,
    to_review,
    told,
)
from kapelle.state.task import Plan, Revision, merge_revisions
from kapelle.state.team import Team, advice


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
        plan, results = _plan(state), state["results"]
        if answer is not None and answer.decision == "respond":
            orders = told(found, advice(answer), plan, results)
            done = {"found": (), "answer": None, "reviewed": ()}
            record = recorded(state["contradictions"], found)
            return done | {"revisions": orders, "contradictions": record}
        claims, promises = claims_of(results), promised(plan.tasks)
        case, held = Case(claims, promises, state["task"].id, place, policy), await held_by(place)
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
        return {"answer": None} | _closed(state, found, place, policy)

    return reconcile


def _closed(state: Team, found: Found, place: Here, policy: Policy) -> dict[str, Any]:
    """Who works again; what is recorded."""
    plan, results = _plan(state), state["results"]
    orders = again(found, plan, results) if state["reviews"] < policy.reviews else {}
    reviews = state["reviews"] + bool(orders)
    if not orders:
        found = flagged(found, plan)
    orders = merge_revisions(orders, _letters(state, policy, place))
    for task, order in orders.items():
        why = "; ".join(order.feedback) or "a message asks for it"
        place.tell("choice", "reopened", task=task, why=why, mark=order.number)
    return {
        "found": (),
        "contradictions": recorded(state["contradictions"], found),
        "reviewed": to_review(plan, results),
        "reviews": reviews,
        "revisions": orders,
    }


def _letters(state: Team, policy: Policy, place: Here) -> dict[str, Revision]:
    """The orders that unread requests come to; what was dropped is told."""
    if not policy.channels:
        return {}
    letters = post(state["results"], policy.channels, state["passed"])
    for message, why in (letters.held | letters.void).items():
        place.tell("message", "dropped", why=why, mark=message)
    return requested(state["results"], letters.carried, policy.rounds)


def _plan(state: Team) -> Plan:
    plan = state["plan"]
    assert plan is not None
    return plan
