"""The boxes of a pipeline: a stage that works, and the gate behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard

from langgraph.runtime import Runtime
from langgraph.types import Overwrite
from pydantic import BaseModel, JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.ending import tell_end
from kapelle.nodes.estimating import guess
from kapelle.nodes.here import Here, here
from kapelle.nodes.judging import read_verdict, verdict_flaws
from kapelle.nodes.pattern import must_be_agent, seated
from kapelle.nodes.posting import tell_dropped, tell_letters
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin
from kapelle.state.approval import Escalation
from kapelle.state.breaker import give_up
from kapelle.state.budget import Usage
from kapelle.state.context import named
from kapelle.state.delivery import ask_to_carry, mailed, sent, writes_to
from kapelle.state.errors import Renamed
from kapelle.state.ladder import for_judge, graded, weighed
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.line import (
    Halt,
    Line,
    Pass,
    after_answer,
    amended,
    at_gate,
    behind,
    called_back,
    crowded,
    left_line,
    let_pass,
    posted,
    schema_flaws,
    standing_claims,
    stopped_at,
    told,
    too_many,
    unjudged,
    verdict_on,
    with_post,
)
from kapelle.state.policy import Policy
from kapelle.state.shortage import ask_for_more, cut_short, goes_on
from kapelle.state.task import Brief, Failure, Result, Task
from kapelle.state.verdict import Verdict

Check = type[BaseModel] | Callable[[Any], object] | Agent
"""What a gate looks with: a schema, a plain function of the output, a judge."""


def must_be_check(given: Check, policy: Policy) -> Check:
    """What was given, if a gate can look with it; a judge `seated` under the policy.

    Raises:
        Misbuilt: when it can't.
    """
    schema = isinstance(given, type) and issubclass(given, BaseModel)
    if not schema and (isinstance(given, type) or not callable(given)):
        must_be_agent(given)  # type: ignore[arg-type]
    return seated(given, policy) if _is_judge(given) else given


def _is_judge(check: Check) -> TypeGuard[Agent]:
    return hasattr(check, "card")


class Box(Protocol):
    """A node of the line."""

    async def __call__(self, state: Line, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What happened, as an update."""
        ...


