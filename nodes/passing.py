"""The gate behind a stage: its work goes on, back, to a person, or the line stops.

Where the budget ends before the line does, it says what the stages behind would have cost.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.runtime import Runtime

from kapelle.nodes.agent import Agent
from kapelle.nodes.checking import Check, Look, check_work
from kapelle.nodes.ending import tell_end
from kapelle.nodes.estimating import guess
from kapelle.nodes.here import Here, here
from kapelle.nodes.posting import tell_dropped
from kapelle.nodes.services import Services
from kapelle.nodes.staging import Box
from kapelle.state.approval import Escalation
from kapelle.state.breaker import give_up
from kapelle.state.context import named
from kapelle.state.delivery import ask_to_carry, sent
from kapelle.state.gate import (
    Pass,
    after_answer,
    amended,
    at_gate,
    stopped_at,
    told,
    unjudged,
)
from kapelle.state.line import (
    Halt,
    Line,
    called_back,
    crowded,
    left_line,
    let_pass,
    posted,
    stage_at_work,
    stage_task,
    standing_claims,
    with_post,
)
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on
from kapelle.state.task import Failure, Result, Task
from kapelle.state.verdict import Verdict


def stage_gate(
    stages: Mapping[str, str],
    checks: Mapping[str, Sequence[Check]],
    policy: Policy,
    agents: Mapping[str, Agent],
) -> Box:
    """The node behind every stage: validates, judges, sends back, asks, or stops the line.

    It asks one judge an execution, so that none that answered is asked again after an interrupt.
    """

    async def gate(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        place, name, answer = here(runtime), stage_at_work(state, stages), state["answer"]
        result, spent, verdict = state["results"][name], state["spent"], None
        heard: Line = {}
        way: Pass
        if answer is not None and answer.about == "budget" and result.status != "failed":
            return {"answer": None, "capped": not goes_on(answer), "move": "gate"}  # for its judge
        if answer is not None and answer.about == "messages":
            heard, way = let_pass(state, answer, policy), "next"
        elif answer is not None:
            result, way = amended(result, answer), after_answer(answer)
        else:
            look = await check_work(checks.get(name, ()), state, result, place, policy)
            result, verdict, spent = look.result, look.verdict, look.spent
            if state["item"] and _stops(look, policy):
                return await _halted(state, look, stages, agents, place, policy)
            if look.short is not None:
                ask = _for_more(look.short, state, stages, agents)
                _tell_ask(place, ask, result, state)
                return {"spent": spent, "move": "approve", "escalation": ask}
            if look.more:
                return {"check": look.check, "spent": spent, "move": "gate"}
            way = at_gate(result, verdict, state["rounds"], policy)
        if way == "stop":
            result = stopped_at(name, result, verdict, state["rounds"])
        why = verdict.reason if verdict else result.failure.message if result.failure else ""
        place.tell("choice", way, task=stage_task(state, name).id, why=why or result.status,
                   mark=f"{result.revision}/{state['rounds']}")  # fmt: skip
        changed = result is not state["results"][name]
        results = {**state["results"], name: result}
        after: Line = {**state, **heard, "results": results, "spent": spent}
        update: dict[str, Any] = {**heard, **({"results": {name: result}} if changed else {})}
        update |= {"spent": spent, "answer": None, "check": 0}
        moved = _by_post(after, stages, result, place, policy) if way == "next" else {}
        update |= moved or _onward(after, way, stages, result, verdict, place, agents)
        if update["move"] == "end":
            left = _costed(update["result"], after, stages, agents)
            update["result"] = await _leaving(left, after, place, policy)
        return update

    return gate


def _onward(
    state: Line,
    way: Pass,
    stages: Mapping[str, str],
    result: Result,
    verdict: Verdict | None,
    place: Here,
    agents: Mapping[str, Agent],
) -> dict[str, Any]:
    names, at = state["stages"], state["at"]
    if way == "ask":
        ask = (
            _for_more(result, state, stages, agents)
            if _is_short(result)
            else _ask(stage_task(state, names[at]), result, verdict)
        )
        _tell_ask(place, ask, result, state)
        return {"move": "approve", "escalation": ask}
    if way == "again":
        feedback = told(state["feedback"], verdict, state["answer"])
        return {"move": stages[names[at]], "feedback": feedback, "rounds": state["rounds"] + 1}
    if way == "next" and at + 1 < len(names):
        return {"move": stages[names[at + 1]], "at": at + 1, "feedback": (), "rounds": 0}
    left = left_line(state["task"], names, state["results"], state["spent"])
    return {"move": "end", "result": left}


def _by_post(
    state: Line, stages: Mapping[str, str], result: Result, place: Here, policy: Policy
) -> dict[str, Any]:
    """What messages make of the line: a person is asked, an earlier stage is called back."""
    names, at = state["stages"], state["at"]
    if not policy.channels:
        return {}
    if held := crowded(state, policy):
        ask = ask_to_carry(stage_task(state, names[at]).id, held, sent(state["results"]))
        _tell_ask(place, ask, result, state)
        return {"move": "approve", "escalation": ask}
    back = called_back(state, [stages[name] for name in names], policy)
    if back is None:
        return {}
    name = names[back]
    place.tell("choice", "reopened", task=stage_task(state, name).id, why="a message asks for it",
               mark=state["results"][name].revision)  # fmt: skip
    return {"move": stages[name], "at": back, "feedback": (), "rounds": 0}


async def _halted(
    state: Line,
    look: Look,
    stages: Mapping[str, str],
    agents: Mapping[str, Agent],
    place: Here,
    policy: Policy,
) -> dict[str, Any]:
    """An item's line leaves with how far it came: for all of them a person is asked once."""
    name, result = stage_at_work(state, stages), look.result
    halt = Halt(
        results=state["results"],
        at=state["at"],
        check=look.check,
        feedback=state["feedback"],
        rounds=state["rounds"],
        spent=look.spent,
        passed=state.get("passed", ()),
        kept_back=state.get("kept_back", ()),
        move=stages[name] if look.short is None else "gate",
    )
    if look.short is not None:
        result = unjudged(result, look.short)
    after: Line = {**state, "results": {**state["results"], name: result}, "spent": look.spent}
    left = left_line(state["task"], state["stages"], after["results"], look.spent)
    left = _costed(left, after, stages, agents)
    place.tell("choice", "halt", task=stage_task(state, name).id, why=_why(left),
               mark=f"{result.revision}/{state['rounds']}")  # fmt: skip
    left = await _leaving(left, after, place, policy)
    return {"move": "end", "result": left, "halt": halt}


