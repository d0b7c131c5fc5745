"""What the gate behind a stage looks with: a schema, a plain function, a judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

from pydantic import BaseModel, JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here
from kapelle.nodes.judging import read_verdict, verdict_flaws
from kapelle.nodes.pattern import must_be_agent, seated
from kapelle.state.budget import Usage
from kapelle.state.gate import schema_flaws, unjudged, verdict_on
from kapelle.state.ladder import for_judge, graded
from kapelle.state.line import Line, behind, stage_task
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Result
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


@dataclass(frozen=True)
class Look:
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


async def check_work(
    mine: Sequence[Check], state: Line, result: Result, place: Here, policy: Policy
) -> Look:
    """Check a stage's work, up to the first that does not accept it, or that costs something."""
    result = for_judge(result) if any(map(_is_judge, mine)) else result
    check, spent, verdict = state["check"], state["spent"], None
    while check < len(mine) and result.status in ("done", "partial"):
        made, verdict = await _checked(mine[check], state, result, place, policy)
        spent += made.usage if made else Usage()
        if made and made.failure and made.failure.kind == "budget":
            if policy.on_budget == "ask" and not state["capped"]:
                return Look(result, None, check, spent, short=made)
            return Look(unjudged(result, made), None, check, spent)
        check += 1
        if verdict.decision != "accept":
            break
        if made and check < len(mine):
            return Look(result, verdict, check, spent, more=True)
    return Look(graded(result, verdict), verdict, check, spent)


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
    name, part = result.task, stage_task(state, result.task)
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
