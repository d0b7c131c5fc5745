"""What agents say to each other: a typed envelope."""

from typing import Literal

from pydantic import JsonValue

from kapelle.state.noun import Noun

Performative = Literal["request", "inform", "failure", "refuse", "propose", "agree", "cancel"]
"""The FIPA communicative acts that Kapelle uses (FIPA SC00037)."""


class Message(Noun):
    """One message. Sender and receiver are stamped by the orchestrator, never read from a text."""

    performative: Performative
    sender: str
    receiver: str
    task: str
    """Id of the task it is about."""
    body: JsonValue = None
