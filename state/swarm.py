"""What a swarm remembers, and how what came back in a round is read."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_uppercase
from typing import Annotated, Literal

from pydantic import JsonValue, ValidationError

from kapelle.state.ballot import Ranked, Rule, Same, Tally, Vote, weight_of
from kapelle.state.breaker import at_fault
from kapelle.state.context import MasterContext
from kapelle.state.leaving import Leaving
from kapelle.state.noun import Noun
from kapelle.state.policy import Policy
from kapelle.state.ranking import Ranking, ranking_flaws
from kapelle.state.task import Result, Revision, Task, merge_results, merge_revisions
from kapelle.state.team import Standing, standing
from kapelle.state.verdict import Preference

Move = Literal["work", "ask", "end"]
"""What a swarm does next."""

Kind = Literal["vote", "rank", "judge"]

MALFORMED = ("invalid", "too_large")
"""Kinds of failure that red-flag an answer."""


class Slot(Noun):
    """One call: a peer's vote or ranking, or a judge's comparison of a pair in one order."""

    id: str
    """Agent and number, in the order of asking: `ann/1`. The same for the same answers."""
    agent: str
    kind: Kind = "vote"
    round: int = 0
    """The round it belongs to, from 0."""
    pair: tuple[str, ...] = ()
    """For a comparison, the keys of the answers, as they are shown."""

    @property
    def number(self) -> int:
        """Its place in the order of asking, from 1."""
        return int(self.id.rpartition("/")[2])


class Voice(Noun):
    """An agent that takes part by itself in a step that a person may hold."""

    agent: str
    slot: str = ""
    """What it begins with; empty for a peer that may yet be asked."""


def merge_slots(old: Iterable[Slot] | None, new: Iterable[Slot] | None) -> list[Slot]:
    """Fold slots: all of them, in the order of asking."""
    by_id = {slot.id: slot for slot in (*(old or ()), *(new or ()))}
    return sorted(by_id.values(), key=lambda slot: (slot.number, slot.id))


class Swarm(Leaving, total=False):
    """The shared state of a swarm."""

    context: MasterContext
    """What all peers are shown of it: as it was before the first vote."""
    asked: Annotated[list[Slot], merge_slots]
    """Everyone who was asked, in order."""
    results: Annotated[dict[str, Result], merge_results]
    """What came back, by slot."""
    revisions: Annotated[dict[str, Revision], merge_revisions]
    """What a person wants answered again, by slot."""
    due: list[str]
    """Slots that are next: agents to ask, or people, where an agent turned to one."""
    order: list[str]
    """The peers; behind all others those that are ailing."""
    voices: list[Voice]
    """Where a person may hold the next step: who takes part in it, each by itself."""
    round: int
    """0 for the blind first vote."""
    debates: int
    """Rounds in which peers were shown how the vote stood."""
    tallies: list[Tally]
    """Of the rounds that are over."""
    shown: list[JsonValue]
    """In a debate, how the vote before it stood: answers and scores, without names."""
    feedback: tuple[str, ...]
    """What a person told the peers, oldest first."""
    capped: bool
    """Whether a person was asked for a larger budget and gave none."""
    draft: Result | None
    """A result a person is asked to accept."""
    move: Move


@dataclass(frozen=True, kw_only=True)
class Election:
    """Who votes, and by which rule."""

    rule: Rule
    peers: tuple[str, ...]
    judge: str | None
    rounds: int
    """Debates at most."""
    same: Same
    policy: Policy
    graphs: frozenset[str] = frozenset()
    """Agents that may turn to a person before they have an answer."""

    def asking_last(self, sick: Collection[str]) -> "Election":
        """The same, with these peers behind all who are as much worth asking."""
        return replace(self, peers=tuple(sorted(self.peers, key=lambda peer: peer in sick)))


@dataclass(frozen=True)
class Round:
    """What has come back in the round at work."""

    election: Election
    state: Swarm

    def slots(self, kind: Kind) -> list[Slot]:
        """The slots of this round, in the order of asking."""
        return [s for s in self.state["asked"] if s.round == self.state["round"] and s.kind == kind]

    def waiting(self, kind: Kind) -> list[str]:
        """Those who turned to a person."""
        return [slot.id for slot in self.slots(kind) if self.stands(slot) == "waiting"]

    def stands(self, slot: Slot) -> Standing:
        """How a slot stands: due, done, waiting for a person, lost."""
        return standing(self.state["results"].get(slot.id), self.state["revisions"].get(slot.id))

    def answers(self, kind: Kind) -> list[tuple[Slot, Result]]:
        """What counts: answers given, in the order of asking."""
        results = self.state["results"]
        return [
            (slot, results[slot.id]) for slot in self.slots(kind) if self.stands(slot) == "done"
        ]

    @cached_property
    def keyed(self) -> list[tuple[Slot, Result, str]]:
        """The answers that are well-formed, with their keys."""
        return [
            (slot, result, key)
            for slot, result in self.answers("vote")
            if (key := key_of(result.output, self.election.same)) is not None
        ]

    def candidates(self) -> dict[str, Result]:
        """An answer for each key: the first one that is whole."""
        found: dict[str, Result] = {}
        for _, result, key in self.keyed:
            if key not in found or (found[key].status, result.status) == ("partial", "done"):
                found[key] = result
        return dict(sorted(found.items()))

    def votes(self) -> list[Vote]:
        """The votes cast."""
        rule = self.election.rule
        return [
            Vote(peer=slot.agent, choice=key, weight=weight_of(rule, slot.agent))
            for slot, _, key in self.keyed
        ]

    def answer(self, key: str) -> JsonValue:
        """What a key of the count stands for."""
        ranked = isinstance(self.election.rule, Ranked)
        return self.options()[key] if ranked else self.candidates()[key].output

    def options(self) -> dict[str, JsonValue]:
        """What there is to rank: what the task gives, else the peers' answers by letter."""
        given = given_options(self.state["task"])
        if given is not None:
            return given
        return {label(n): result.output for n, result in enumerate(self.candidates().values())}

    def rankings(self) -> list[Ranking]:
        """The rankings given."""
        options = self.options()
        outputs = [result.output for _, result in self.answers("rank")]
        return [tuple(o) for o in outputs if not ranking_flaws(o, options)]  # type: ignore[arg-type]

    def duels(self) -> dict[tuple[str, ...], Preference | None]:
        """What the judge said, by the pair as it was shown."""
        said = {slot.pair: preference(result) for slot, result in self.answers("judge")}
        return {slot.pair: said.get(slot.pair) for slot in self.slots("judge")}

    def flagged(self) -> int:
        """How many answers were malformed."""
        results = self.state["results"]
        cast = [s.id for s in (*self.slots("vote"), *self.slots("rank")) if s.id in results]
        return sum(red_flags(results[slot]) for slot in cast)

    def failing(self) -> set[str]:
        """The peers that failed; those the budget left no room for did not."""
        cast, results = (*self.slots("vote"), *self.slots("rank")), self.state["results"]
        return {slot.agent for slot in cast if slot.id in results and at_fault(results[slot.id])}

    def failed(self) -> int:
        """How many slots have no answer, malformed ones aside."""
        lost = [s for s in (*self.slots("vote"), *self.slots("rank")) if self.stands(s) == "lost"]
        return sum(not malformed(self.state["results"][slot.id]) for slot in lost)


def key_of(answer: JsonValue, same: Same) -> str | None:
    """The key of an answer; None if it is malformed."""
    try:
        return same(answer)
    except Exception:  # noqa: BLE001  the caller's own equality may raise anything
        return None


def preference(result: Result) -> Preference | None:
    """What a judge said of a pair; None if it gave no such thing."""
    try:
        return Preference.model_validate(result.output)
    except ValidationError:
        return None


def malformed(result: Result) -> bool:
    """Whether an answer was discarded for its form."""
    return result.failure is not None and result.failure.kind in MALFORMED


def red_flags(result: Result) -> int:
    """How many malformed answers a slot took."""
    tries = sum(a.failure is not None and a.failure.kind in MALFORMED for a in result.attempts)
    return tries or int(malformed(result))


def given_options(task: Task) -> dict[str, JsonValue] | None:
    """The options a task names: a list of texts, or an object by name; None if it names none."""
    given = task.inputs.get("options")
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list) and all(isinstance(option, str) for option in given):
        return {str(option): option for option in given}
    return None


def label(n: int) -> str:
    """A, B, …, Z, AA, AB and so on."""
    return (label(n // 26 - 1) if n >= 26 else "") + ascii_uppercase[n % 26]
