"""What agents say to each other: a typed envelope, and who may write to whom."""

from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.noun import Noun

Performative = Literal[
    "request",
    "inform",
    "failure",
    "refuse",
    "propose",
    "agree",
    "cancel",
    "cfp",
    "accept-proposal",
    "reject-proposal",
]
"""The FIPA communicative acts that Kapelle uses (FIPA SC00037)."""


class Message(Noun):
    """One message. The sender is stamped by the orchestrator, never read from a text."""

    performative: Performative = "inform"
    """A `request` has the receiver work again, if it had finished; others wait to be read."""
    sender: str = ""
    """The agent; stamped by the orchestrator."""
    receiver: str
    """The agent it is for."""
    task: str = ""
    """Id of the task it was written in; stamped by the orchestrator."""
    body: JsonValue = None
    id: str = ""
    """Names it within its run; stamped by the orchestrator."""

    def told(self) -> dict[str, JsonValue]:
        """As a graph finds it in its task's inputs: data, with its author."""
        return {"from": self.sender, "act": self.performative, "task": self.task, "body": self.body}


class Channel(Noun):
    """Agents that may write to each other. Data for whoever reads it, never an instruction."""

    between: tuple[str, ...] = ("*",)
    """Their names; `*`: all agents."""
    most: int = Field(default=100, ge=1)
    """Messages that it carries in one run; what is more is held back: see `Policy.on_messages`."""
    batch: int = Field(default=10, ge=1)
    """Messages in one reply; what is more is held back."""
    most_bytes: int = Field(default=16_000, ge=1)
    """Bytes of one body as JSON; a longer one is held back."""

    def links(self, sender: str, receiver: str) -> bool:
        """Whether the one may write to the other through it."""
        return sender != receiver and ("*" in self.between or {sender, receiver} <= {*self.between})
