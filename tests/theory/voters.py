"""Simulated voters, and elections that are held by the laws alone, without a graph.

What a voter says is a function of seed, run and slot: the same in whatever order votes arrive.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from kapelle.state.ballot import Plurality, Rule, Tally, exact
from kapelle.state.course import Step, proceed
from kapelle.state.outcome import shown
from kapelle.state.policy import Policy
from kapelle.state.swarm import Election, Round, Swarm
from kapelle.state.task import Result, Task
from kapelle.state.turns import put

Voter = Callable[[Task], JsonValue]

Law = Callable[[Swarm, Election], Step]


def an_election(rule: Rule, peers: int = 5, rounds: int = 0) -> Election:
    """Peers by number; as many votes as it takes."""
    return Election(
        rule=rule,
        peers=tuple(f"p{n}" for n in range(peers)),
        judge=None,
        rounds=rounds,
        same=exact,
        policy=Policy(max_votes=100_000),
    )


@dataclass(frozen=True)
class Independent:
    """Right with probability p, whoever else is."""

    p: float
    seed: str
    copies: bool = False
    """Whether in a debate it takes over what one of the others said, drawn by lot."""

    def __call__(self, task: Task) -> JsonValue:
        """`right` or `wrong`."""
        lot = random.Random(f"{self.seed}/{task.id}")
        seen: Any = task.inputs.get("debate")
        if seen and self.copies:
            (drawn,) = lot.choices(seen, [one["score"] for one in seen])
            return drawn["answer"]  # type: ignore[no-any-return]
        return "right" if lot.random() < self.p else "wrong"


def correlated(p: float, rho: float, seed: str) -> Independent:
    """Voters of one run: as good as each other, how good being drawn anew for each run."""
    scale = (1 - rho) / rho
    return Independent(random.Random(seed).betavariate(p * scale, (1 - p) * scale), seed)


@dataclass(frozen=True)
class Held:
    """An election that was held."""

    answer: JsonValue
    """The winner; None if there was none."""
    votes: int
    """Calls it took."""
    tally: Tally


def hold(election: Election, voter: Voter, law: Law = proceed) -> Held:
    """Hold an election, by the laws of the swarm or a mutant of them."""
    state = opened()
    while True:
        step = law(state, election)
        if step.move == "debate":
            state = debated(state, election, step)
        elif step.move != "work":
            now = Round(election, state)
            winner = step.tally.winner
            answer = None if winner is None else now.answer(winner)
            return Held(answer, len(state["asked"]), step.tally)
        else:
            state = cast({**state, "asked": [*state["asked"], *step.new]}, election, step, voter)


def opened() -> Swarm:
    """Before the first vote."""
    return {
        "task": Task(goal="decide"),
        "asked": [],
        "results": {},
        "revisions": {},
        "round": 0,
        "debates": 0,
        "tallies": [],
        "shown": [],
        "feedback": (),
    }


def cast(state: Swarm, election: Election, step: Step, voter: Voter) -> Swarm:
    """What is due is said."""
    now, due = Round(election, state), set(step.due)
    said = {
        slot.id: Result(task=slot.id, status="done", output=voter(put(now, slot)))
        for slot in state["asked"]
        if slot.id in due
    }
    return {**state, "results": {**state["results"], **said}}


def debated(state: Swarm, election: Election, step: Step) -> Swarm:
    """A further round, in which it is seen how the last one stood."""
    seen = shown(Round(election, state), step.tally)
    more = {"round": state["round"] + 1, "debates": state["debates"] + 1, "shown": seen}
    return {**state, **more}  # type: ignore[typeddict-item]


# ── mutants: each breaks one law ──


def first_of_the_tied(state: Swarm, election: Election) -> Step:
    """A mutant: a tie goes to the first of the list."""
    step = proceed(state, election)
    if step.move != "ask" or len(step.tally.winners) < 2:
        return step
    first = step.tally.model_copy(update={"winners": step.tally.winners[:1], "settled": True})
    return replace(step, move="end", tally=first)


def debate_first(state: Swarm, election: Election) -> Step:
    """A mutant: peers see each other's answers before the vote is counted."""
    every = replace(election, policy=election.policy, rule=_ALL)
    if state["debates"] < election.rounds:
        step = proceed(state, every)
        return step if step.move == "work" else replace(step, move="debate")
    return proceed(state, every)


def one_less(state: Swarm, election: Election) -> Step:
    """A mutant: ahead by k - 1 is enough."""
    rule: Any = election.rule
    return proceed(state, replace(election, rule=rule.model_copy(update={"k": rule.k - 1})))


class _Everyone(Plurality):
    """Plurality; the mutant that debates first has everyone speak."""


_ALL = _Everyone()
