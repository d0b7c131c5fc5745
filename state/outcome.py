"""How a vote stands, and what leaves a swarm: a result, or an ask."""

from itertools import combinations
from typing import Any

from pydantic import JsonValue

from kapelle.state.answers import advice
from kapelle.state.approval import Approval, Escalation
from kapelle.state.ballot import (
    AheadBy,
    Judged,
    Ranked,
    Tally,
    agreement,
    leaders,
    needed,
    short_of,
    tally,
    weight_of,
)
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.ranking import agreed, at_odds, duel_points, points, support
from kapelle.state.shortage import cut_short, once_funded
from kapelle.state.swarm import Round, Slot, Swarm
from kapelle.state.task import Failure, Result, Task
from kapelle.state.turns import voters


def count(now: Round) -> Tally:
    """The count as it stands; it is settled if nothing is open that could change it.

    Raises:
        TooManyOptions: for Kemeny's rule above 8 options.
    """
    counted = _ranked(now) if isinstance(now.election.rule, Ranked) else _voted(now)
    noted = {"round": now.state["round"], "red_flagged": now.flagged(), "failed": now.failed()}
    return counted.model_copy(update=noted)


def _voted(now: Round) -> Tally:
    rule, votes = now.election.rule, now.votes()
    scores = tally(votes)
    won, settled = leaders(scores), True
    if isinstance(rule, AheadBy):
        won, settled = leaders(scores, rule.k), short_of(rule, scores) == 0
    elif isinstance(rule, Judged):
        won = frozenset(scores)
    else:
        settled = not voters(now)[0]
    return Tally(
        scores=scores,
        winners=tuple(sorted(won)),
        settled=settled,
        votes=len(votes),
        confidence=agreement(rule, scores),
    )


def _ranked(now: Round) -> Tally:
    rule, options, rankings = now.election.rule, now.options(), now.rankings()
    assert isinstance(rule, Ranked)
    alone = dict.fromkeys(options, 1.0) if len(options) == 1 else None  # there is nothing to rank
    scores = alone or points(rule, rankings)
    won = tuple(sorted(leaders(scores)))
    return Tally(
        scores=scores,
        winners=won,
        settled=True,
        votes=len(rankings) or len(now.votes()),
        confidence=support(won[0], rankings) if won else 0.0,
    )


def judged(now: Round, counted: Tally) -> tuple[Tally, bool]:
    """The count after a judge compared its winners; whether the judge contradicted itself."""
    said = now.duels()
    pairs = list(combinations(sorted(counted.winners), 2))
    won = {(a, b): agreed(said.get((a, b)), said.get((b, a))) for a, b in pairs}
    scores = duel_points(counted.winners, won)
    best = tuple(sorted(leaders(scores)))
    flips = any(at_odds(said.get((a, b)), said.get((b, a))) for a, b in pairs)
    change: dict[str, Any] = {"winners": best, "settled": True}
    if isinstance(now.election.rule, Judged):
        change["scores"] = scores
    if isinstance(now.election.rule, Ranked):
        change["confidence"] = support(best[0], now.rankings())
    else:
        change["confidence"] = counted.scores[best[0]] / sum(counted.scores.values())
    return counted.model_copy(update=change), flips


def standoff(counted: Tally) -> str:
    """Why nobody has won, in a sentence."""
    if not counted.winners:
        return "nobody gave an answer that counts"
    if len(counted.winners) == 1:
        return "no answer got far enough ahead"
    return f"{len(counted.winners)} answers are even"


def elected(now: Round, counted: Tally) -> Result:
    """The result of a vote that is won."""
    assert counted.winner is not None
    state, winner = now.state, counted.winner
    made = Result(task=state["task"].id, status="done", confidence=min(1.0, counted.confidence))
    if isinstance(now.election.rule, Ranked):
        change: dict[str, Any] = {"output": now.answer(winner)}
    else:
        best = now.candidates()[winner]
        claims = [c for _, r, key in now.keyed if key == winner for c in r.claims]
        change = {
            "status": best.status,
            "output": best.output,
            "claims": tuple({c.model_dump_json(): c for c in claims}.values()),
            "missing": best.missing,
            "contradictions": best.contradictions,
        }
    return made.model_copy(update=change | {"usage": used(state)})


