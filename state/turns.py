"""Who in a swarm is next: no more peers than are needed in any case, people last."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from kapelle.state.ballot import (
    EVEN,
    AheadBy,
    LogOdds,
    Plurality,
    Ranked,
    Rule,
    expected_votes,
    needed,
    short_of,
    tally,
    weight_of,
)
from kapelle.state.policy import Policy
from kapelle.state.swarm import Kind, Round, Slot, malformed
from kapelle.state.task import Task

CROWD = 40
"""Peers of whom an estimate says how many will vote; of a larger crowd all may."""

LEADS = 100
"""Different leads of a vote that an estimate looks at."""


def voters(now: Round) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    """Whose votes are wanted next, with new slots: no more than are needed in any case.

    People are asked only when there is no agent left to ask.
    """
    rule = now.election.rule
    if isinstance(rule, AheadBy):
        return _again_and_again(now, rule)
    asked = {slot.agent: slot for slot in now.slots("vote")}
    fresh, stopped = [p for p in now.election.peers if p not in asked], now.waiting("vote")
    if isinstance(rule, Plurality | LogOdds):
        fresh.sort(key=lambda peer: -weight_of(rule, peer))
        by_slot = {slot.id: slot.agent for slot in asked.values()}
        stopped.sort(key=lambda slot: -weight_of(rule, by_slot[slot]))
        to_come = [weight_of(rule, p) for p in (*fresh, *(by_slot[s] for s in stopped))]
        wanted = needed(tally(now.votes()), to_come)
        fresh, stopped = fresh[:wanted], stopped[: max(0, wanted - len(fresh))]
    return _slots(now, fresh, "vote") if fresh else (tuple(stopped), ())


def _again_and_again(now: Round, rule: AheadBy) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    slots = now.slots("vote")
    wanted = short_of(rule, tally(now.votes()))
    room = most_votes(rule, len(now.election.peers), now.election.policy) - len(slots)
    able = [peer for peer in now.election.peers if _can_vote(now, peer)]
    if able and min(wanted, room) > 0:
        times = {peer: sum(slot.agent == peer for slot in slots) for peer in able}
        peers = []
        for _ in range(min(wanted, room)):
            peers.append(min(able, key=lambda peer: (times[peer], able.index(peer))))
            times[peers[-1]] += 1
        return _slots(now, peers, "vote")
    return tuple(now.waiting("vote")[:wanted]), ()


def most_votes(rule: Rule, peers: int, policy: Policy) -> int:
    """How many votes and rankings a round may take; comparisons by a judge aside."""
    if isinstance(rule, AheadBy):
        return rule.votes or policy.max_votes
    return 2 * peers if isinstance(rule, Ranked) else peers


def votes_of(rule: Rule, sure: Mapping[str, float | None], policy: Policy) -> tuple[int, int, int]:
    """Votes and rankings of a round: at least, as expected, at most.

    At least: if all agree, and whoever can't change the winner is not asked. `sure` has what the
    peers' cards say of how often they are right (log-odds knows by itself). As expected:
    first-to-ahead-by-k takes what `expected_votes` says for their mean, a count or weighted count
    what `mean_votes` says; all it may, where it does not help or is not known.

    >>> votes_of(AheadBy(k=3), {"a": 0.9, "b": 0.7}, Policy())
    (3, 5, 200)
    >>> votes_of(LogOdds(accuracy={"a": 0.99, "b": 0.6, "c": 0.6}), {"a": None}, Policy())
    (1, 1, 3)
    """
    if isinstance(rule, AheadBy):
        most = most_votes(rule, len(sure), policy)
        known = [p for p in sure.values() if p is not None]
        mean = sum(known) / len(known) if known else 0.0
        expected = expected_votes(mean, rule.k) if mean > 0.5 else most
        return min(rule.k, most), min(most, max(rule.k, math.ceil(expected))), most
    most = most_votes(rule, len(rule.accuracy if isinstance(rule, LogOdds) else sure), policy)
    if not isinstance(rule, Plurality | LogOdds):
        return most, most, most
    right = rule.accuracy if isinstance(rule, LogOdds) else sure
    peers = sorted(right, key=lambda peer: -weight_of(rule, peer))
    weights = [weight_of(rule, peer) for peer in peers]
    enough = (n for n in range(1, most) if not needed({"x": sum(weights[:n])}, weights[n:]))
    least = next(enough, most)
    chances = [chance for peer in peers if (chance := right[peer]) is not None]
    if len(chances) < len(peers) or len(peers) > CROWD:
        return least, most, most
    return least, max(least, math.ceil(mean_votes(weights, chances) - EVEN)), most


def mean_votes(weights: Sequence[float], chances: Sequence[float]) -> float:
    """Votes that are asked for on average until nobody to come can change the winner.

    Who votes is right with his chance, independently; all who are wrong agree, which takes the most
    votes. Exact up to `LEADS` different leads at a time; of more, near ones count as one.

    Args:
        weights: What each vote weighs, in the order of asking.
        chances: How often each is right.

    >>> mean_votes([1, 1, 1], [0.8, 0.8, 0.8])  # the third only if two disagree: .32
    2.32
    """
    waiting: list[dict[float, float]] = [{0.0: 1.0}, *({} for _ in weights)]
    mean = 0.0
    for asked, by_lead in enumerate(waiting):
        for wanted, leads in _by_need(_coarser(by_lead), weights[asked:]).items():
            if not wanted:
                mean += asked * sum(leads.values())
                continue
            after = asked + wanted
            for weight, chance in zip(weights[asked:after], chances[asked:after], strict=True):
                leads = _coarser(_voted(leads, weight, chance))  # noqa: PLW2901 - one vote further
            for lead, likely in leads.items():
                waiting[after][lead] = waiting[after].get(lead, 0.0) + likely
    return round(mean, 9)


Leads = dict[float, float]
"""How likely each lead of what is right is."""


def _by_need(leads: Leads, to_come: Sequence[float]) -> dict[int, Leads]:
    """By how many must vote before anything can be settled."""
    found: dict[int, Leads] = {}
    for lead, likely in leads.items():
        scores = {"right": max(0.0, lead), "wrong": max(0.0, -lead)}
        found.setdefault(needed(scores, to_come), {})[lead] = likely
    return found


def _voted(leads: Leads, weight: float, chance: float) -> Leads:
    """After one more vote."""
    found: Leads = {}
    for lead, likely in leads.items():
        for step, part in ((weight, chance), (-weight, 1 - chance)):
            there = round(lead + step, 9)
            found[there] = found.get(there, 0.0) + likely * part
    return found


def _coarser(leads: Leads) -> Leads:
    """As many as are looked at: each as likely as those near it together."""
    if len(leads) <= LEADS:
        return leads
    low, high = min(leads), max(leads)
    width = (high - low) / LEADS
    found: Leads = {}
    for lead, likely in leads.items():
        near = low + round((lead - low) / width) * width
        found[near] = found.get(near, 0.0) + likely
    return found


def _can_vote(now: Round, peer: str) -> bool:
    """Whether asking a peer again can help: not where it failed, or waits for a person."""
    for slot in now.slots("vote"):
        stand = now.stands(slot) if slot.agent == peer else "done"
        lost = stand == "lost" and not malformed(now.state["results"][slot.id])
        if lost or stand == "waiting":
            return False
    return True


def rankers(now: Round) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    """Who is to rank the options: all peers, where there is something to rank."""
    if len(now.options()) < 2:
        return (), ()
    asked = {slot.agent for slot in now.slots("rank")}
    fresh = [peer for peer in now.election.peers if peer not in asked]
    return _slots(now, fresh, "rank") if fresh else (tuple(now.waiting("rank")), ())


def duelists(now: Round, options: Sequence[str]) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    """The comparisons that are still to be made: each pair in both orders."""
    if now.slots("judge"):
        return tuple(now.waiting("judge")), ()
    pairs = [both for a, b in combinations(sorted(options), 2) for both in ((a, b), (b, a))]
    judge, first = now.election.judge or "", len(now.state["asked"]) + 1
    new = tuple(
        Slot(id=f"{judge}/{n}", agent=judge, kind="judge", round=now.state["round"], pair=pair)
        for n, pair in enumerate(pairs, first)
    )
    return tuple(slot.id for slot in new), new


def _slots(
    now: Round, peers: Iterable[str], kind: Kind
) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    first, turn = len(now.state["asked"]) + 1, now.state["round"]
    new = tuple(
        Slot(id=f"{peer}/{n}", agent=peer, kind=kind, round=turn)
        for n, peer in enumerate(peers, first)
    )
    return tuple(slot.id for slot in new), new


def put(now: Round, slot: Slot) -> Task:
    """The task as it is put to an agent: what there is to rank, and in a debate how it stood.

    Each agent has it in an order of its own, drawn by lot, so that no answer is always the first.
    """
    state, seed = now.state, f"{now.election.policy.seed}/{slot.id}"
    inputs = dict(state["task"].inputs)
    if slot.kind == "rank":
        options = now.options()
        names = shuffled(list(options), seed)
        listed = isinstance(inputs.get("options"), list)
        inputs["options"] = names if listed else {name: options[name] for name in names}
    if state["shown"] and slot.kind != "judge":
        inputs["debate"] = shuffled(state["shown"], seed)
    return state["task"].model_copy(update={"id": slot.id, "inputs": inputs})


def shuffled(items: Sequence[Any], seed: object) -> list[Any]:
    """The items in an order drawn by lot, so that their order tells nothing."""
    order = list(items)
    random.Random(f"{seed}").shuffle(order)
    return order