def _stops(look: Look, policy: Policy) -> bool:
    """Whether the budget left no room for the stage or its judge, and a person may add to it."""
    return look.short is not None or (policy.on_budget == "ask" and _is_short(look.result))


def _is_short(result: Result) -> bool:
    """Whether the budget left no room for it, and nobody was asked yet."""
    empty = result.failure is not None and result.failure.kind == "budget"
    return empty and result.escalation is None


def _why(left: Result) -> str:
    return left.failure.message if left.failure else ""


def _costed(
    left: Result, state: Line, stages: Mapping[str, str], agents: Mapping[str, Agent]
) -> Result:
    """What leaves; if the budget ended it, with what the stages behind would have cost as well."""
    if left.failure is None or left.failure.kind != "budget":
        return left
    unbegun = _unbegun(state, stages, agents)
    return left.model_copy(update={"failure": cut_short([left, *unbegun])})


def _unbegun(state: Line, stages: Mapping[str, str], agents: Mapping[str, Agent]) -> list[Result]:
    """The stages behind the one at work, with what each would cost."""
    return [
        Result(
            task=stage_task(state, name).id,
            status="failed",
            failure=Failure(
                kind="blocked",
                message="the line was stopped",
                wanted=guess(agents[stages[name]], stage_task(state, name)),
            ),
        )
        for name in state["stages"][state["at"] + 1 :]
    ]


def _for_more(
    short: Result, state: Line, stages: Mapping[str, str], agents: Mapping[str, Agent]
) -> Escalation:
    """What a person is asked, once for all that is missing: the stage or its judge, and the rest.

    `short` is what the budget left no room for.
    """
    part, unbegun = stage_task(state, state["stages"][state["at"]]), _unbegun(state, stages, agents)
    failure = cut_short([short, *unbegun])
    assert failure is not None
    return ask_for_more(part.id, part.goal, failure, [part.id, *(each.task for each in unbegun)])


def _tell_ask(place: Here, ask: Escalation, result: Result, state: Line) -> None:
    place.tell("escalation", "asked", task=ask.task, agent=ask.by, why=ask.reason,
               mark=f"{result.revision}/{state['rounds']}/{state['check']}")  # fmt: skip


async def _leaving(left: Result, state: Line, place: Here, policy: Policy) -> Result:
    """What leaves, with all that the line claims, and without what it could not carry."""
    left = await _asserting(left, state, place, policy)
    if policy.channels:
        letters = posted(state, policy)
        tell_dropped(place, letters)
        left = with_post(left, letters.held)
    if state["item"]:
        place.tell("run", left.status, task=state["task"].id)
    else:
        tell_end(place, state, left)
    return left


async def _asserting(left: Result, state: Line, place: Here, policy: Policy) -> Result:
    """What leaves, with all that the line claims."""
    names, results = state["stages"], state["results"]
    if not any(result.claims for result in results.values()):
        return left
    context = await place.services.memory.context(place.thread)
    many = {named(key.name) for key in context.keys if key.many}
    claims = standing_claims(names, results, policy.look_back, many)
    return left.model_copy(update={"claims": claims})


def _ask(part: Task, result: Result, verdict: Verdict | None) -> Escalation:
    if result.escalation is not None:
        return result.escalation
    if result.status == "failed":
        return give_up(part, result)
    if verdict is not None and verdict.escalation is not None:
        return verdict.escalation.model_copy(update={"task": part.id})
    return Escalation(
        question=f"Stage {part.id!r} was not accepted. Let its work through?",
        reason=verdict.reason if verdict else "",
        evidence=result.output,
        task=part.id,
        by=result.agent or "",
    )
