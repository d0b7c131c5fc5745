"""What a token costs. US dollars per million tokens are millionths of a dollar per token."""

import math

from pydantic import Field

from kapelle.state.noun import Noun


class Price(Noun):
    """The price of a model, in US dollars per million tokens."""

    input: float = Field(ge=0)
    """Of tokens sent."""
    output: float = Field(ge=0)
    """Of tokens answered."""
    cached: float | None = Field(default=None, ge=0)
    """Of tokens sent that the provider had in its cache; None: as other tokens sent."""

    def of(self, read: int, wrote: int, cached: int = 0) -> int:
        """Millionths of a US dollar, rounded up; `cached` of the tokens read were in the cache.

        >>> Price(input=2.5, output=10).of(1000, 100)
        3500
        """
        seldom = self.input if self.cached is None else self.cached
        return math.ceil((read - cached) * self.input + cached * seldom + wrote * self.output)
