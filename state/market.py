"""What a market remembers: calls for proposals, bids, awards; and the laws by which it goes on.

Who gets what is in `kapelle.state.auction`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from kapelle.state.answers import advice, answered
from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Usage
from kapelle.state.fold import fold
from kapelle.state.ladder import for_judge, graded, in_doubt
from kapelle.state.leaving import Leaving, asserted
from kapelle.state.noun import Noun
from kapelle.state.offer import Bid, Offer, merge_bids
from kapelle.state.policy import Policy
from kapelle.state.reputation import Outcome, Record, merge_outcomes
from kapelle.state.shortage import ask_for_more, cut_short, goes_on, once_funded
from kapelle.state.task import (
    TIERS,
    Failure,
    Result,
    Status,
    Task,
    Tier,
    contradicted,
    merge_results,
    missed,
)
from kapelle.state.verdict import Verdict

Rule = Literal["best_value", "vickrey", "assignment", "sequential"]
"""How awards are made: each task to its best bid; the same at the second price; all tasks at once,
evenly; one task after the other, whoever is busy already being slower."""

Stand = Literal["uncalled", "open", "due", "asking", "done", "lost"]
"""How a task stands: bids are to be called for; it is to be awarded; its contractor is to work; a
person is asked; it is done; nobody does it."""


class Award(Noun):
    """Who gets a task, at what price, and why."""

    id: str
    """Names the award: the same after a crash and on resume."""
    call: int
    """The how-manieth call for proposals it follows from, from 1."""
    task: str
    agent: str
    offer: Offer
    """What was bid."""
    price: int
    """In millionths of a US dollar: what was bid, or what the next best bid leaves room for."""
    chance: float
    """Of success, as the market reckoned."""
    value: int
    """What was to be expected of it, in millionths of a US dollar."""
    over: str | None = None
    """Who came second."""


def merge_answers(
    old: Mapping[str, Approval] | None, new: Mapping[str, Approval] | None
) -> dict[str, Approval]:
    """Fold people's answers, by task. Order and repetition do not matter."""
    return fold(old, new, lambda answer: answer.model_dump_json())


class Dealt(Noun):
    """How one task left a market in which it went on by itself."""

    stand: Stand
    """How it stands in the end."""
    awards: tuple[Award, ...]
    """All of them, the last of which stands."""
    feedback: tuple[str, ...]
    """What was wrong, oldest first."""
    call: int
    """The how-manieth call for proposals was the last, from 1."""
    spent: Usage
    """By the judge."""


def merge_dealt(
    old: Mapping[str, Dealt] | None, new: Mapping[str, Dealt] | None
) -> dict[str, Dealt]:
    """Fold what became of tasks, each of which leaves once. Order and repetition do not matter."""
    return fold(old, new, lambda dealt: dealt.model_dump_json())


class Market(Leaving, total=False):
    """The shared state of a marketplace."""

    tasks: dict[str, Task]
    """What is awarded, by id: the tasks in `inputs["tasks"]`, else the one task."""
    stands: dict[str, Stand]
    call: int
    """How many calls for proposals there were."""
    invited: dict[str, tuple[str, ...]]
    """By agent, the tasks of the present call that fit it."""
    newcomers: list[str]
    """Those of them who are in the registry, not in the market."""
    records: dict[str, Record]
    """What was known of each agent when it was called: the store as it was read."""
    tiers: dict[str, tuple[Tier, Tier]]
    """By agent that was called, its tier and the highest it goes up to by itself."""
    known_as: dict[str, str]
    """By agent, the name under which its outcomes are kept: its own, unless another card has it."""
    bids: Annotated[dict[str, Bid], merge_bids]
    awards: dict[str, tuple[Award, ...]]
    """By task, all awards, the last of which stands."""
    feedback: dict[str, tuple[str, ...]]
    """By task, what was wrong so far, oldest first."""
    results: Annotated[dict[str, Result], merge_results]
    verdicts: dict[str, Verdict]
    """By task, on what was done in this step."""
    asks: dict[str, Escalation]
    """By task, what a person is asked."""
    answers: Annotated[dict[str, Approval], merge_answers]
    outcomes: Annotated[dict[str, Outcome], merge_outcomes]
    """By award, what was measured in this run."""
    held: bool
    """Whether a person may hold the next step, so that each task of it goes on by itself."""
    alone: bool
    """Whether this is the market of one task that goes on by itself."""
    dealt: Annotated[dict[str, Dealt], merge_dealt]
    """By task, how it left such a market in this step."""
    spent: Usage
    """By the judge; bids and results keep their own."""
    capped: bool
    """Whether a person was asked for a larger budget and gave none."""


