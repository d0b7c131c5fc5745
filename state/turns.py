"""Who in a swarm is next: no more peers than are needed in any case, people last."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from kapelle.state.ballot import (
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
    peers' cards say of how often they are right; first-to-ahead-by-k is expected to take what
    `expected_votes` says for their mean, or, where it does not help or is not known, all it may.

    >>> votes_of(AheadBy(k=3), {"a": 0.9, "b": 0.7}, Policy())
    (3, 5, 200)
    >>> votes_of(LogOdds(accuracy={"a": 0.99, "b": 0.6, "c": 0.6}), {"a": None}, Policy())
    (1, 3, 3)
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
    peers = rule.accuracy if isinstance(rule, LogOdds) else sure
    weights = sorted((weight_of(rule, peer) for peer in peers), reverse=True)
    enough = (n for n in range(1, most) if not needed({"x": sum(weights[:n])}, weights[n:]))
    return next(enough, most), most, most


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
