"""Values that msgpack alone would refuse or change: lone surrogates, and numbers beyond 64 bits.

LangGraph's serializer writes "?" for a lone surrogate, also deep inside an object. Here nothing is
replaced: what does not go the usual way is written as a tree of its own, and read back exactly.
"""

import dataclasses
from collections import deque
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import PurePath
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.types import SendProtocol, _DeltaSnapshot

TEXT, NUMBER, PAIRS, OBJECT = 100, 101, 102, 103
"""What the tree's own extensions hold."""

SINGLE, POSITIONAL, NAMED, PYDANTIC, SNAPSHOT = 0, 1, 2, 5, 7
"""LangGraph's extensions: how an object is made again of its argument."""

OPTIONS = (
    ormsgpack.OPT_NON_STR_KEYS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""LangGraph's own, but for the replacing of surrogates."""

Hook = Callable[[int, bytes], Any]


def pack(value: object) -> bytes:
    """The bytes LangGraph's serializer would write; an error where that would change the value."""
    return ormsgpack.packb(value, default=_usual, option=OPTIONS)


def pack_tree(value: object) -> bytes:
    """Any value that LangGraph's serializer knows, exactly."""
    return ormsgpack.packb(_tree(value), default=_usual, option=OPTIONS)


def unpack_tree(data: bytes, usual: Hook, allowed: Callable[[str, str], bool]) -> Any:
    """What `pack_tree` was given. `allowed` says which types may be made again."""

    def hook(code: int, data: bytes) -> Any:
        if code == TEXT:
            return data.decode("utf-8", "surrogatepass")
        if code == NUMBER:
            return int(data)
        if code == PAIRS:
            return dict(unpack(data, hook))
        if code == OBJECT:
            return _made(unpack(data, hook), allowed)
        return usual(code, data)

    return unpack(data, hook)


def _usual(value: object) -> Any:
    """An object as LangGraph writes it, without replacing anything in it."""
    if isinstance(value, _DeltaSnapshot):
        return ormsgpack.Ext(SNAPSHOT, pack(value.value))
    if (parts := _parts(value)) is None:
        return jsonplus._msgpack_default(value)  # noqa: SLF001  # there is no public way to it
    code, argument = parts
    kind = type(value)
    more = ("model_validate_json",) if code == PYDANTIC else ()
    return ormsgpack.Ext(code, pack((kind.__module__, kind.__name__, argument, *more)))


def _tree(value: Any) -> Any:
    for kind, branch in BRANCHES:
        if isinstance(value, kind) and not hasattr(value, "_asdict"):
            return branch(value)
    if isinstance(value, _DeltaSnapshot):
        return _object(SNAPSHOT, value, value.value)
    parts = _parts(value)
    return value if parts is None else _object(parts[0], value, parts[1])


def _text(value: str) -> Any:
    return value if _is_utf8(value) else ormsgpack.Ext(TEXT, _bytes(value))


def _number(value: int) -> Any:
    return value if -(2**63) <= value < 2**64 else ormsgpack.Ext(NUMBER, str(value).encode())


def _pairs(value: dict[Any, Any]) -> ormsgpack.Ext:
    pairs = [[_tree(key), _tree(item)] for key, item in value.items()]
    return ormsgpack.Ext(PAIRS, ormsgpack.packb(pairs, default=_usual, option=OPTIONS))


BRANCHES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value),
    (bool, lambda value: value),
    (str, _text),
    (int, _number),
    ((list, tuple), lambda value: [_tree(item) for item in value]),
    (dict, _pairs),
)
"""How plain values are written in the tree."""


def _object(code: int, value: object, argument: object) -> ormsgpack.Ext:
    parts = [code, type(value).__module__, type(value).__name__, _tree(argument)]
    return ormsgpack.Ext(OBJECT, ormsgpack.packb(parts, default=_usual, option=OPTIONS))


def _parts(value: Any) -> tuple[int, Any] | None:
    """How an object that may hold texts is made again, and of what; None for all others."""
    for is_one, code, argument in OBJECTS:
        if is_one(value):
            return code, argument(value)
    return None


def _sent(value: Any) -> tuple[Any, ...]:
    timeout = getattr(value, "timeout", None)
    return (value.node, value.arg) if timeout is None else (value.node, value.arg, timeout)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


OBJECTS: tuple[tuple[Callable[[Any], bool], int, Callable[[Any], Any]], ...] = (
    (lambda value: hasattr(value, "model_dump"), PYDANTIC, lambda value: value.model_dump()),
    (lambda value: hasattr(value, "_asdict"), NAMED, lambda value: value._asdict()),
    (lambda value: isinstance(value, PurePath), POSITIONAL, lambda value: value.parts),
    (lambda value: isinstance(value, set | frozenset | deque), SINGLE, tuple),
    (lambda value: isinstance(value, SendProtocol), POSITIONAL, _sent),
    (_is_dataclass, NAMED, _fields),
)
"""Objects that may hold texts, in the order in which LangGraph looks for them."""


def _made(parts: tuple[int, str, str, Any], allowed: Callable[[str, str], bool]) -> Any:
    """An object made again, or its argument where its type is not allowed."""
    code, module, name, argument = parts
    if code == SNAPSHOT:
        return _DeltaSnapshot(argument)
    if not allowed(module, name):
        return argument
    kind = getattr(import_module(module), name)
    if code == SINGLE:
        return kind(argument)
    if code == POSITIONAL:
        timeout = {"timeout": argument[2]} if name == "Send" and argument[2:] else {}
        return kind(*(argument[:2] if timeout else argument), **timeout)
    return kind(**argument)


def unpack(data: bytes, hook: Hook) -> Any:
    """What `pack` was given."""
    return ormsgpack.unpackb(data, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
