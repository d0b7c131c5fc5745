"""What a run will use before it has begun: at least, as expected, at most; and one agent alone."""

from kapelle.state.budget import Budget, Usage
from kapelle.state.noun import Noun


class Volume(Noun):
    """How much: usage, and the messages that go between agents."""

    usage: Usage = Usage()
    messages: int = 0
    """How many go between agents: each call is two, a request and its answer."""

    def __add__(self, other: "Volume") -> "Volume":
        return Volume(usage=self.usage + other.usage, messages=self.messages + other.messages)

    def times(self, often: int) -> "Volume":
        """So much as often as that."""
        used = self.usage
        return Volume(
            usage=Usage(
                input_tokens=used.input_tokens * often,
                output_tokens=used.output_tokens * often,
                calls=used.calls * often,
                micro_usd=None if used.micro_usd is None else used.micro_usd * often,
            ),
            messages=self.messages * often,
        )


class Forecast(Noun):
    """A volume nobody knows yet."""

    least: Volume = Volume()
    """If all goes well and answers are empty."""
    expected: Volume = Volume()
    """If all goes well."""
    most: Volume = Volume()
    """With every retry and round that the policy allows; the budget may end it before."""

    def __add__(self, other: "Forecast") -> "Forecast":
        return Forecast(
            least=self.least + other.least,
            expected=self.expected + other.expected,
            most=self.most + other.most,
        )

    def times(self, least: int, expected: int, most: int) -> "Forecast":
        """As often as these."""
        return Forecast(
            least=self.least.times(least),
            expected=self.expected.times(expected),
            most=self.most.times(most),
        )


class Estimate(Noun):
    """What a graph will use for a task, beside one agent doing all of it alone."""

    team: Forecast
    """The whole pattern: all roles together."""
    alone: Forecast
    """The agent that works, at each part after the other; nobody plans, judges or merges."""
    items: int
    """Parts of the work: the longest list among the task's inputs; else one a worker."""
    roles: dict[str, Forecast]
    """The team's by role."""

    @property
    def coordination(self) -> float:
        """How many times as many tokens the team is expected to use as one agent alone."""
        one = self.alone.expected.usage.tokens
        return self.team.expected.usage.tokens / one if one else 0.0


def above(usage: Usage, limit: Budget) -> bool:
    """Whether so much is more than what a person need not be asked for; no price is more."""
    money = limit.micro_usd
    return (
        (limit.calls is not None and usage.calls > limit.calls)
        or (limit.tokens is not None and usage.tokens > limit.tokens)
        or (money is not None and (usage.micro_usd is None or usage.micro_usd > money))
    )
