"""Nouns and foreign values as JSON in bytes, so that any text comes back exactly."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticSerializationError

M = TypeVar("M", bound=BaseModel)


def dump(value: JsonValue, *, in_order: bool = False) -> bytes:
    """JSON, the same bytes for equal values; or with keys in the order they were given."""
    return json.dumps(value, sort_keys=not in_order, separators=(",", ":")).encode()


def load(data: bytes) -> Any:
    """What `dump` was given."""
    return json.loads(bytes(data))


def dump_noun(noun: BaseModel) -> bytes:
    """A noun as JSON; in ASCII only where it holds what UTF-8 can't write."""
    try:
        return noun.model_dump_json().encode()
    except PydanticSerializationError:
        return dump(noun.model_dump(mode="json"))


def load_noun(kind: type[M], data: bytes) -> M:
    """What `dump_noun` was given."""
    return kind.model_validate(load(data))


def plain(value: object) -> JsonValue:
    """Any value as plain JSON, for people to read: what JSON does not know becomes its `repr`."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    try:
        readable: JsonValue = json.loads(json.dumps(value, default=_known))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return readable


def _known(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return repr(value)


def brief(value: object, most: int = 200) -> str:
    """Any value as one short line."""
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
