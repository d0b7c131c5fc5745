"""One thing that happened: a row of the journal."""

from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.budget import Usage
from kapelle.state.noun import Noun

EventKind = Literal[
    "run",
    "choice",
    "message",
    "attempt",
    "spend",
    "vote",
    "tally",
    "verdict",
    "escalation",
    "approval",
    "effect",
]


class Event(Noun):
    """One choice, message, attempt, spend or approval."""

    kind: EventKind
    what: str
    """The verb: `planned`, `assigned`, `request`, `failed`, `approve`, …"""
    thread: str = ""
    """The run's thread; empty without a saver."""
    place: str = ""
    """Where in nested graphs: LangGraph's namespace; empty at the root."""
    task: str = ""
    agent: str = ""
    at: float = 0.0
    """Unix time in seconds."""
    key: str = ""
    """Names the happening: recorded again under the same key, it is the same event."""
    usage: Usage = Usage()
    why: str = ""
    """The reason, in a sentence."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """What else is known, as plain JSON."""
