"""What goes into an agent and comes out of it: plain JSON of the right shape, size and depth."""

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from kapelle.state.approval import Escalation
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, FailureKind, Reply, Task


class Invalid(Exception):
    """An output that is not what was asked for, or an input that is too much."""

    def __init__(self, why: str, kind: FailureKind = "invalid") -> None:
        super().__init__(why)
        self.kind: FailureKind = kind


def plain(output: object, policy: Policy) -> JsonValue:
    """An output as plain JSON, within the policy's size and depth."""
    value: JsonValue = from_json(_text(output, policy.max_bytes, "output", policy.max_depth))
    return value


def check_input(task: Task, brief: Brief, policy: Policy) -> None:
    """Refuse what is too large or too deep to be given to an agent."""
    if task.inputs or brief.results:
        given = (task.inputs, {name: result.output for name, result in brief.results.items()})
        _text(given, policy.max_input_bytes, "input", policy.max_depth + 2)


def reply_of(raw: object) -> Reply:
    """What an agent returned, as a reply."""
    if isinstance(raw, Reply):
        return raw
    if isinstance(raw, Escalation):
        return Reply(output=raw.evidence, escalation=raw)
    return Reply(output=raw)


def conform(output: JsonValue, schema: type[BaseModel]) -> JsonValue:
    """An output as its schema has it."""
    try:
        conformed: JsonValue = schema.model_validate(output).model_dump(mode="json")
    except ValidationError as error:
        flaws = "; ".join(f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        raise Invalid(f"the output is no {schema.__name__}: {flaws}") from None
    return conformed


def _text(value: object, most: int, what: str, deep: int) -> bytes:
    try:
        text = to_json(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise Invalid(f"the {what} can't be written as JSON: {error}") from None
    if len(text) > most:
        raise Invalid(f"the {what} has {len(text)} bytes; the limit is {most}", "too_large")
    if text.count(b"[") + text.count(b"{") > deep and depth(from_json(text)) > deep:
        raise Invalid(f"the {what} is nested deeper than {deep} levels", "too_large")
    return text


def depth(value: JsonValue) -> int:
    """Lists and objects within each other.

    >>> depth(1), depth([]), depth({"a": [1, {}]})
    (0, 1, 3)
    """
    level, deep = [value], 0
    while level := [part for part in level if isinstance(part, list | dict)]:
        deep += 1
        level = [
            inner for part in level for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return deep


def _path(where: tuple[int | str, ...]) -> str:
    return ".".join(map(str, where)) or "the whole"
