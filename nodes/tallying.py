"""The count: fold in what came back, decide what is next, record it."""

from collections.abc import Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.board import close_boards
from kapelle.nodes.breaking import ailing
from kapelle.nodes.ending import tell_end
from kapelle.nodes.here import Here, here
from kapelle.nodes.pattern import Given
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin
from kapelle.state.approval import Escalation
from kapelle.state.course import NOTHING, Step, proceed
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.outcome import (
    cut_off,
    elected,
    ended,
    settled_by,
    shown,
    told,
    too_close,
    undecided,
    unelected,
    unfunded,
)
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, goes_on, once_funded
from kapelle.state.skills import AgentCard
from kapelle.state.swarm import Election, Round, Swarm, merge_slots
from kapelle.state.task import Failure
from kapelle.state.voices import voices


class Opener(Protocol):
    """The node that opens the vote."""

    async def __call__(self, state: Given, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """A fresh ballot, as an update."""
        ...


class Counter(Protocol):
    """The node that counts."""

    async def __call__(self, state: Swarm, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The next move and all that goes with it, as an update."""
        ...


def opening(policy: Policy) -> Opener:
    """The node that forgets what an earlier task left behind.

    It reads the master context once for all: what becomes known while peers vote, one of them may
    have caused, and the others are blind to it.
    """

    async def open_ballot(state: Given, runtime: Runtime[Services]) -> dict[str, Any]:
        place = here(runtime)
        await begin(place, state["task"], policy)
        return {
            "context": await place.context(state["task"], policy),
            "asked": Overwrite([]),
            "results": Overwrite({}),
            "revisions": Overwrite({}),
            "due": [],
            "order": [],
            "voices": [],
            "round": 0,
            "debates": 0,
            "tallies": [],
            "shown": [],
            "feedback": (),
            "capped": False,
            "draft": None,
            **NOBODY_ASKED,
            "result": None,
        }

    return open_ballot


def count(election: Election, cards: Sequence[AgentCard]) -> Counter:
    """The node every other returns to; `cards` are the peers'."""

    async def tally(state: Swarm, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        place = here(runtime)
        update = _answered(state) if state["answer"] else {}
        if update.get("result") is None:
            now: Swarm = {**state, **update}  # type: ignore[typeddict-item]
            sick = await ailing(place, election.policy, cards)
            update |= _next(now, election.asking_last(sick), place)
        result = update.get("result")
        if result is not None:
            tell_end(place, state, result)
            update |= {"move": "end"}
        return update

    return tally


def _answered(state: Swarm) -> dict[str, Any]:
    """What follows from a person's answer about the whole."""
    answer = state["answer"]
    assert answer is not None
    done: dict[str, Any] = {"answer": None, "draft": None}
    if answer.about == "budget":
        funded = goes_on(answer)
        return done | ({"revisions": once_funded(state["results"])} if funded else {"capped": True})
    result = settled_by(state, answer)
    if result is not None or answer.decision == "approve":
        return done | {"result": result}
    anew = {"round": state["round"] + 1, "shown": [], "feedback": told(state["feedback"], answer)}
    return done | anew


def _next(state: Swarm, election: Election, place: Here) -> dict[str, Any]:
    now, step = Round(election, state), proceed(state, election)
    tell(place, state, step)
    if step.move == "work":
        return {"move": "work", **_due(now, step)}
    if (short := cut_off(now, step.tally)) is not None:
        return _cut_off(now, step, short, place)
    closed = {"tallies": [*state["tallies"], step.tally]}
    if step.move == "debate":
        debate: dict[str, Any] = {
            **closed,
            "round": state["round"] + 1,
            "debates": state["debates"] + 1,
            "shown": shown(now, step.tally),
        }
        return debate | _next({**state, **debate}, election, place)  # type: ignore[typeddict-item]
    return closed | _over(now, step, place)


def _due(now: Round, step: Step) -> dict[str, Any]:
    """Who is next; where a person may hold them, with all who may be next after them."""
    asked = merge_slots(now.state["asked"], step.new)
    after = Round(now.election, {**now.state, "asked": asked})
    return {
        "asked": list(step.new),
        "due": list(step.due),
        "order": list(now.election.peers),
        "voices": voices(after, step.due),
    }


def _cut_off(now: Round, step: Step, short: Failure, place: Here) -> dict[str, Any]:
    """A person is asked to add to the budget; else what there is leaves."""
    if now.election.policy.on_budget != "ask" or now.state["capped"]:
        return {"result": ended(now, step.tally, short)}
    task, lost = now.state["task"], [slot.id for slot in unfunded(now)]
    return _asked(ask_for_more(task.id, task.goal, short, lost), place)


def _over(now: Round, step: Step, place: Here) -> dict[str, Any]:
    """The winner leaves; where there is none, a person is asked, or what was wrong leaves."""
    if step.move == "ask":
        return _asked(undecided(now, step.tally, step.why), place)
    if step.tally.winner is None:
        return {"result": unelected(now.state, step.why)}
    result = elected(now, step.tally)
    doubt = too_close(now.state["task"], result, now.election.policy)
    return {"result": result} if doubt is None else _asked(doubt, place, draft=result)


def _asked(ask: Escalation, place: Here, **more: Any) -> dict[str, Any]:
    place.tell("escalation", "asked", task=ask.task, why=ask.reason)
    return {"move": "ask", "escalation": ask, **more}


def tell(place: Here, state: Swarm, step: Step) -> None:
    """Journal how the vote stands, and who is asked next."""
    tally, mark = step.tally, f"{state['round']}/{len(state['asked'])}"
    if tally != NOTHING:
        data = tally.model_dump(mode="json")
        place.tell("tally", tally.stands, task=state["task"].id, why=step.why, data=data, mark=mark)
    if step.move != "end":
        what = {"work": "asked", "debate": "debate", "ask": "person"}[step.move]
        due = {"due": list(step.due)} if step.due else {}
        place.tell("choice", what, task=state["task"].id, why=step.why, data=due, mark=mark)
