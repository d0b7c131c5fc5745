"""How a swarm goes on: more votes, a debate, a judge, a person, the end."""

from dataclasses import dataclass
from typing import Literal

from kapelle.state.ballot import Judged, Ranked, Tally
from kapelle.state.breaker import asks_person
from kapelle.state.errors import TooManyOptions
from kapelle.state.outcome import count, judged, standoff
from kapelle.state.swarm import Election, Move, Round, Slot, Swarm, given_options
from kapelle.state.turns import duelists, rankers, voters

NOTHING = Tally()
"""Nothing counted yet."""


@dataclass(frozen=True)
class Step:
    """What comes next: slots to fill, a debate, something to ask, or the end."""

    move: Literal["work", "debate", "ask", "end"]
    due: tuple[str, ...] = ()
    new: tuple[Slot, ...] = ()
    """Those of `due` that were not asked before."""
    tally: Tally = NOTHING
    why: str = ""


def proceed(state: Swarm, election: Election) -> Step:
    """What follows from what has come back. Only that counts, not in which order it came."""
    now = Round(election, state)
    if again := [slot.id for slot in state["asked"] if now.stands(slot) == "due"]:
        return Step("work", tuple(again))
    if not (isinstance(election.rule, Ranked) and given_options(state["task"]) is not None):
        due, new = voters(now)
        if due:
            open_ = isinstance(election.rule, Ranked | Judged)
            return Step("work", due, new, NOTHING if open_ else count(now))
    if isinstance(election.rule, Ranked):
        due, new = rankers(now)
        if due:
            return Step("work", due, new)
    try:
        counted = count(now)
    except TooManyOptions as refused:
        return Step("ask", why=str(refused))
    return _decide(now, counted)


def _decide(now: Round, counted: Tally) -> Step:
    """What a finished count leads to. A debate comes before a judge, unless judging is the rule."""
    election, many = now.election, len(counted.winners)
    debate = now.state["debates"] < election.rounds
    by_judge = isinstance(election.rule, Judged)
    if election.judge is not None and many > 1 and (by_judge or not debate):
        if many * (many - 1) > election.policy.max_votes:
            return Step("ask", tally=counted, why=f"{many} answers are too many to compare")
        due, new = duelists(now, counted.winners)
        if due:
            return Step("work", due, new, counted)
        counted, flips = judged(now, counted)
        if flips and isinstance(election.rule, Judged) and election.rule.disagreement == "ask":
            return Step("ask", tally=counted, why="the judge's choice changes with the order")
    if counted.winner is not None:
        return Step("end", tally=counted)
    if counted.winners:
        return Step("debate" if debate else "ask", tally=counted, why=standoff(counted))
    last: Move = "ask" if asks_person(election.policy, now.failing()) else "end"
    return Step(last, tally=counted, why=standoff(counted))
