"""What a judge records."""

from typing import Literal

from pydantic import Field

from kapelle.state.approval import Escalation
from kapelle.state.noun import Noun


class Verdict(Noun):
    """A judge's record on a result."""

    decision: Literal["accept", "revise", "ask"]
    """Let it through; have it done again; ask a person."""
    reason: str = ""
    score: float | None = Field(default=None, ge=0, le=1)
    """Quality from 0 to 1."""
    redo: dict[str, str] = {}
    """For `revise`: subtasks to do again, each with what was wrong; empty: only the whole."""
    escalation: Escalation | None = None
    """For `ask`: what to ask; made from `reason` if it is None."""
