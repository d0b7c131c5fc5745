"""What a person decides in a team: about stopped work, a larger budget, messages beyond a limit."""

from typing import Any, Literal

from kapelle.state.approval import Approval, Escalation
from kapelle.state.delivery import ask_to_carry, post, sent
from kapelle.state.needs import dependents
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on, once_funded
from kapelle.state.task import Failure, Result, Revision, Task, settled
from kapelle.state.team import Team, finished, leaves, missing, standings, undone, used


def answered(result: Result, answer: Approval) -> Result:
    """A stopped result after a person's answer; after `respond` it is to be done again."""
    if answer.decision == "approve":
        return settled(result, status="done", failure=None, escalation=None)
    if answer.decision == "edit":
        edited = {"output": answer.value, "agent": answer.by}
        return settled(result, status="done", failure=None, escalation=None, **edited)
    said = (
        f"{answer.by} rejected it"
        if answer.decision == "reject"
        else f"{answer.by} wants it done again"
    )
    why = f"{said}: {answer.reason or answer.value or 'no reason given'}"
    failure = Failure(kind="refused", message=why, agent=result.agent)
    return settled(result, status="refused", failure=failure, escalation=None)


def advice(answer: Approval) -> str:
    """What a person who responded wants the agent to know."""
    said = (answer.reason or answer.decision) if answer.value in (None, "") else answer.value
    return f"{answer.by} says: {said}"


def shortage(state: Team, policy: Policy) -> Escalation | None:
    """What a person is asked when all is done but what the budget left no room for."""
    plan, results = state["plan"], state["results"]
    if policy.on_budget != "ask" or state["capped"] or state["draft"] or state["result"]:
        return None
    if plan is None or state["escalation"] is not None:
        return None
    stand = standings(plan, results, state["revisions"])
    if set(stand.values()) & {"due", "waiting"}:
        return None
    short = cut_short(result for task, result in results.items() if stand.get(task) == "lost")
    if short is None:
        return None
    task = state["task"]
    return ask_for_more(task.id, task.goal, short, missing(plan, results, state["revisions"]))


def unfunded(task: Task, left: Result, policy: Policy, *, capped: bool) -> dict[str, Any]:
    """What follows where planner, synthesizer or judge had no room: `left`, or a person is asked.

    Once they have added to the budget, whoever had no room works again.
    """
    if policy.on_budget != "ask" or capped or left.failure is None:
        return {"result": left}
    ask = ask_for_more(task.id, task.goal, left.failure, left.missing)
    return {"left": left, "escalation": ask}


def funded(state: Team, answer: Approval) -> dict[str, Any]:
    """What follows when a person was asked for more: what was lost for want of it is done."""
    if not goes_on(answer):
        return {"capped": True, "result": state["left"]}
    if state["left"] is not None:
        return {"left": None}
    plan, results = state["plan"], state["results"]
    assert plan is not None
    orders = once_funded(results)
    behind = {
        t: Revision(task=t, number=results[t].revision + 1)
        for t in sorted(dependents(plan, orders))
        if t in results and results[t].status == "failed"
    }
    return {"revisions": orders | behind}


def crowded(state: Team, policy: Policy) -> Escalation | None:
    """What a person is asked when the limit of a channel is reached."""
    if policy.on_messages != "ask" or not policy.channels or state["plan"] is None:
        return None
    if state["escalation"] or state["found"] or state["draft"] or state["result"]:
        return None
    held = _unasked(state, policy)
    return ask_to_carry(state["task"].id, held, sent(state["results"])) if held else None


def let_pass(state: Team, answer: Approval, policy: Policy) -> dict[str, Any]:
    """What follows when a person was asked about messages beyond a limit."""
    which: Literal["passed", "kept_back"] = "passed" if goes_on(answer) else "kept_back"
    return {which: (*state[which], *_unasked(state, policy))}


def _unasked(state: Team, policy: Policy) -> dict[str, str]:
    held = post(state["results"], policy.channels, state["passed"]).held
    return {i: why for i, why in held.items() if i not in state["kept_back"]}


def refused(state: Team, answer: Approval) -> Result:
    """What leaves when a person refuses a plan or a draft: with it whatever was finished."""
    why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
    no: dict[str, Any] = {
        "status": "refused",
        "failure": Failure(kind="refused", message=why),
        "escalation": None,
    }
    draft, plan, results = state["draft"], state["plan"], state["results"]
    if draft is not None:
        return draft.model_copy(update=no)
    bare = Result(task=state["task"].id, usage=used(state), **no)
    if plan is None or not finished(results):
        return bare
    kept = {"output": leaves(plan, results), "missing": missing(plan, results, state["revisions"])}
    parts = undone(plan, results, state["revisions"])
    return Result.model_validate(bare.model_dump() | kept).model_copy(update={"parts": parts})