def opening(stages: Mapping[str, str], policy: Policy) -> Box:
    """The node that opens the line; it forgets what an earlier task left behind.

    `stages` are names with the node of each, here and below.
    """

    async def open_line(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        await begin(here(runtime), state["task"], policy)
        refused, halt = too_many(state["task"], policy), state.get("halt") or _begun(stages)
        return {
            "item": state.get("item", ""),
            "stages": list(stages),
            "results": Overwrite(halt.results),
            "at": halt.at,
            "check": halt.check,
            "feedback": halt.feedback,
            "rounds": halt.rounds,
            "spent": halt.spent,
            "capped": False,
            "passed": halt.passed,
            "kept_back": halt.kept_back,
            **NOBODY_ASKED,
            "move": "collect" if refused else halt.move,
            "halt": None,
            "lines": Overwrite({}),
            "halted": Overwrite({}),
            "result": refused,
        }

    return open_line


def _begun(stages: Mapping[str, str]) -> Halt:
    """Where a line begins."""
    first = next(iter(stages.values()))
    return Halt(results={}, at=0, check=0, feedback=(), rounds=0, spent=Usage(), move=first)


def stage(agent: Agent, stages: Mapping[str, str], policy: Policy) -> Box:
    """The node of one agent; it is given what the earlier stages made, and wrote to it."""
    me, channels = agent.card.name, policy.channels
    linked = writes_to(me, {*stages.values()}, channels)
    graph = getattr(agent, "graph", None)  # LangGraph finds a nested graph in the node's closure

    async def work(state: Line, runtime: Runtime[Services]) -> dict[str, Any]:
        _ = graph
        place, name = here(runtime), _at_work(state, stages)
        earlier = behind(state["stages"], state["at"], state["results"], policy.look_back)
        task, last = _part(state, name), state["results"].get(name)
        brief = Brief(
            results={name: state["results"][name] for name in earlier},
            context=await place.context(task, policy),
            feedback=state["feedback"],
            messages=mailed(state["results"], channels, state.get("passed", ())).get(me, ()),
            peers=linked,
        )
        result = weighed(await call(agent, task, brief, here=place, policy=policy), policy)
        change: dict[str, Any] = {"task": name}
        if last is not None:
            change |= {"revision": last.revision + 1, "usage": last.usage + result.usage}
        result = result.model_copy(update=change)
        if channels:
            tell_letters(place, result, task.id)
        return {"results": {name: result}}

    return work


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
        place, name, answer = here(runtime), _at_work(state, stages), state["answer"]
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
            look = await _look(checks.get(name, ()), state, result, place, policy)
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
        place.tell("choice", way, task=_part(state, name).id, why=why or result.status,
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


@dataclass(frozen=True)
class _Look:
    """How far the checks of a gate came."""

    result: Result
    verdict: Verdict | None
    check: int
    """The check that is next."""
    spent: Usage
    more: bool = False
    """Whether it let through, and there is another check."""
    short: Result | None = None
    """What a judge had no room for, where a person is asked for more."""


async def _look(
    mine: Sequence[Check], state: Line, result: Result, place: Here, policy: Policy
) -> _Look:
    """Check a stage's work, up to the first that does not accept it, or that costs something."""
    result = for_judge(result) if any(map(_is_judge, mine)) else result
    check, spent, verdict = state["check"], state["spent"], None
    while check < len(mine) and result.status in ("done", "partial"):
        made, verdict = await _checked(mine[check], state, result, place, policy)
        spent += made.usage if made else Usage()
        if made and made.failure and made.failure.kind == "budget":
            if policy.on_budget == "ask" and not state["capped"]:
                return _Look(result, None, check, spent, short=made)
            return _Look(unjudged(result, made), None, check, spent)
        check += 1
        if verdict.decision != "accept":
            break
        if made and check < len(mine):
            return _Look(result, verdict, check, spent, more=True)
    return _Look(graded(result, verdict), verdict, check, spent)


def _at_work(state: Line, stages: Mapping[str, str]) -> str:
    """The name of the stage at work.

    Raises:
        Renamed: the stages are not those the line was opened with.
    """
    at, were = state["at"], state["stages"]
    if list(stages) != were:
        now = ", ".join(map(repr, stages))
        raise Renamed(stage=were[at], now=now, was=", ".join(map(repr, were)))
    return were[at]


def _part(state: Line, name: str) -> Task:
    """A stage's task: the whole's, by the stage's name, after the item's if there are several."""
    item = state["item"]
    return state["task"].model_copy(update={"id": f"{item}/{name}" if item else name})


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
            else _ask(_part(state, names[at]), result, verdict)
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
        ask = ask_to_carry(_part(state, names[at]).id, held, sent(state["results"]))
        _tell_ask(place, ask, result, state)
        return {"move": "approve", "escalation": ask}
    back = called_back(state, [stages[name] for name in names], policy)
    if back is None:
        return {}
    name = names[back]
    place.tell("choice", "reopened", task=_part(state, name).id, why="a message asks for it",
               mark=state["results"][name].revision)  # fmt: skip
    return {"move": stages[name], "at": back, "feedback": (), "rounds": 0}


async def _halted(
    state: Line,
    look: _Look,
    stages: Mapping[str, str],
    agents: Mapping[str, Agent],
    place: Here,
    policy: Policy,
) -> dict[str, Any]:
    """An item's line leaves with how far it came: for all of them a person is asked once."""
    name, result = _at_work(state, stages), look.result
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
    place.tell("choice", "halt", task=_part(state, name).id, why=_why(left),
               mark=f"{result.revision}/{state['rounds']}")  # fmt: skip
    left = await _leaving(left, after, place, policy)
    return {"move": "end", "result": left, "halt": halt}


def _stops(look: _Look, policy: Policy) -> bool:
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
            task=_part(state, name).id,
            status="failed",
            failure=Failure(
                kind="blocked",
                message="the line was stopped",
                wanted=guess(agents[stages[name]], _part(state, name)),
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
    part, unbegun = _part(state, state["stages"][state["at"]]), _unbegun(state, stages, agents)
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


async def _checked(
    check: Check, state: Line, result: Result, place: Here, policy: Policy
) -> tuple[Result | None, Verdict]:
    """What one check of a gate says; with the call it took, if it took one."""
    if isinstance(check, type):
        return None, verdict_on(schema_flaws(result.output, check))
    if _is_judge(check):
        return await _judged(check, state, result, place, policy)
    look: Any = check
    return None, _looked(look, result.output)


async def _judged(
    judge: Agent, state: Line, result: Result, place: Here, policy: Policy
) -> tuple[Result, Verdict]:
    name, part = result.task, _part(state, result.task)
    seen = behind(state["stages"], state["at"], state["results"], policy.look_back)
    brief = Brief(
        results={n: state["results"][n] for n in (*seen, name)},
        context=await place.context(part, policy),
    )
    flaws = partial(verdict_flaws, known=())
    made = await call(judge, part, brief, here=place, policy=policy, check=flaws)
    verdict = read_verdict(made, result)
    mark = f"{result.revision}/{state['check']}"
    place.tell("verdict", verdict.decision, task=part.id, agent=judge.card.name,
               why=verdict.reason, mark=mark)  # fmt: skip
    return made, verdict


def _looked(look: Callable[[JsonValue], object], output: JsonValue) -> Verdict:
    """What a plain function says of an output; a person decides where it breaks."""
    try:
        return verdict_on(look(output))
    except Exception as error:  # noqa: BLE001  a stranger's function may raise anything
        name = getattr(look, "__name__", repr(look))
        return Verdict(decision="ask", reason=f"{name} raised {type(error).__name__}: {error}")


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
