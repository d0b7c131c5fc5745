"""Open a market, and call for proposals: who is asked to bid for what."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.breaking import ailing
from kapelle.nodes.here import Here, here
from kapelle.nodes.measuring import introduce, known_outcomes
from kapelle.nodes.pattern import Given
from kapelle.nodes.planning import read_tasks
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin as begin_run
from kapelle.state.budget import Usage
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.market import Market, market_flaws
from kapelle.state.needs import by_urgency
from kapelle.state.offer import called
from kapelle.state.policy import Policy
from kapelle.state.reputation import record_of
from kapelle.state.skills import AgentCard, Ontology, fits
from kapelle.state.task import Failure, Result, Task, Tier


class Opener(Protocol):
    """The node that opens a market."""

    async def __call__(self, state: Given, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What is to be awarded, as an update."""
        ...


class Caller(Protocol):
    """The node that calls for proposals."""

    async def __call__(self, state: Market, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Who is invited, and what was known of them, as an update."""
        ...


def open_market(policy: Policy) -> Opener:
    """The node that reads what is to be awarded; it forgets what an earlier task left behind."""

    async def begin(state: Given, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task = here(runtime), state["task"]
        await begin_run(place, task, policy)
        tasks, flaws = _read(task)
        flaws = flaws or market_flaws(tasks, policy)
        wanted = [] if flaws else by_urgency(tasks, task.priority)
        return {
            "tasks": {t.id: t for t in wanted},
            "stands": {t.id: "uncalled" for t in wanted},
            "call": 0,
            "invited": {},
            "newcomers": [],
            "records": {},
            "tiers": {},
            "known_as": {},
            "bids": Overwrite({}),
            "awards": {},
            "feedback": {},
            "results": Overwrite({}),
            "verdicts": {},
            "asks": {},
            "answers": Overwrite({}),
            "outcomes": Overwrite({}),
            "held": False,
            "alone": False,
            "dealt": Overwrite({}),
            "spent": Usage(),
            "capped": False,
            **NOBODY_ASKED,
            "result": _refused(task, "; ".join(flaws)) if flaws else None,
        }

    return begin


def announce(
    agents: Mapping[str, Agent], ontology: Ontology, admits: Collection[str], policy: Policy
) -> Caller:
    """The node that calls those whose skills fit: the market's own, and who it admits."""

    async def announce(state: Market, runtime: Runtime[Services]) -> dict[str, Any]:
        place, call = here(runtime), state["call"] + 1
        due = [t for i, t in state["tasks"].items() if state["stands"][i] == "uncalled"]
        found = _found(place, due, agents, ontology, admits)
        cards = {name: agent.card for name, agent in {**found, **agents}.items()}
        able = {
            name: fitting
            for name in sorted(cards)
            if (fitting := tuple(t.id for t in due if fits(cards[name], t, ontology)))
        }
        invited = called(able, await ailing(place, policy, (cards[name] for name in able)))
        for name in able:
            if name not in invited:
                place.tell("choice", "not called", agent=name, why="it failed too often lately",
                           mark=call)  # fmt: skip
        for name, fitting in invited.items():
            for task in fitting:
                place.tell("message", "cfp", task=task, agent="manager",
                           data={"to": name, "call": call}, mark=name)  # fmt: skip
        now = place.services.clock.now()
        known_as = await introduce(runtime.store, (cards[name] for name in invited), now)
        records = {}
        for name, known in known_as.items():
            measured = await known_outcomes(runtime.store, known)
            measured += [o for o in state["outcomes"].values() if o.agent == known]
            records[name] = record_of(measured, policy.decay)
        return {
            "call": call,
            "invited": invited,
            "newcomers": sorted({*state["newcomers"], *found}),
            "records": {**state["records"], **records},
            "tiers": {**(state.get("tiers") or {}), **_tiers(cards[name] for name in invited)},
            "known_as": {**state["known_as"], **known_as},
            "stands": {**state["stands"], **{t.id: "open" for t in due}},
            "feedback": {**state["feedback"], **_misfits(state, due, invited, cards, ontology)},
        }

    return announce


def _tiers(cards: Iterable[AgentCard]) -> dict[str, tuple[Tier, Tier]]:
    return {card.name: (card.tier, card.top or card.tier) for card in cards}


def _read(task: Task) -> tuple[tuple[Task, ...], list[str]]:
    listed = task.inputs.get("tasks")
    return ((task.model_copy(update={"needs": ()}),), []) if listed is None else read_tasks(listed)


def _refused(task: Task, why: str) -> Result:
    failure = Failure(kind="refused", message=f"the market can't award this: {why}")
    return Result(task=task.id, status="refused", failure=failure)


def _found(
    place: Here,
    tasks: Sequence[Task],
    agents: Mapping[str, Agent],
    ontology: Ontology,
    admits: Collection[str],
) -> dict[str, Agent]:
    """Agents of the registry that fit and are admitted; a name in the market is not theirs."""
    if not admits:
        return {}
    fitting = {a.card.name: a for t in tasks for a in place.services.registry.find(t, ontology)}
    return {n: a for n, a in sorted(fitting.items()) if n in admits and n not in agents}


def _misfits(
    state: Market,
    due: Sequence[Task],
    invited: Mapping[str, Sequence[str]],
    cards: Mapping[str, AgentCard],
    ontology: Ontology,
) -> dict[str, tuple[str, ...]]:
    """Why a task fits nobody, for those that do not."""
    called = {task for fitting in invited.values() for task in fitting}
    have = [skill for card in cards.values() for skill in card.skills]
    return {
        t.id: (*state["feedback"].get(t.id, ()), _misfit(t, ontology.unknown(t.skills, have)))
        for t in due
        if t.id not in called
    }


def _misfit(task: Task, unknown: Sequence[str]) -> str:
    wanted = f"agent {task.agent!r}" if task.agent else f"skills {', '.join(task.skills)}"
    return "; ".join(unknown) or f"it wants {wanted}, which nobody in the market has"