class Turn(Noun):
    """What follows for a task from work that came back, or from a person's answer."""

    stand: Stand
    """How it stands now."""
    result: Result | None = None
    """The task's result, if it is another one now."""
    score: float | None = Field(default=None, ge=0, le=1)
    """What the award is measured at, if it is."""
    why: str = ""
    """What was wrong."""
    ask: Escalation | None = None
    """What a person is asked, if it stands at `asking`."""


def standing_bids(state: Market, task: str) -> list[Bid]:
    """The bids of the present call that can win the task: none of an agent that had it.

    For work whose author is not sure of it those of higher tiers, if there are any.
    """
    tried, last = tried_by(state, task), state["results"].get(task)
    bids = [
        bid
        for bid in state["bids"].values()
        if bid.task == task
        and bid.call == state["call"]
        and bid.status == "proposed"
        and bid.agent not in tried
    ]
    return _above(state, tried, bids) if last is not None and in_doubt(last) else bids


def _above(state: Market, tried: Iterable[str], bids: Iterable[Bid]) -> list[Bid]:
    """The bids of agents whose tier is above all that had the task."""
    tiers = state.get("tiers") or {}
    had = max((TIERS.index(tiers[agent][1]) for agent in tried if agent in tiers), default=-1)
    return [bid for bid in bids if bid.agent in tiers and TIERS.index(tiers[bid.agent][0]) > had]


def climbs(state: Market, task: str, policy: Policy) -> bool:
    """Whether doubtful work goes to a bidder of a higher tier, before judge or person see it."""
    last, tried = state["results"].get(task), tried_by(state, task)
    if last is None or not in_doubt(last) or len(tried) >= policy.agents_per_task:
        return False
    return bool(tried) and bool(standing_bids(state, task))


def tried_by(state: Market, task: str) -> list[str]:
    """Who was awarded the task in the present call."""
    return [a.agent for a in state["awards"].get(task, ()) if a.call == state["call"]]


def after_work(stopped: Result, verdict: Verdict | None) -> Turn:
    """What follows from a contractor's result. Only what the agent did is measured."""
    result = stopped if verdict is None else for_judge(stopped)
    if result.status == "waiting":
        return Turn(stand="asking", ask=_about_result(result, result.escalation))
    if result.status in ("done", "partial"):
        made, turn = graded(result, verdict), _judged(result, verdict)
        return turn if made is stopped else turn.model_copy(update={"result": made})
    kind, why = _failure(result)
    if result.status == "refused" or kind in ("refused", "budget"):
        return Turn(stand="lost", why=why)
    return Turn(stand="open", why=why, score=None if kind in ("blocked", "unavailable") else 0)


def _judged(result: Result, verdict: Verdict | None) -> Turn:
    whole = 1.0 if result.status == "done" else 0.5
    if verdict is None or verdict.decision == "accept":
        said = verdict.score if verdict else None
        return Turn(stand="done", score=whole if said is None else min(whole, said))
    why = verdict.reason or "it was not accepted"
    if verdict.decision == "revise":
        return Turn(stand="open", score=0, why=why)
    return Turn(stand="asking", ask=_about_result(result, verdict.escalation, why))


