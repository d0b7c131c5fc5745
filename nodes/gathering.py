"""The manager's desk: fold in what came back, decide what is next, say who does it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime
from pydantic import JsonValue

from kapelle.nodes.agent import Agent, may_ask
from kapelle.nodes.board import close_boards
from kapelle.nodes.breaking import ailing
from kapelle.nodes.following import after_doubt, after_failure
from kapelle.nodes.here import Here, here
from kapelle.nodes.planning import read_tasks
from kapelle.nodes.services import Services
from kapelle.state.answers import advice, crowded, funded, let_pass, refused, shortage
from kapelle.state.approval import Escalation
from kapelle.state.delivery import mailed
from kapelle.state.ladder import in_doubt
from kapelle.state.leaving import with_claims
from kapelle.state.needs import by_urgency
from kapelle.state.orders import adopt, assign, plan_flaws, reasons
from kapelle.state.policy import Policy
from kapelle.state.shortage import goes_on
from kapelle.state.skills import AgentCard
from kapelle.state.task import Plan, Result, Revision
from kapelle.state.team import Team, failures, folded, next_move, standings


class Gatherer(Protocol):
    """The node that decides what is next."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The next move and all that goes with it, as an update."""
        ...


def gather(workers: Sequence[Agent], policy: Policy, *, judged: bool = False) -> Gatherer:
    """The node every other returns to. `judged`: whether there is a judge for doubtful work."""
    cards = [worker.card for worker in workers]

    async def gather(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        place = here(runtime)
        mine = not (state["answer"] and state["found"])  # else it is about claims: see `reconcile`
        update = _heard(state, cards, policy) if mine else {}
        heard = folded(state, update)
        results, revisions = _followed(heard, cards, policy, place, judged=judged)
        update |= {"results": results, "revisions": update.get("revisions", {}) | revisions}
        now = folded(state, update)
        if (ask := shortage(now, policy)) is not None:
            update["escalation"] = ask
            now = folded(state, update)
            place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark="budget")
        if (ask := crowded(now, policy)) is not None:
            update["escalation"] = ask
            now = folded(state, update)
            mark = f"messages/{len(now['passed'])}/{len(now['kept_back'])}"
            place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark=mark)
        move = next_move(now, policy)
        if move == "work":
            sick = await ailing(place, policy, cards)
            assigned = _assigned(now, cards, place, sick)
            update |= {"assigned": assigned, "held": _may_be_held(now, workers, assigned)}
            update |= {"mail": mailed(now["results"], policy.channels, now["passed"])}
        elif move == "replan" and now["plan"] is not None and not now["anew"]:
            update |= {"feedback": reasons(now), "replans": now["replans"] + 1}
        elif move == "end" and now["result"] is not None:
            left = with_claims(now["result"], now.get("claims", ()))
            update |= {"result": left}
            place.tell("run", left.status, task=left.task)
        return update | {"move": move}

    return gather


def _heard(state: Team, cards: Sequence[AgentCard], policy: Policy) -> dict[str, Any]:
    """What follows from a person's answer, if there is one."""
    answer = state["answer"]
    if answer is not None and answer.about == "budget":
        return {"answer": None} | funded(state, answer)
    if answer is not None and answer.about == "messages":
        return {"answer": None} | let_pass(state, answer, policy)
    if answer is not None and answer.about == "estimate" and goes_on(answer):
        return {"answer": None}
    return _answered(state, cards, policy) if answer else {}


def _answered(state: Team, cards: Sequence[AgentCard], policy: Policy) -> dict[str, Any]:
    answer, draft, proposed = state["answer"], state["draft"], state["proposed"]
    assert answer is not None
    done: dict[str, Any] = {"answer": None, "proposed": None}
    said = {"feedback": (*state["feedback"], advice(answer))}
    if answer.decision == "reject":
        return done | {"result": refused(state, answer)}
    if draft is not None:
        if answer.decision == "respond":
            return done | said | {"draft": None}
        change = {"output": answer.value, "agent": answer.by} if answer.decision == "edit" else {}
        return done | {"result": draft.model_copy(update={"escalation": None, **change})}
    if answer.decision == "edit":
        return done | _edited(answer.value, cards, policy, state)
    if answer.decision == "approve" and proposed is not None:
        return done | adopt(state, proposed)
    return done | said | {"anew": True}


def _edited(
    value: JsonValue, cards: Sequence[AgentCard], policy: Policy, state: Team
) -> dict[str, Any]:
    tasks, flaws = read_tasks(value)
    flaws = flaws or plan_flaws(tasks, cards, policy, root=state["task"].id)
    if not flaws:
        return adopt(state, Plan(tasks=tasks))
    ask = Escalation(
        question=f"The plan given for {state['task'].goal!r} can't be worked on. What now?",
        reason="; ".join(flaws),
        evidence=value,
        about="plan",
        task=state["task"].id,
        offers=("edit", "reject", "respond"),
    )
    return {"escalation": ask}


def _followed(
    state: Team, cards: Sequence[AgentCard], policy: Policy, place: Here, *, judged: bool
) -> tuple[dict[str, Result], dict[str, Revision]]:
    """What becomes of failed and of doubtful parts."""
    plan = state["plan"]
    results: dict[str, Result] = {}
    revisions: dict[str, Revision] = {}
    if plan is None or state["draft"] is not None:
        return results, revisions
    lost = {task.id for task, _ in failures(plan, state["results"], state["revisions"])}
    for task in plan.tasks:
        last, order = state["results"].get(task.id), state["revisions"].get(task.id)
        if last is None:
            continue
        result, again = (
            after_failure(task, last, order, cards, policy, place)
            if task.id in lost
            else after_doubt(task, last, order, cards, place, judged=judged)
        )
        results |= {task.id: result} if result else {}
        revisions |= {task.id: again} if again else {}
    return results, revisions


def _may_be_held(state: Team, workers: Sequence[Agent], assigned: Mapping[str, str]) -> bool:
    """Whether a person may hold the next step, and there is another part that must not wait.

    A step that somebody asks in lasts until that is answered, and only then is there another one.
    """
    plan = state["plan"]
    assert plan is not None
    stand = standings(plan, state["results"], state["revisions"])
    waiting = [task.id for task in plan.tasks if stand[task.id] == "waiting"]
    asked = [task for task in waiting if not in_doubt(state["results"][task])]
    graphs = {worker.card.name for worker in workers if may_ask(worker)}
    held = asked or not graphs.isdisjoint(assigned.values())
    return bool(held) and len(waiting) + len(assigned) > 1


def _assigned(
    state: Team, cards: Sequence[AgentCard], place: Here, sick: Mapping[str, int]
) -> dict[str, str]:
    plan = state["plan"]
    assert plan is not None
    stand = standings(plan, state["results"], state["revisions"])
    due = [t for t in by_urgency(plan.tasks, state["task"].priority) if stand[t.id] == "due"]
    chosen = assign(due, cards, state["revisions"], sick)
    for task, name in chosen.items():
        last = state["results"].get(task)
        mark = last.revision if last else 0
        place.tell("choice", "assigned", task=task, agent=name, why="by skill and load", mark=mark)
    return chosen
