"""What a judge records."""

from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.approval import Escalation
from kapelle.state.noun import Noun


class Finding(Noun):
    """A contradiction that a judge sees in free text. It opens a review, and decides nothing."""

    key: str = Field(min_length=1)
    """What it is about, like `api.style`; the tasks are asked to claim it."""
    tasks: tuple[str, ...]
    """The subtasks whose results contradict each other."""
    why: str = ""
    """What each of them says."""


class Verdict(Noun):
    """A judge's record on a result."""

    decision: Literal["accept", "revise", "ask", "stop"]
    """Let it through; have it done again; ask a person; go no further, for no retry mends it."""
    reason: str = ""
    score: float | None = Field(default=None, ge=0, le=1)
    """Quality from 0 to 1."""
    redo: dict[str, str] = {}
    """For `revise`: subtasks to do again, each with what was wrong; empty: only the whole."""
    escalation: Escalation | None = None
    """For `ask`: what to ask; made from `reason` if it is None."""
    findings: tuple[Finding, ...] = ()
    """Contradictions between the texts of results, if there are any."""
    rulings: dict[str, JsonValue] = {}
    """Where disputes are shown: the value that stands, by key."""


class Preference(Noun):
    """A judge's record on a pair."""

    better: Literal["first", "second", "neither"]
    """Of the two, in the order in which they were shown."""
    reason: str = ""
