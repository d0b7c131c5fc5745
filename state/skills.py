"""Skills: which is which, the cards that name them, and who fits a task."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from typing import Any, Self, cast

import yaml  # type: ignore[import-untyped]
from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    ValidationError,
    field_serializer,
    model_validator,
)

from kapelle.state.errors import Misbuilt
from kapelle.state.noun import Noun
from kapelle.state.task import TIERS, Task, Tier

NEAREST = 3
"""Names that are offered for one that nobody knows."""


class Ontology(Noun):
    """Which skill is a kind of which: a tree of is-a.

    A dotted name is a kind of what stands before its last dot (or slash), declared or not; so an
    ontology that declares nothing is one as well. One that declares skills knows no others.
    """

    parents: dict[str, str | None] = Field(default_factory=dict)
    """Each declared skill and the wider one it is a kind of; None: of what its name says."""

    @model_validator(mode="after")
    def _is_tree(self) -> Self:
        for skill in self.parents:
            seen = [skill]
            while (wider := self.parent(seen[-1])) is not None:
                if wider in seen:
                    circle = " -> ".join([*seen, wider])
                    raise ValueError(f"skills are kinds of each other: {circle}")
                seen.append(wider)
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ontology from JSON or YAML.

        A tree (`math: {algebra: , geometry: }`, or with lists), pairs (`algebra: math`), or a list
        of records with an id and its parent's, as OASF has them: `name` or `id` (or `uid`), and
        `parent` or `extends`, which is a name or an id.

        Raises:
            Misbuilt: when it is none of these, a skill has two parents, or skills are kinds of
                each other.
        """
        try:
            given = _read(text)
            records = given.get("skills", given) if isinstance(given, dict) else given
            pairs = _records(records) if isinstance(records, list) else _tree(records, None)
            return cls(parents=_agreed(pairs))
        except (ValueError, yaml.YAMLError) as error:
            raise Misbuilt(f"this is no ontology: {_first_line(error)}") from error

    def parent(self, skill: str) -> str | None:
        """The wider skill that this one is a kind of.

        >>> Ontology(parents={"algebra": "math"}).parent("algebra"), Ontology().parent("a.b.c")
        ('math', 'a.b')
        """
        cut = max(skill.rfind("."), skill.rfind("/"))
        return self.parents.get(skill) or (skill[:cut] if cut > 0 else None)

    def lineage(self, skill: str) -> tuple[str, ...]:
        """The skill and all wider ones, the narrowest first.

        >>> Ontology(parents={"math": "science"}).lineage("math.algebra")
        ('math.algebra', 'math', 'science')
        """
        line = [skill]
        while (wider := self.parent(line[-1])) is not None:
            line.append(wider)
        return tuple(line)

    def is_a(self, skill: str, wanted: str) -> bool:
        """Whether having `skill` is having `wanted`.

        >>> Ontology().is_a("research.web", "research"), Ontology().is_a("research", "research.web")
        (True, False)
        """
        return wanted in self.lineage(skill)

    def unknown(self, skills: Iterable[str], also: Iterable[str] = ()) -> list[str]:
        """A sentence for each skill that nobody knows, with the nearest names.

        Known is what is declared; where nothing is, what is in `also`, and all that is wider.

        >>> Ontology(parents={"math": None, "algebra": "math"}).unknown(["algebrra"])
        ["nobody knows the skill 'algebrra'; the nearest is 'algebra'"]
        """
        known = {wider for skill in self.parents or also for wider in self.lineage(skill)}
        return [_nobody_knows(s, sorted(known)) for s in dict.fromkeys(skills) if s not in known]


PLAIN = Ontology()
"""The ontology that goes by dotted names alone."""


