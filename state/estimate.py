"""What a run will use before it has begun: at least, as expected, at most; and one agent alone."""

from collections.abc import Mapping

from pydantic import JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.noun import Noun
from kapelle.state.shortage import told
from kapelle.state.task import Failure, Result


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


def ask_to_start(
    task: str,
    goal: str,
    found: Forecast | None,
    account: str,
    *,
    why: str,
    shown: Mapping[str, JsonValue],
) -> Escalation:
    """What a person is asked before a start that is dear: to go on, to add to the budget, to end.

    `found`: None if nobody knows, for the reason in `why`. `account`: whose budget they may raise.
    """
    reason = why or f"It is expected to use {told(found.expected.usage) if found else ''}."
    add: dict[str, JsonValue] = {}
    to: list[JsonValue] = [account]
    volumes: JsonValue = found.model_dump(mode="json") if found else None
    return Escalation(
        question=f"Begin the work on {goal!r}?",
        reason=f"{reason} The policy asks before that much. Edit adds to the budget.",
        evidence={"estimate": volumes, **shown, "add": add, "to": to},
        about="estimate",
        task=task,
        offers=("approve", "edit", "reject"),
    )


def abandoned(task: str, answer: Approval) -> Result:
    """What leaves when a person does not want it begun."""
    why = f"{answer.by} rejected it: {answer.reason or 'no reason given'}"
    return Result(task=task, status="refused", failure=Failure(kind="refused", message=why))