def after_answer(ask: Escalation, result: Result, answer: Approval) -> Turn:
    """What follows from a person's answer.

    What was asked about an `award` has no result yet; about a `task`: nobody did it; about a
    `result`: it is the contractor's.
    """
    by_agent = ask.about == "result"
    amended = answered(result, answer)
    why = amended.failure.message if amended.failure else ""
    if answer.decision == "approve":
        done = Turn(stand="done", result=amended, score=1)
        return done if by_agent else Turn(stand="due")
    if answer.decision == "edit":
        return Turn(stand="done", result=amended, score=0 if by_agent else None)
    if answer.decision == "reject":
        return Turn(stand="lost", result=amended, score=0 if by_agent else None, why=why)
    again: Stand = "due" if by_agent else "uncalled"
    return Turn(stand=again, result=amended, why=advice(answer))


def _about_result(result: Result, ask: Escalation | None, why: str = "") -> Escalation:
    said = ask or Escalation(
        question=f"Accept what {result.agent} did for {result.task!r}?",
        reason=why,
        evidence=result.output,
    )
    return said.model_copy(update={"about": "result", "task": result.task})


def at_stake(state: Market) -> list[str]:
    """The tasks that somebody works at, or a person is asked about."""
    return [task for task, stand in state["stands"].items() if stand in ("due", "asking")]


def alone_with(state: Market, task: str) -> Market:
    """The market as it is for one task that goes on by itself."""
    by_task = ("tasks", "stands", "awards", "feedback", "results", "asks")
    mine = {name: _only(task, state[name]) for name in by_task}  # type: ignore[literal-required]
    bids = {key: bid for key, bid in state["bids"].items() if bid.task == task}
    fresh = {"answers": {}, "verdicts": {}, "dealt": {}, "spent": Usage(), "held": False}
    return cast(Market, {**state, **mine, **fresh, "bids": bids, "alone": True})


def _only(task: str, held: Mapping[str, Any]) -> dict[str, Any]:
    return {task: held[task]} if task in held else {}


def together(state: Market) -> Market:
    """The market with what became of the tasks that went on by themselves."""
    dealt = state["dealt"]
    change = {
        "stands": state["stands"] | {task: one.stand for task, one in dealt.items()},
        "awards": state["awards"] | {task: one.awards for task, one in dealt.items()},
        "feedback": state["feedback"] | {task: one.feedback for task, one in dealt.items()},
        "asks": {task: ask for task, ask in state["asks"].items() if task not in dealt},
        "call": max([state["call"], *(one.call for one in dealt.values())]),
        "spent": sum((one.spent for one in dealt.values()), state["spent"]),
    }
    return cast(Market, {**state, **change})


def is_dear(price: int, policy: Policy) -> bool:
    """Whether a person is to see an award at this price, in millionths of a US dollar, first."""
    most = policy.ask_above.usd
    return most is not None and price > most * 1_000_000


def price_ask(award: Award, goal: str) -> Escalation:
    """The ask before an award that is dear."""
    return Escalation(
        question=f"Award {award.task!r} to {award.agent} for ${award.price / 1_000_000:.2f}?",
        reason="The price is above what the policy lets agents spend without a person.",
        evidence={"goal": goal, "award": award.model_dump(mode="json")},
        about="award",
        task=award.task,
        by=award.agent,
        offers=("approve", "edit", "reject"),
    )


def nobody_ask(task: Task, why: str, last: Result | None) -> Escalation:
    """The ask about a task that nobody took on, or nobody is left to do."""
    return Escalation(
        question=f"Nobody does {task.id!r}. What now?",
        reason=why,
        evidence={"goal": task.goal, "output": last.output if last else None},
        about="task",
        task=task.id,
        by=(last.agent if last else None) or "",
        offers=("edit", "reject", "respond"),
    )


