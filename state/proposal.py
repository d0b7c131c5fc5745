"""Tool calls that a model proposes, and the law of what a person's answer makes of each."""

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Annotated, Any, TypedDict

from pydantic import Field, JsonValue

from kapelle.state.approval import CHOICES, Approval, Escalation
from kapelle.state.noun import Noun
from kapelle.state.task import Attempt, Brief, Result, Task


class Proposal(Noun):
    """A tool call as a model proposes it."""

    id: str
    """Where in the conversation: answer and place in it, like `2.1`."""
    call: str
    """The provider's id of the call."""
    tool: str
    """The tool's name."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """What it is to be called with."""
    nth: int = 1
    """The how-manieth call of the same tool with the same arguments it is."""

    @property
    def digest(self) -> str:
        """SHA-256 of tool and arguments in canonical JSON: what an answer is bound to."""
        return sha256(json.dumps([self.tool, self.args], sort_keys=True).encode()).hexdigest()


class Permit(Noun):
    """A person's answer to a proposal, bound to what was shown."""

    digest: str
    """Of the proposal that was shown."""
    answer: Approval
    """What the person said."""


class Ruling(Noun):
    """What becomes of a proposal: the tool is used with `args`, or the model is told something."""

    use: bool
    """Whether the tool is used."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """What the tool is called with."""
    say: str = ""
    """What the model is told: instead of the tool's answer, or before it."""
    refused: bool = False
    """Whether what the model is told is a refusal."""


def merge_permits(
    old: Mapping[str, Permit] | None, new: Mapping[str, Permit] | None
) -> dict[str, Permit]:
    """Fold answers by proposal; a proposal has one."""
    return {**(old or {}), **(new or {})}


class Conversation(TypedDict, total=False):
    """What a model's conversation remembers between its answers."""

    task: Task
    brief: Brief
    said: list[dict[str, Any]]
    """All messages but the prompt, as LangChain writes them."""
    proposed: tuple[Proposal, ...]
    """What the last answer calls."""
    permits: Annotated[dict[str, Permit], merge_permits]
    """People's answers, by proposal."""
    doubts: tuple[Escalation, ...]
    """Effects of which nobody knows whether they happened."""
    steps: int
    """Answers so far."""
    attempts: tuple[Attempt, ...]
    result: Result | None


def needs_approval(tool: str, wanted: Iterable[str]) -> bool:
    """Whether a tool is among those a person must approve.

    >>> needs_approval("send_mail", ["send_*"]), needs_approval("search", ["send_*"])
    (True, False)
    """
    return any(fnmatchcase(tool, pattern) for pattern in wanted)


def request(proposal: Proposal, description: str, schema: JsonValue) -> Escalation:
    """The ask about a proposal, in the words of LangChain's human in the loop."""
    action: JsonValue = {"name": proposal.tool, "args": proposal.args, "description": description}
    review: JsonValue = {
        "action_name": proposal.tool,
        "allowed_decisions": list(CHOICES),
        "args_schema": schema,
    }
    return Escalation(
        question=f"Call the tool {proposal.tool!r} with these arguments?",
        reason=(
            "Edit gives it other arguments, reject says no with a reason, respond answers the "
            "model instead of the tool."
        ),
        evidence={
            "action_requests": [action],
            "review_configs": [review],
            "sha256": proposal.digest,
        },
    )


def ruled(proposal: Proposal, permit: Permit | None) -> Ruling | None:
    """What becomes of a proposal that needs approval; None while nobody approved exactly this."""
    if permit is None or permit.digest != proposal.digest:
        return None
    answer = permit.answer
    if answer.decision == "approve":
        return Ruling(use=True, args=proposal.args)
    if answer.decision == "edit":
        args = edited(answer.value)
        if args is None:
            why = f"{answer.by} gave arguments that are no JSON object; nothing was done"
            return Ruling(use=False, say=why, refused=True)
        said = f"{answer.by} changed the arguments to {json.dumps(args, ensure_ascii=False)}."
        return Ruling(use=True, args=args, say=said if args != proposal.args else "")
    if answer.decision == "reject":
        why = f"{answer.by} rejected this call: {answer.reason or 'no reason given'}"
        return Ruling(use=False, say=f"{why}. It was not carried out.", refused=True)
    said = answer.value if isinstance(answer.value, str) else json.dumps(answer.value)
    return Ruling(use=False, say=said if answer.value is not None else answer.reason)


def edited(value: JsonValue) -> dict[str, JsonValue] | None:
    """The arguments in an edit: alone, or within `args` or `edited_action` as others write it.

    >>> edited({"edited_action": {"name": "send", "args": {"to": "ann"}}})
    {'to': 'ann'}
    """
    if not isinstance(value, dict):
        return None
    if set(value) == {"edited_action"}:
        return edited(value["edited_action"])
    inner = value.get("args")
    if isinstance(inner, dict) and set(value) <= {"name", "args"}:
        return inner
    return value
