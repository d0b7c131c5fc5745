"""When a run turns to a person: why, the question, the answer."""

from typing import Literal

from pydantic import Field, JsonValue

from kapelle.state.noun import Noun

Choice = Literal["approve", "edit", "reject", "respond"]
"""Accept what is shown; replace it; refuse it; say something and have it done again."""

CHOICES: tuple[Choice, ...] = ("approve", "edit", "reject", "respond")


About = Literal[
    "plan", "task", "claims", "result", "award", "budget", "doubt", "messages", "estimate"
]


class Escalation(Noun):
    """Why a run turns to a person. It is what a gate shows: the same for the same state."""

    question: str
    """What the person is to decide, in one sentence."""
    reason: str = ""
    """Why nobody else could decide it."""
    evidence: JsonValue = None
    """What the person needs to see: the proposal, which becomes the output if it is approved."""
    about: About = "task"
    """Whether the plan, one subtask, a result, who does the work, the budget, work that its author
    is not sure of, messages beyond a limit or what it is expected to cost are at stake."""
    task: str = ""
    """Id of the task; stamped by the orchestrator."""
    by: str = ""
    """The agent that turned to a person; stamped by the orchestrator."""
    offers: tuple[Choice, ...] = CHOICES
    """The answers that make sense."""
    effect: str = ""
    """Key of the effect in doubt, if it is about one."""
    holder: str = ""
    """The execution that began that effect."""


class Approval(Noun):
    """A person's answer to one ask."""

    decision: Choice
    by: str = Field(min_length=1)
    """Who answered."""
    value: JsonValue = None
    """For `edit` what replaces the proposal; for `respond` what the agent is told."""
    reason: str = ""
    ask: str = ""
    """Id of the ask it answers; stamped by the inbox."""
    about: About | None = None
    """What it was about; stamped by the gate."""


class Ask(Noun):
    """One question to a person, as the inbox shows it."""

    id: str
    """Bound to the thread, the interrupt and what was shown: another question is another ask."""
    thread: str
    question: str
    reason: str = ""
    evidence: JsonValue = None
    about: About = "task"
    """What is at stake, as in the escalation behind it."""
    task: str = ""
    by: str = ""
    offers: tuple[Choice, ...] = CHOICES
    asked_at: float = 0.0
    """Unix time in seconds, by the database's clock."""
    interrupt: str = ""
    """LangGraph's id of the interrupt behind it."""
    answer: Approval | None = None
    """The claimed answer; None while it is open."""
    answered_at: float | None = None
    """Unix time in seconds, by the database's clock."""
