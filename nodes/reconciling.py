"""Reconcile what agents claim: before their work is merged, nothing contradicts unseen.

gather ─ reconcile ─┬─ gather      settled by rule; who relied on what fell works again
└─ arbitrate ─ gather      what no rule settles, by the judge;
what it does not settle goes to a person
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.judging import verdict_flaws
from kapelle.nodes.services import Services
from kapelle.state.context import (
    Contradiction,
    MasterContext,
    left_out,
    with_decisions,
    with_questions,
    without,
)
from kapelle.state.delivery import post, requested
from kapelle.state.policy import Policy
from kapelle.state.reputation import UNSURE
from kapelle.state.resolving import decisions, question, typed_by, undisputed
from kapelle.state.review import (
    Found,
    again,
    answered_by,
    ask_about,
    claims_of,
    flagged,
    recorded,
    reviewed,
    ruled,
    stands_in,
    still_open,
    to_review,
    told,
)
from kapelle.state.task import Brief, Plan, Revision, merge_revisions
from kapelle.state.team import Team, advice
from kapelle.state.verdict import Verdict


class Reviewer(Protocol):
    """A node that settles what can't all hold."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was found and decided, who works again, what is asked, as an update."""
        ...


def reconcile(policy: Policy, *, judged: bool) -> Reviewer:
    """The node that finds what contradicts and settles it by rule, or as a person answered.

    With a judge, what stays open is left to `arbitrate`.
    """

    async def reconcile(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        place, answer = here(runtime), state["answer"]
        held = await _held(place)
        if answer is None:
            found = reviewed(
                _plan(state), state["results"], held, await _reputation(state, place, policy)
            )
            if judged and still_open(found):
                return {"found": found}
            return await _closed(state, found, held, place, policy)
        if answer.decision == "respond":
            orders = told(state["found"], advice(answer), _plan(state), state["results"])
            done = {"found": (), "answer": None, "reviewed": ()}
            record = recorded(state["contradictions"], state["found"])
            return done | {"revisions": orders, "contradictions": record}
        found = answered_by(state["found"], answer, held)
        return {"answer": None} | await _closed(state, found, held, place, policy)

    return reconcile


def arbitrate(judge: Agent, policy: Policy) -> Reviewer:
    """The node that has the judge choose between sides; it can't bring in a value of its own."""

    async def arbitrate(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task, found = here(runtime), state["task"], state["found"]
        held = await _held(place)
        brief = Brief(
            results=state["results"],
            goals={t.id: t.goal for t in _plan(state).tasks},
            context=await place.context(task, policy),
            disputes=still_open(found),
        )
        name = judge.card.name
        made = await call(
            judge, task, brief, here=place, policy=policy, check=lambda v: verdict_flaws(v, ())
        )
        rulings = Verdict.model_validate(made.output).rulings if made.status == "done" else {}
        found = ruled(found, rulings, held, name)
        spent = state["spent"] + made.usage
        return {"spent": spent} | await _closed(state, found, held, place, policy)

    return arbitrate


async def _closed(
    state: Team, found: Found, held: MasterContext, place: Here, policy: Policy
) -> dict[str, Any]:
    """Ask a person about what is open; else decide, and say who works again."""
    if still_open(found) and policy.on_contradiction == "ask":
        doubts = [question(c) for c in still_open(found)]
        most = policy.max_decisions
        await place.services.memory.change(
            place.thread, lambda now: with_questions(now, doubts, most)
        )
        ask = ask_about(found, state["task"].id)
        place.tell("escalation", "asked", task=state["task"].id, why=ask.reason)
        return {"found": found, "escalation": ask}
    found = await _decided(state, found, held, place, policy)
    for one in found:
        place.tell("choice", "decided", why=_why(one), mark=f"{one.kind}/{one.key}")
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


async def _decided(
    state: Team, found: Found, held: MasterContext, place: Here, policy: Policy
) -> Found:
    """Write down what is decided. Where another run was faster, its decision is seen first."""
    claims = claims_of(state["results"])
    memory = place.services.memory
    while True:
        made = (*decisions(found), *undisputed(claims, held, found))
        stamped = [d.model_copy(update={"step": place.step}) for d in made]
        keys, seen = typed_by(claims, held), held.version
        law = partial(
            with_decisions, decisions=stamped, seen=seen, keys=keys, most=policy.max_decisions
        )
        now = await memory.change(place.thread, law)
        if stands_in(now, stamped):
            _tell_full(left_out(now, stamped), place, policy)
            return found
        held = now  # the loser sees the winner before it goes on
        found = reviewed(_plan(state), state["results"], held)


def _tell_full(keys: Sequence[str], place: Here, policy: Policy) -> None:
    if keys:
        why = f"the master context holds {policy.max_decisions} decisions at most (max_decisions)"
        place.tell("choice", "left out", why=why, data={"keys": list(keys)})


def _letters(state: Team, policy: Policy, place: Here) -> dict[str, Revision]:
    """The orders that unread requests come to; what was dropped is told."""
    if not policy.channels:
        return {}
    letters = post(state["results"], policy.channels, state["passed"])
    for message, why in (letters.held | letters.void).items():
        place.tell("message", "dropped", why=why, mark=message)
    return requested(state["results"], letters.carried, policy.rounds)


async def _held(place: Here) -> MasterContext:
    """The context, without what this very node had decided before a crash."""
    return without(await place.services.memory.context(place.thread), place.step)


async def _reputation(state: Team, place: Here, policy: Policy) -> Mapping[str, float]:
    """How good those who claim turned out to be in all they did, as a market reckons it."""
    agents = sorted({claim.by for claim in claims_of(state["results"])})
    known = await place.services.memory.records(agents, policy.decay)
    return {name: record.overall.weighed(UNSURE, policy.trust) for name, record in known.items()}


def _plan(state: Team) -> Plan:
    plan = state["plan"]
    assert plan is not None
    return plan


def _why(found: Contradiction) -> str:
    if found.rule is None:
        return f"{found.key}: {found.why}; open"
    held = f" = {found.decision.value!r}" if found.decision else ""
    who = f" ({found.decision.who})" if found.decision and found.decision.who else ""
    return f"{found.key}{held}: by {found.rule}{who}; {found.why}"
