"""Values as bytes: LangGraph's serializer, strict and exact.

Only what is listed is imported on load; what is stored comes back as it was, or is refused.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import kapelle.state
from kapelle.checkpoints.exact import pack, pack_tree, unpack, unpack_tree
from kapelle.checkpoints.tied import SIGN, UNTIED
from kapelle.state.errors import Unreadable, Unstorable
from kapelle.state.noun import Noun

TREE = "exact"
"""The type of values that went the unusual way."""


class StrictSerializer(JsonPlusSerializer):
    """Knows plain values, LangGraph's and LangChain's, the nouns of `state/`, what is allowed."""

    def __init__(self, allow: Iterable[type] = ()) -> None:
        super().__init__(
            pickle_fallback=False,
            allowed_json_modules=None,
            allowed_msgpack_modules=[*nouns(), *allow],
        )

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The type and the bytes of a value; `Unstorable` if it could not come back."""
        if obj is None or isinstance(obj, bytes | bytearray):
            return super().dumps_typed(obj)
        try:
            return "msgpack", pack(obj)
        except (ormsgpack.MsgpackEncodeError, TypeError):
            return TREE, self._tree(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value; `Unreadable` if the bytes are no value."""
        if SIGN in data[0] or UNTIED in data[0]:
            raise Unreadable(thread="?", why="it is encrypted, and Database has no cipher=")
        try:
            if data[0] == "msgpack":
                return unpack(data[1], self._unpack_ext_hook)
            if data[0] == TREE:
                return unpack_tree(data[1], self._unpack_ext_hook, self._may_make)
            return super().loads_typed(data)
        except Exception as error:
            raise Unreadable(thread="?", why=str(error) or type(error).__name__) from error

    def _tree(self, obj: Any) -> bytes:
        try:
            return pack_tree(obj)
        except (ormsgpack.MsgpackEncodeError, TypeError, RecursionError) as error:
            why = str(error) or type(error).__name__
            raise Unstorable(what=type(obj).__name__, why=why) from error

    def _may_make(self, module: str, name: str) -> bool:
        allowed = self._allowed_msgpack_modules
        ours = isinstance(allowed, set) and (module, name) in allowed
        return ours or (module, name) in SAFE_MSGPACK_TYPES


def serializer(allow: Iterable[type], cipher: CipherProtocol | None) -> SerializerProtocol:
    """The strict serializer, behind a cipher where there is one."""
    strict = StrictSerializer(allow)
    return strict if cipher is None else SealedSerializer(cipher, strict)


class SealedSerializer(EncryptedSerializer):
    """Encrypts what another serializer writes, and reads nothing that is not encrypted."""

    def __init__(self, cipher: CipherProtocol, serde: SerializerProtocol) -> None:
        super().__init__(cipher, serde)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value; `Unreadable` if it is not encrypted, or not with this key."""
        if "+" not in data[0]:
            raise Unreadable(thread="?", why="it is not encrypted")
        try:
            return super().loads_typed(data)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(thread="?", why=str(error) or type(error).__name__) from error


def parted(serde: SerializerProtocol) -> tuple[SerializerProtocol, CipherProtocol | None]:
    """A serializer without its cipher, and the cipher: who stores values encrypts their pieces."""
    if isinstance(serde, EncryptedSerializer):
        return serde.serde, serde.cipher
    return serde, None


@cache
def nouns() -> tuple[type[Noun], ...]:
    """Every noun that `state/` defines."""
    found: dict[str, type[Noun]] = {}
    for module in pkgutil.iter_modules(kapelle.state.__path__, "kapelle.state."):
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and issubclass(kind, Noun):
                found[f"{kind.__module__}.{kind.__name__}"] = kind
    return tuple(found[name] for name in sorted(found))
