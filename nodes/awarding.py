"""Award what is open, and settle what came back: who gets a task, and what that was worth."""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Protocol

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.bidding import reject
from kapelle.nodes.board import board, one_limit
from kapelle.nodes.call import call
from kapelle.nodes.ending import tell_end
from kapelle.nodes.here import Here, here, part_of
from kapelle.nodes.judging import read_verdict, verdict_flaws
from kapelle.nodes.measuring import record
from kapelle.nodes.services import Services
from kapelle.state.auction import Won, award_by, weigh
from kapelle.state.breaker import asks_person
from kapelle.state.budget import Usage
from kapelle.state.ladder import for_judge, in_doubt, unsure
from kapelle.state.market import (
    Award,
    Dealt,
    Market,
    Rule,
    Turn,
    after_answer,
    after_work,
    at_stake,
    climbs,
    funded,
    is_dear,
    left_market,
    lost,
    nobody_ask,
    price_ask,
    shortage,
    standing_bids,
    together,
    tried_by,
    why_nobody,
)
from kapelle.state.policy import Policy
from kapelle.state.reputation import Outcome, lineages
from kapelle.state.skills import Ontology
from kapelle.state.task import Brief, Result, Task
from kapelle.state.verdict import Verdict


class Step(Protocol):
    """A control node of the market."""

    async def __call__(self, state: Market, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was decided, as an update."""
        ...


Change = dict[str, dict[str, Any]]
"""What changes for one task: by channel, by task id."""


def award(rule: Rule, ontology: Ontology, policy: Policy, graphs: Collection[str] = ()) -> Step:
    """The node that awards what is open, or finds that there is nobody; at last it ends the market.

    What it decides follows from the state alone: bids, and records as they were read. Of `graphs`,
    each may turn to a person before it has a result.
    """

    async def award(state: Market, runtime: Runtime[Services]) -> dict[str, Any]:
        if state["result"] is not None:
            return {}
        place = here(runtime)
        won = _won(state, rule, ontology, policy)
        changes = [
            _awarded(state, task, won[task.id], place, policy)
            if task.id in won
            else _given_up(state, task, place, policy)
            for task in state["tasks"].values()
            if state["stands"][task.id] == "open"
        ]
        now = _changed(state, changes, ("stands", "awards", "asks", "results"))
        update = {
            **now,
            "results": {t: r for c in changes for t, r in c.get("results", {}).items()},
        }
        after: Market = {**state, **now}  # type: ignore[typeddict-item]
        if set(now["stands"].values()) <= {"done", "lost"}:
            ask = None if state["alone"] else shortage(after, policy)
            if ask is not None:
                place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark="budget")
                return update | {"escalation": ask}
            update["result"] = left = left_market(after)
            if not state["alone"]:
                tell_end(place, state, left)
        return update | {"held": _may_be_held(after, graphs)}

    return award


def judge(critic: Agent, policy: Policy) -> Step:
    """The node that judges what contractors did in this step. Where it fails, a person is asked."""

    async def judge(state: Market, runtime: Runtime[Services]) -> dict[str, Any]:
        place, desk = here(runtime), await board(runtime, policy.parallel)

        async def weighed(task: Task) -> tuple[Verdict, Usage]:
            result = for_judge(state["results"][task.id])
            brief = Brief(results={task.id: result}, goals={task.id: task.goal})
            check = partial(verdict_flaws, known=(task.id,))
            made = await call(
                critic, task, brief, here=place, policy=policy, limit=desk.limit, check=check
            )
            verdict = read_verdict(made, result)
            place.tell("verdict", verdict.decision, task=task.id, agent=critic.card.name,
                       why=verdict.reason, mark=result.revision)  # fmt: skip
            return verdict, made.usage

        due = [t for i, t in state["tasks"].items() if state["stands"][i] == "due"]
        shown = {t.id: for_judge(state["results"][t.id]) for t in due}
        ready = (t for t in due if not climbs(state, t.id, policy))
        done = [t for t in ready if shown[t.id].status in ("done", "partial")]
        if critic.where == "graph":  # one at a time: LangGraph tells its runs apart by their order
            verdicts = [await weighed(task) for task in done]
        else:
            verdicts = await asyncio.gather(*map(weighed, done))
        return {
            "verdicts": {t.id: v for t, (v, _) in zip(done, verdicts, strict=True)},
            "spent": sum((used for _, used in verdicts), state["spent"]),
        }

    return judge


def settle(ontology: Ontology, policy: Policy) -> Step:
    """The node that takes in work and answers, and records once what each award was worth."""

    async def settle(state: Market, runtime: Runtime[Services]) -> dict[str, Any]:
        place, ask = here(runtime), state["escalation"]
        if ask is not None:
            return funded(state, state["answers"][ask.task]) | {"answers": Overwrite({})}
        state = together(state)
        turns = {
            task: turn
            for task in state["tasks"]
            if (turn := _turn(state, task, policy)) is not None
        }
        at = place.services.clock.now()
        measured = {
            outcome.id: outcome
            for task, turn in turns.items()
            if (outcome := _outcome(state, task, turn, ontology, at)) is not None
        }
        for outcome in measured.values():
            place.tell("choice", "measured", agent=outcome.agent, why=outcome.why, mark=outcome.id,
                       data={"score": outcome.score, "skills": list(outcome.skills)})  # fmt: skip
        await record(runtime.store, measured.values())
        for task in turns:
            if climbs(state, task, policy):
                last = state["results"][task]
                place.tell("escalation", "to the next tier", task=task, agent=last.agent or "",
                           why=unsure(last), mark=last.revision)  # fmt: skip
        now = _changed(state, [_settled(state, *each) for each in turns.items()],
                       ("stands", "feedback"))  # fmt: skip
        asks = {t: ask for t, ask in state["asks"].items() if t not in turns}
        return now | {
            "awards": state["awards"],
            "call": state["call"],
            "spent": state["spent"],
            "dealt": Overwrite({}),
            "results": {t: turn.result for t, turn in turns.items() if turn.result is not None},
            "asks": asks | {t: turn.ask for t, turn in turns.items() if turn.ask is not None},
            "answers": Overwrite({}),
            "verdicts": {},
            "outcomes": measured,
        }

    return settle


def deal(market: CompiledStateGraph[Any, Any, Any, Any], policy: Policy) -> Step:
    """The node of one task that goes on by itself, whatever becomes of the others."""

    async def deal(state: Market, runtime: Runtime[Services]) -> dict[str, Any]:
        (task,) = state["tasks"]
        desk = await board(runtime, policy.parallel)
        with part_of(here(runtime)), one_limit(desk):
            left: Any = await market.ainvoke(state)
        dealt = Dealt(
            stand=left["stands"][task],
            awards=left["awards"].get(task, ()),
            feedback=left["feedback"].get(task, ()),
            call=left["call"],
            spent=left["spent"],
        )
        return {
            "dealt": {task: dealt},
            "bids": left["bids"],
            "results": left["results"],
            "outcomes": left["outcomes"],
        }

    return deal


def _may_be_held(state: Market, graphs: Collection[str]) -> bool:
    """Whether a person may hold the next step, and there is another task that must not wait."""
    tasks = at_stake(state)
    asked = any(state["stands"][task] == "asking" for task in tasks)
    at_work = {state["awards"][t][-1].agent for t in tasks if state["stands"][t] == "due"}
    return len(tasks) > 1 and (asked or not at_work.isdisjoint({*graphs, *state["newcomers"]}))


def _won(state: Market, rule: Rule, ontology: Ontology, policy: Policy) -> dict[str, Won]:
    """The awards of what is open and has not failed with too many agents."""
    tasks = [
        task
        for i, task in state["tasks"].items()
        if state["stands"][i] == "open" and len(tried_by(state, i)) < policy.agents_per_task
    ]
    bids = [
        weigh(bid, task, state["records"].get(bid.agent), policy, ontology)
        for task in tasks
        for bid in standing_bids(state, task.id)
    ]
    return award_by(rule, bids, tasks, policy)


def _awarded(state: Market, task: Task, won: Won, place: Here, policy: Policy) -> Change:
    earlier, bid = state["awards"].get(task.id, ()), won.bid
    made = Award(
        id=f"{place.step}/{task.id}",
        call=state["call"],
        task=task.id,
        agent=bid.agent,
        offer=bid.offer,
        price=won.price,
        chance=bid.chance,
        value=bid.quality - won.price,
        over=won.over,
    )
    place.tell("choice", "awarded", task=task.id, agent=made.agent, why=_why(made),
               data=made.model_dump(mode="json"))  # fmt: skip
    if not tried_by(state, task.id):
        _reject(state, task.id, made.agent, place)
    change: Change = {"awards": {task.id: (*earlier, made)}, "stands": {task.id: "due"}}
    if is_dear(made.price, policy):
        ask = price_ask(made, task.goal)
        place.tell("escalation", "asked", task=task.id, agent=made.agent, why=ask.question)
        change |= {"stands": {task.id: "asking"}, "asks": {task.id: ask}}
    return change


def _given_up(state: Market, task: Task, place: Here, policy: Policy) -> Change:
    why, last = why_nobody(state, task.id), state["results"].get(task.id)
    if last is not None and in_doubt(last) and tried_by(state, task.id):  # no bid above it counts
        turn = after_work(last, None)
        assert turn.ask is not None, "it waits"
        return {"stands": {task.id: turn.stand}, "asks": {task.id: turn.ask}}
    if not tried_by(state, task.id):
        _reject(state, task.id, "", place)
    place.tell("escalation", "nobody", task=task.id, why=why)
    if asks_person(policy, tried_by(state, task.id)):
        ask = nobody_ask(task, why, last)
        return {"stands": {task.id: "asking"}, "asks": {task.id: ask}}
    return {"stands": {task.id: "lost"}, "results": {task.id: lost(task, last, why)}}


def _reject(state: Market, task: str, winner: str, place: Here) -> None:
    """Tell those that proposed and did not win."""
    said = ("proposed", "late", "void")
    for bid in state["bids"].values():
        here_and_now = (bid.task, bid.call) == (task, state["call"])
        if here_and_now and bid.agent != winner and bid.status in said:
            reject(place, bid)


def _turn(state: Market, task: str, policy: Policy) -> Turn | None:
    """What follows for a task, if something came back for it."""
    stand, result = state["stands"][task], state["results"].get(task)
    if stand == "due" and result is not None and climbs(state, task, policy):
        return Turn(stand="open", why=unsure(result))
    if stand == "due" and result is not None:
        return after_work(result, state["verdicts"].get(task))
    if stand == "asking" and task in state["answers"]:
        asked = result or Result(task=task, status="waiting")
        return after_answer(state["asks"][task], asked, state["answers"][task])
    return None


def _outcome(state: Market, task: str, turn: Turn, ontology: Ontology, at: float) -> Outcome | None:
    """What the task's last award was worth, if that is known now."""
    if turn.score is None:
        return None
    made, wanted = state["awards"][task][-1], state["tasks"][task].skills
    return Outcome(
        id=made.id,
        agent=state["known_as"].get(made.agent, made.agent),
        skills=lineages(wanted, ontology),
        score=turn.score,
        at=at,
        why=turn.why,
    )


def _settled(state: Market, task: str, turn: Turn) -> Change:
    change: Change = {"stands": {task: turn.stand}}
    if turn.why:
        change["feedback"] = {task: (*state["feedback"].get(task, ()), turn.why)}
    return change


def _changed(state: Market, changes: list[Change], channels: Sequence[str]) -> dict[str, Any]:
    """These channels with all the changes in them."""
    now: dict[str, Any] = {channel: dict(state[channel]) for channel in channels}  # type: ignore[literal-required]
    for change in changes:
        for channel, values in change.items():
            now[channel].update(values)
    return now


def _why(made: Award) -> str:
    chance, price = f"{made.chance:.0%} likely to succeed", f"${made.price / 1_000_000:.4f}"
    return f"{chance}, {price}, {made.offer.seconds:g} s; {made.over or 'nobody'} came second"
