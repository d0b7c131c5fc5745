"""The manager's desk: fold in what came back, decide what is next, say who does it."""

from collections.abc import Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime
from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import close_boards
from kapelle.nodes.here import Here, here
from kapelle.nodes.planning import read_tasks
from kapelle.nodes.services import Services
from kapelle.state.approval import Approval, Escalation
from kapelle.state.event import EventKind
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Failure, Plan, Result, Revision, settled
from kapelle.state.team import (
    Team,
    advice,
    assign,
    failures,
    folded,
    give_up,
    next_move,
    plan_flaws,
    reasons,
    replanned,
    second_chance,
    standings,
)


class Gatherer(Protocol):
    """The node that decides what is next."""

    async def __call__(self, state: Team, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """The next move and all that goes with it, as an update."""
        ...


def gather(workers: Sequence[Agent], policy: Policy) -> Gatherer:
    """The node every other returns to."""
    cards = [worker.card for worker in workers]

    async def gather(state: Team, runtime: Runtime[Services]) -> dict[str, Any]:
        close_boards(runtime)
        place = here(runtime)
        update = _answered(state, cards, policy) if state["answer"] else {}
        results, revisions = _failed(folded(state, update), cards, policy, place)
        update |= {"results": results, "revisions": update.get("revisions", {}) | revisions}
        now = folded(state, update)
        move = next_move(now, policy)
        if move == "work":
            update |= {"assigned": _assigned(now, cards, place)}
        elif move == "replan" and now["plan"] is not None:
            update |= {"feedback": reasons(now), "replans": now["replans"] + 1}
        elif move == "end" and now["result"] is not None:
            place.tell("run", now["result"].status, task=state["task"].id)
        return update | {"move": move}

    return gather


def _answered(state: Team, cards: Sequence[AgentCard], policy: Policy) -> dict[str, Any]:
    answer, plan, draft = state["answer"], state["plan"], state["draft"]
    assert answer is not None
    done: dict[str, Any] = {"answer": None}
    if answer.decision == "reject":
        return done | {"result": _rejected(state, answer)}
    if answer.decision == "respond":
        said = {"feedback": (*state["feedback"], advice(answer))}
        return done | said | ({"plan": None} if draft is None else {"draft": None})
    if draft is not None:
        change = {"output": answer.value, "agent": answer.by} if answer.decision == "edit" else {}
        return done | {"result": draft.model_copy(update={"escalation": None, **change})}
    if answer.decision == "edit":
        return done | _edited(answer.value, cards, policy, state)
    return done if plan is not None else done | {"feedback": (*state["feedback"], advice(answer))}


def _edited(
    value: JsonValue, cards: Sequence[AgentCard], policy: Policy, state: Team
) -> dict[str, Any]:
    tasks, flaws = read_tasks(value)
    flaws = flaws or plan_flaws(tasks, cards, policy, root=state["task"].id)
    if not flaws:
        new = Plan(tasks=tasks)
        orders = replanned(state["plan"], new, state["results"], state["revisions"])
        return {"plan": new, "revisions": orders}
    ask = Escalation(
        question=f"The plan given for {state['task'].goal!r} can't be worked on. What now?",
        reason="; ".join(flaws),
        evidence=value,
        about="plan",
        task=state["task"].id,
        offers=("edit", "reject", "respond"),
    )
    return {"plan": None, "escalation": ask}


def _rejected(state: Team, answer: Approval) -> Result:
    why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
    failure = Failure(kind="refused", message=why)
    draft = state["draft"]
    if draft is not None:
        return draft.model_copy(
            update={"status": "refused", "failure": failure, "escalation": None}
        )
    usage = sum((r.usage for r in state["results"].values()), state["spent"])
    return Result(task=state["task"].id, status="refused", failure=failure, usage=usage)


def _failed(
    state: Team, cards: Sequence[AgentCard], policy: Policy, place: Here
) -> tuple[dict[str, Result], dict[str, Revision]]:
    plan = state["plan"]
    results: dict[str, Result] = {}
    revisions: dict[str, Revision] = {}
    if plan is None or state["draft"] is not None:
        return results, revisions
    for task, result in failures(plan, state["results"], state["revisions"]):
        order = second_chance(task, result, state["revisions"].get(task.id), cards, policy)
        if order is not None:
            revisions[task.id] = order
            why, what = order.feedback[-1], "reassigned"
        elif policy.on_failure == "ask":
            ask = give_up(task, result)
            results[task.id] = settled(result, status="waiting", escalation=ask)
            why, what = ask.reason, "given up"
        else:
            continue
        kind: EventKind = "choice" if order else "escalation"
        name = result.agent or ""
        place.tell(kind, what, task=task.id, agent=name, why=why, mark=result.revision)
    return results, revisions


def _assigned(state: Team, cards: Sequence[AgentCard], place: Here) -> dict[str, str]:
    plan = state["plan"]
    assert plan is not None
    stand = standings(plan, state["results"], state["revisions"])
    chosen = assign((t for t in plan.tasks if stand[t.id] == "due"), cards, state["revisions"])
    for task, name in chosen.items():
        last = state["results"].get(task)
        mark = last.revision if last else 0
        place.tell("choice", "assigned", task=task, agent=name, why="by skill and load", mark=mark)
    return chosen
