"""Models by what they are able to do and cost, and others to fall back on where one is down."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from langchain_core.language_models import BaseChatModel

from kapelle.state.errors import NoModel
from kapelle.state.task import TIERS, Tier

Model = str | BaseChatModel
"""`provider:name`, or any LangChain chat model."""

Models = Model | Sequence[Model]
"""One model, or several: the first is asked, the next where it is down."""

REST = 30.0
"""Seconds after a failure in which a model is asked only if the others are down too."""


@dataclass(frozen=True, kw_only=True)
class Tiers:
    """A model for each class of work.

    An agent takes its own tier's: as said in `tier=`, else by its role (research and formatting:
    economy; planning, judging and synthesis: premium), else standard; for a task with a tier of its
    own that one's. Where a tier has no model, the next higher one's is taken, else the next lower.
    """

    economy: Models | None = None
    standard: Models | None = None
    premium: Models | None = None

    def at(self, tier: Tier) -> Models:
        """The models of a tier.

        Raises:
            NoModel: when there is none in any tier.
        """
        models = [self.economy, self.standard, self.premium]
        place = TIERS.index(tier)
        for model in (*models[place:], *reversed(models[:place])):
            if model is not None:
                return model
        raise NoModel("these Tiers have no model: give at least one")


def several(models: Models | None) -> Sequence[Model | None]:
    """The models meant, in the order they are asked."""
    if models is None or isinstance(models, str | BaseChatModel):
        return [models]
    return list(models) or [None]


@dataclass
class Standby:
    """Several models of which one answers: the first that is not down."""

    models: Sequence[BaseChatModel]
    _failed: dict[int, float] = field(default_factory=dict)

    def in_turn(self) -> Iterator[tuple[int, BaseChatModel]]:
        """The models with their places: those that rest come last."""
        now = time.monotonic()

        def rank(place: int) -> tuple[float, int]:
            resting = self._failed.get(place, -REST) + REST > now
            return (self._failed[place] if resting else 0.0), place

        for place in sorted(range(len(self.models)), key=rank):
            yield place, self.models[place]

    def failed(self, place: int) -> None:
        """This one is down: it rests."""
        self._failed[place] = time.monotonic()