def why_nobody(state: Market, task: str) -> str:
    """Why a task has no contractor, in a sentence."""
    said = state["feedback"].get(task, ())
    if tried := tried_by(state, task):
        return f"{', '.join(tried)} failed at it: {said[-1] if said else 'no reason given'}"
    answers = [
        b.status for b in state["bids"].values() if b.task == task and b.call == state["call"]
    ]
    if not answers:
        return said[-1] if said else "it fits nobody in the market"
    counted = ", ".join(f"{n} {status}" for status, n in sorted(Counter(answers).items()))
    return f"of {len(answers)} that were called, {counted}"


def lost(task: Task, last: Result | None, why: str) -> Result:
    """The result of a task that nobody does. What was delivered and not accepted stays in it."""
    failure = last.failure if last else None
    changed = {"status": "failed", "failure": failure or Failure(kind="nobody", message=why)}
    if last is None:
        return Result.model_validate({"task": task.id, **changed})
    return last.model_copy(update={**changed, "revision": last.revision + 1})


def shortage(state: Market, policy: Policy) -> Escalation | None:
    """What a person is asked, once for all, when only what the budget left no room for is open."""
    if policy.on_budget != "ask" or state["capped"]:
        return None
    task, short = state["task"], cut_short(state["results"][t] for t in _unfunded(state))
    return ask_for_more(task.id, task.goal, short, _unfunded(state)) if short else None


def funded(state: Market, answer: Approval) -> dict[str, Any]:
    """What follows: whom it was awarded to does what there was no room for; or it stays undone."""
    if not goes_on(answer):
        return {"escalation": None, "capped": True}
    again: dict[str, Stand] = dict.fromkeys(_unfunded(state), "due")
    return {"escalation": None, "stands": {**state["stands"], **again}}


def _unfunded(state: Market) -> list[str]:
    return [t for t in once_funded(state["results"]) if state["stands"].get(t) == "lost"]


def left_market(state: Market) -> Result:
    """What leaves the market: the one task's result; of many, all outputs by id."""
    root, results = state["task"], state["results"]
    usage = sum((r.usage for r in results.values()), state["spent"])
    usage = sum((b.usage for b in state["bids"].values()), usage)
    if list(state["tasks"]) == [root.id]:
        return results[root.id].model_copy(update={"usage": usage})
    good = {t: r for t, r in sorted(results.items()) if state["stands"].get(t) == "done"}
    bad = {t: r for t, r in sorted(results.items()) if t not in good}
    halves = [part for result in good.values() for part in missed(result)]
    return Result(
        task=root.id,
        status=_status(list(good.values()), list(bad.values())),
        output={t: r.output for t, r in good.items()} or None,
        claims=asserted(good.values()),
        usage=usage,
        failure=cut_short(bad.values()) or next((r.failure for r in bad.values()), None),
        missing=tuple(sorted([*bad, *halves])),
        contradictions=contradicted(results.values()),
    )


def _status(good: list[Result], bad: list[Result]) -> Status:
    if not good:
        return "refused" if all(r.status == "refused" for r in bad) else "failed"
    return "partial" if bad or any(r.status == "partial" for r in good) else "done"


def _failure(result: Result) -> tuple[str, str]:
    failure = result.failure
    return (failure.kind, failure.message) if failure else ("raised", "it failed")


def market_flaws(tasks: Iterable[Task], policy: Policy) -> list[str]:
    """What keeps tasks from being awarded side by side: each flaw a sentence."""
    tasks = list(tasks)
    ids = Counter(task.id for task in tasks)
    if len(tasks) > policy.max_tasks:
        return [f"there are {len(tasks)} tasks; the limit is {policy.max_tasks}"]
    return [f"task id {i!r} is used {n} times" for i, n in ids.items() if n > 1] + [
        f"task {t.id!r} needs {', '.join(t.needs)}; a market awards tasks that need no other"
        for t in tasks
        if t.needs
    ]
