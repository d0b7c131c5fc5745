"""The manager's desk: fold in what came back, decide what is next, say who does it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime
from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import close_boards
from kapelle.nodes.breaking import ailing
from kapelle.nodes.here import Here, here
from kapelle.nodes.planning import read_tasks
from kapelle.nodes.services import Services
from kapelle.state.approval import Escalation
from kapelle.state.breaker import asks_person, give_up
from kapelle.state.delivery import mailed
from kapelle.state.event import EventKind
from kapelle.state.ladder import climb, rung
from kapelle.state.policy import Policy
from kapelle.state.shortage import goes_on
from kapelle.state.skills import AgentCard
from kapelle.state.task import Plan, Result, Revision, by_urgency, settled
from kapelle.state.team import (
    Team,
    adopt,
    advice,
    assign,
    crowded,
    failures,
    folded,
    funded,
    let_pass,
    next_move,
    plan_flaws,
    reasons,
    refused,
    second_chance,
    shortage,
    standings,
)


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
        results, revisions = _failed(folded(state, update), cards, policy, place)
        doubts, climbs = _doubted(folded(state, update), cards, place, judged=judged)
        orders = update.get("revisions", {}) | revisions | climbs
        update |= {"results": results | doubts, "revisions": orders}
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
            sick = await ailing(place, policy, [card.name for card in cards])
            assigned = _assigned(now, cards, place, sick)
            update |= {"assigned": assigned, "standby": _standby(now, workers, assigned)}
            update |= {"mail": mailed(now["results"], policy.channels, now["passed"])}
        elif move == "replan" and now["plan"] is not None and not now["anew"]:
            update |= {"feedback": reasons(now), "replans": now["replans"] + 1}
        elif move == "end" and now["result"] is not None:
            place.tell("run", now["result"].status, task=state["task"].id)
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


def _failed(
    state: Team, cards: Sequence[AgentCard], policy: Policy, place: Here
) -> tuple[dict[str, Result], dict[str, Revision]]:
    plan = state["plan"]
    results: dict[str, Result] = {}
    revisions: dict[str, Revision] = {}
    if plan is None or state["draft"] is not None:
        return results, revisions
    for task, result in failures(plan, state["results"], state["revisions"]):
        before = state["revisions"].get(task.id)
        order = second_chance(task, result, before, cards, policy)
        if order is not None:
            revisions[task.id] = order
            why, what = order.feedback[-1], "reassigned"
        elif asks_person(policy, (*(before.failed if before else ()), result.agent or "")):
            ask = give_up(task, result, before)
            results[task.id] = settled(result, status="waiting", escalation=ask)
            why, what = ask.reason, "given up"
        else:
            continue
        kind: EventKind = "choice" if order else "escalation"
        name = result.agent or ""
        place.tell(kind, what, task=task.id, agent=name, why=why, mark=result.revision)
    return results, revisions


def _doubted(
    state: Team, cards: Sequence[AgentCard], place: Here, *, judged: bool
) -> tuple[dict[str, Result], dict[str, Revision]]:
    """Doubtful work goes up the ladder: to the next tier, to the judge, to a person."""
    results: dict[str, Result] = {}
    revisions: dict[str, Revision] = {}
    plan = state["plan"]
    for task in plan.tasks if plan else ():
        result, before = state["results"].get(task.id), state["revisions"].get(task.id)
        ask = result.escalation if result is not None else None
        if result is None or result.status != "waiting" or ask is None or ask.about != "doubt":
            continue
        if before is not None and before.number > result.revision:
            continue  # it is to be done again anyway
        to = rung(task, result, before, cards, judged=judged)
        name = result.agent or ""
        place.tell("escalation", f"to the next {to}" if to == "tier" else f"to a {to}",
                   task=task.id, agent=name, why=ask.question, mark=result.revision)  # fmt: skip
        if to == "tier":
            revisions[task.id] = climb(result, before, cards)
        elif to == "person":
            asked = ask.model_copy(update={"about": "task"})
            results[task.id] = settled(result, escalation=asked)
    return results, revisions


def _standby(state: Team, workers: Sequence[Agent], assigned: Mapping[str, str]) -> dict[str, str]:
    """Who stands by in the next step, so that none who waits for a person in it keeps another.

    A step that somebody asks in lasts until that is answered, and only then is there another one.
    """
    plan = state["plan"]
    assert plan is not None
    stand = standings(plan, state["results"], state["revisions"])
    waiting = [
        task
        for task in plan.tasks
        if stand[task.id] == "waiting"
        and (ask := state["results"][task.id].escalation) is not None
        and ask.about != "doubt"
    ]
    graphs = {worker.card.name for worker in workers if worker.where == "graph"}
    held = waiting or not graphs.isdisjoint(assigned.values())
    if not held or len(waiting) + len(assigned) < 2:
        return {}
    again = assign(waiting, [worker.card for worker in workers], state["revisions"])
    return again | dict.fromkeys(assigned, "approve")


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