def cut_off(now: Round, counted: Tally) -> Failure | None:
    """What the budget left no room for in this round, if that could change who has won."""
    state, rule = now.state, now.election.rule
    lost = unfunded(now)
    short = cut_short(state["results"][slot.id] for slot in lost)
    if counted.winner is None or isinstance(rule, Ranked | Judged):
        return short
    if isinstance(rule, AheadBy):
        return None
    to_come = [weight_of(rule, slot.agent) for slot in lost]
    return short if needed(counted.scores, to_come) else None


def unfunded(now: Round) -> list[Slot]:
    """The slots of this round that the budget left no room for."""
    slots = (*now.slots("vote"), *now.slots("rank"), *now.slots("judge"))
    poor = once_funded(now.state["results"])
    return [slot for slot in slots if slot.id in poor and now.stands(slot) == "lost"]


def ended(now: Round, counted: Tally, short: Failure) -> Result:
    """The result of a vote that the budget ended: its winner so far, or how it stands."""
    lost = tuple(slot.id for slot in unfunded(now))
    change: dict[str, Any] = {"status": "partial", "failure": short, "missing": lost}
    if counted.winner is not None:
        return elected(now, counted).model_copy(update=change)
    stands = shown(now, counted)
    change |= {"output": stands} if stands else {"status": "failed"}
    bare = {"task": now.state["task"].id, "usage": used(now.state)}
    return Result.model_validate(bare | change)


def unelected(state: Swarm, why: str) -> Result:
    """The result where nobody gave an answer: the reasons of all, the kind of the first."""
    lost = [r for r in state["results"].values() if r.failure is not None]
    reasons = "; ".join(dict.fromkeys(r.failure.message for r in lost if r.failure))
    refused = bool(lost) and all(r.status == "refused" for r in lost)
    first = lost[0].failure if lost else None
    kind = first.kind if first else "invalid"
    return Result(
        task=state["task"].id,
        status="refused" if refused else "failed",
        failure=Failure(kind=kind, message=f"{why}: {reasons}" if reasons else why),
        usage=used(state),
    )


def settled_by(state: Swarm, answer: Approval) -> Result | None:
    """The result a person's answer leads to; None where the peers are to vote anew."""
    draft = state["draft"] or Result(task=state["task"].id, status="done", usage=used(state))
    if answer.decision == "reject":
        why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
        failure = Failure(kind="refused", message=why)
        return draft.model_copy(update={"status": "refused", "failure": failure})
    if answer.decision == "edit":
        change = {"output": answer.value, "agent": answer.by, "confidence": None}
        return draft.model_copy(update={"status": "done", **change})
    return state["draft"] if answer.decision == "approve" else None


def told(feedback: tuple[str, ...], answer: Approval) -> tuple[str, ...]:
    """What the peers are told when a person wants them to vote anew."""
    return (*feedback, advice(answer))


def undecided(now: Round, counted: Tally, why: str) -> Escalation:
    """The ask where nobody has won."""
    task = now.state["task"]
    return Escalation(
        question=f"The vote on {task.goal!r} has no winner. What is the answer?",
        reason=why,
        evidence=[*shown(now, counted)],
        about="result",
        task=task.id,
        offers=("edit", "reject", "respond"),
    )


def too_close(task: Task, draft: Result, policy: Policy) -> Escalation | None:
    """The ask about a winner with less agreement than the policy wants."""
    sure = draft.confidence or 0.0
    if sure >= policy.min_confidence:
        return None
    return Escalation(
        question=f"Only {sure:.0%} agree on the answer to {task.goal!r}. Accept it?",
        reason=f"The policy asks for {policy.min_confidence:.0%}.",
        evidence=draft.output,
        about="result",
        task=task.id,
    )


def shown(now: Round, counted: Tally) -> list[JsonValue]:
    """How a vote stands, without names: each answer with its score, in order of keys."""
    return [
        {"answer": now.answer(key), "score": score} for key, score in sorted(counted.scores.items())
    ]


def used(state: Swarm) -> Usage:
    """What all calls used."""
    return sum((result.usage for result in state["results"].values()), Usage())