class AgentCard(Noun):
    """What an agent says of itself. Reads and writes as JSON."""

    name: str = Field(min_length=1, max_length=64)
    skills: tuple[str, ...] = ()
    """Like `research.web`; the part before a dot is the wider skill."""
    description: str = ""
    tier: Tier = "standard"
    """What class of model it needs."""
    top: Tier | None = None
    """The highest tier it goes up to by itself, where it is not sure enough; None: its own."""
    price: int | None = Field(default=None, ge=0)
    """Of one task, in millionths of a US dollar; None if it is not known."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How long it expects to take for one task; None if it is not known."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """How sure it is to succeed, from 0 to 1; None if it does not say."""
    output: type[BaseModel] | None = None
    """What its outputs are validated against; None: any JSON."""
    output_schema: dict[str, JsonValue] | None = Field(default=None, exclude=True, repr=False)
    """Of a card that was read from JSON: the JSON schema of its outputs, which stands there as
    `output`."""

    @model_validator(mode="before")
    @classmethod
    def _from_json(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("output"), dict):
            return {**given, "output": None, "output_schema": given["output"]}
        return given

    @field_serializer("output", when_used="json")
    def _schema(self, output: type[BaseModel] | None) -> object:
        return output.model_json_schema() if output else self.output_schema


def identity(card: AgentCard) -> str:
    """Names an agent by what it is; what it asks and expects may change from day to day.

    >>> ann = AgentCard(name="ann", skills=("math",))
    >>> identity(ann) == identity(ann.model_copy(update={"price": 7}))
    True
    >>> identity(ann) == identity(AgentCard(name="ann", skills=("law",)))
    False
    """
    try:
        return _identity(cast("Any", card))
    except TypeError:  # a card that was read from JSON can't be remembered
        return _identity.__wrapped__(card)


@lru_cache(1_024)
def _identity(card: AgentCard) -> str:
    said = card.model_dump_json(exclude={"tier", "top", "price", "seconds", "confidence"})
    return sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_a(skill: str, wanted: str) -> bool:
    """Whether having `skill` is having `wanted`, by their names alone.

    >>> is_a("research.web", "research"), is_a("research", "research.web")
    (True, False)
    """
    return PLAIN.is_a(skill, wanted)


def fits(card: AgentCard, task: Task, ontology: Ontology = PLAIN) -> bool:
    """Whether the agent may do the task: it is the one named, or has all skills wanted."""
    if task.agent is not None:
        return card.name == task.agent
    return all(any(ontology.is_a(has, wanted) for has in card.skills) for wanted in task.skills)


def choose(
    cards: Iterable[AgentCard], task: Task, load: Mapping[str, int], avoid: Iterable[str] = ()
) -> AgentCard | None:
    """Who does a task: of those that fit the one whose tier suits best, then who has least to do.

    Agents in `avoid` come last, so that one that failed gets the task again only if no other fits.
    """
    shunned = set(avoid)

    def rank(card: AgentCard) -> tuple[object, ...]:
        suits = reach(card.tier, task.tier)
        return card.name in shunned, suits, load.get(card.name, 0), card.name

    return min((card for card in cards if fits(card, task)), key=rank, default=None)


def reach(tier: Tier, wanted: Tier | None) -> tuple[bool, int]:
    """How well a tier suits a task, the smaller the better: not below it, then the cheaper.

    >>> sorted(TIERS, key=lambda tier: reach(tier, "standard"))
    ['standard', 'premium', 'economy']
    """
    at = TIERS.index(tier)
    least = TIERS.index(wanted) if wanted else 0
    return at < least, abs(at - least)


def _nobody_knows(skill: str, known: Sequence[str]) -> str:
    near = get_close_matches(skill, known, NEAREST, 0.5)
    last = {name.replace("/", ".").rpartition(".")[2]: name for name in known}
    near += [last[n] for n in get_close_matches(skill.rpartition(".")[2], last, NEAREST, 0.75)]
    names = [repr(name) for name in dict.fromkeys(near)][:NEAREST]
    said = f"the nearest {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
    return f"nobody knows the skill {skill!r}; {said if names else 'there is none like it'}"


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def _tree(given: Any, parent: str | None) -> Iterator[tuple[str, str | None]]:
    """The pairs of a tree: below a name is what is a kind of it; a mere name is its parent."""
    if isinstance(given, dict):
        for name, below in given.items():
            yield str(name), below if isinstance(below, str) else parent
            if not isinstance(below, str):
                yield from _tree(below, str(name))
    elif isinstance(given, list):
        for entry in given:
            yield from _tree(entry if isinstance(entry, dict) else {entry: None}, parent)
    elif given is not None or parent is None:
        raise ValueError(f"{given!r} is no skill, nor a tree of them")


def _records(given: list[Any]) -> Iterator[tuple[str, str | None]]:
    """The pairs of a list of records, or of a list of trees."""
    ids = {str(r.get("id", r.get("uid"))): _name(r) for r in given if _is_record(r)}
    for entry in given:
        if not _is_record(entry):
            yield from _tree([entry], None)
            continue
        parent = entry.get("parent", entry.get("extends"))
        yield _name(entry), None if parent is None else ids.get(str(parent), str(parent))


def _is_record(entry: Any) -> bool:
    return isinstance(entry, dict) and bool({"id", "uid", "name"} & set(entry))


def _name(record: dict[str, Any]) -> str:
    return str(record.get("name", record.get("id", record.get("uid"))))


def _agreed(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    parents: dict[str, str | None] = {}
    for skill, parent in pairs:
        if parents.get(skill) not in (None, parent) and parent is not None:
            raise ValueError(f"{skill!r} is a kind of {parents[skill]!r} and of {parent!r}")
        parents[skill] = parent or parents.get(skill)
    return parents


def _first_line(error: Exception) -> str:
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return said.splitlines()[0] if said else type(error).__name__
