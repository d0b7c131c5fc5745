"""Reputation: what agents' work was worth, measured, and what is to be expected of them.

Beta reputation with forgetting (A. Jøsang and R. Ismail, The Beta Reputation System, 2002): an
agent's record in a skill is how much went well and how much did not, each older outcome counting
`decay` times as much as the next. Where there is no record in a skill, the record in the wider one
stands in, at last that in everything (hierarchical smoothing, as D. MacKay and L. Bauman Peto, A
Hierarchical Dirichlet Language Model, 1995); before all of them stands what the agent says itself.
"""

from collections.abc import Iterable, Mapping
from functools import reduce

from pydantic import Field

from kapelle.state.fold import fold
from kapelle.state.noun import Noun
from kapelle.state.skills import Ontology

OVERALL = ""
"""In a record: the count of all outcomes, whatever the skill."""

UNSURE = 0.5
"""How sure an agent counts that does not say how sure it is."""


class Outcome(Noun):
    """How one award ended, as measured."""

    id: str
    """The award's: an award has one outcome, however often it is told."""
    agent: str
    """Who it was, by the name under which its outcomes are kept."""
    skills: tuple[str, ...] = ()
    """What it counts for: the skills the task wanted, and all wider ones."""
    score: float = Field(ge=0, le=1)
    """1: it was done and found good. 0: it was not."""
    at: float = 0.0
    """Unix time in seconds."""
    why: str = ""
    """What was wrong, if something was."""


class Count(Noun):
    """How much went well, and how much did not; older outcomes count for less than one."""

    good: float = Field(default=0.0, ge=0)
    """Outcomes that were good, in whole or in part."""
    bad: float = Field(default=0.0, ge=0)
    """Outcomes that were not."""

    @property
    def seen(self) -> float:
        """How many outcomes it is worth; at most 1 / (1 - decay)."""
        return self.good + self.bad

    def after(self, score: float, decay: float) -> "Count":
        """The count when one more outcome is in.

        >>> Count(good=4, bad=2).after(1, decay=0.5)
        Count(good=3.0, bad=1.0)
        """
        return Count(good=decay * self.good + score, bad=decay * self.bad + 1 - score)

    def weighed(self, prior: float, weight: float) -> float:
        """The share that went well, where `prior` counts as `weight` outcomes.

        >>> Count(good=1, bad=3).weighed(0.9, weight=2), Count().weighed(0.9, weight=2)
        (0.4666666666666666, 0.9)
        """
        return (weight * prior + self.good) / (weight + self.seen)


class Record(Noun):
    """What is known of one agent."""

    counts: dict[str, Count] = Field(default_factory=dict)
    """By skill; under the empty name, of all."""

    def after(self, outcome: Outcome, decay: float) -> "Record":
        """The record when one more outcome is in."""
        of = dict.fromkeys((OVERALL, *outcome.skills))
        more = {s: self.counts.get(s, Count()).after(outcome.score, decay) for s in of}
        return Record(counts={**self.counts, **more})

    @property
    def overall(self) -> Count:
        """In everything."""
        return self.counts.get(OVERALL, Count())


def record_of(outcomes: Iterable[Outcome], decay: float, begin: Record | None = None) -> Record:
    """The record these outcomes make, the oldest first; order and repetition do not matter."""
    once = {outcome.id: outcome for outcome in outcomes}
    ordered = sorted(once.values(), key=lambda outcome: (outcome.at, outcome.id))
    return reduce(lambda record, one: record.after(one, decay), ordered, begin or Record())


def lineages(skills: Iterable[str], ontology: Ontology) -> tuple[str, ...]:
    """The skills a task wants and all wider ones, each once: what its outcome counts for."""
    return tuple(dict.fromkeys(wider for skill in skills for wider in ontology.lineage(skill)))


def expected(
    record: Record, said: float | None, skills: Iterable[str], ontology: Ontology, trust: float
) -> float:
    """The chance that the agent does well at a task that wants these skills: of its weakest.

    What the agent says counts as `trust` outcomes; so does each wider record for the narrower one.
    """
    overall = record.overall.weighed(UNSURE if said is None else said, trust)
    return min((_in_skill(record, s, ontology, overall, trust) for s in skills), default=overall)


def _in_skill(
    record: Record, skill: str, ontology: Ontology, overall: float, trust: float
) -> float:
    """By the record in the skill, backed off to the wider ones, then to the record in all."""
    line = reversed(ontology.lineage(skill))
    counts = (record.counts.get(each, Count()) for each in line)
    return reduce(lambda prior, count: count.weighed(prior, trust), counts, overall)


def merge_outcomes(
    old: Mapping[str, Outcome] | None, new: Mapping[str, Outcome] | None
) -> dict[str, Outcome]:
    """Fold outcomes: an award has one, the first. Order and repetition do not matter."""
    return fold(old, new, lambda outcome: (outcome.at, outcome.model_dump_json()))
