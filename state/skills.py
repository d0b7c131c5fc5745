"""Skills, the cards that name them, and who fits a task."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, Field, field_serializer

from kapelle.state.noun import Noun
from kapelle.state.task import Task

Tier = Literal["economy", "standard", "premium"]


class AgentCard(Noun):
    """What an agent says of itself."""

    name: str = Field(min_length=1, max_length=64)
    skills: tuple[str, ...] = ()
    """Like `research.web`; the part before a dot is the wider skill."""
    description: str = ""
    tier: Tier = "standard"
    """What class of model it needs."""
    price: int | None = Field(default=None, ge=0)
    """Of one task, in millionths of a US dollar; None if it is not known."""
    output: type[BaseModel] | None = None
    """What its outputs are validated against; None: any JSON."""

    @field_serializer("output", when_used="json")
    def _schema(self, output: type[BaseModel] | None) -> object:
        return output.model_json_schema() if output else None


def is_a(skill: str, wanted: str) -> bool:
    """Whether having `skill` is having `wanted`.

    >>> is_a("research.web", "research"), is_a("research", "research.web")
    (True, False)
    """
    return skill == wanted or skill.startswith(wanted + ".")


def fits(card: AgentCard, task: Task) -> bool:
    """Whether the agent may do the task: it is the one named, or has all skills wanted."""
    if task.agent is not None:
        return card.name == task.agent
    return all(any(is_a(has, wanted) for has in card.skills) for wanted in task.skills)


def choose(
    cards: Iterable[AgentCard], task: Task, load: Mapping[str, int], avoid: Iterable[str] = ()
) -> AgentCard | None:
    """Who does a task: of those that fit the one with least to do, then the first by name.

    Agents in `avoid` come last, so that one that failed gets the task again only if no other fits.
    """
    shunned = set(avoid)
    able = [card for card in cards if fits(card, task)]
    return min(able, key=lambda c: (c.name in shunned, load.get(c.name, 0), c.name), default=None)
