"""Values as bytes: LangGraph's serializer, strict. Only what is listed is imported on load."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import kapelle.state
from kapelle.state.errors import Unreadable
from kapelle.state.noun import Noun


class StrictSerializer(JsonPlusSerializer):
    """Knows plain values, LangGraph's and LangChain's, the nouns of `state/`, what is allowed."""

    def __init__(self, allow: Iterable[type] = ()) -> None:
        super().__init__(
            pickle_fallback=False,
            allowed_json_modules=None,
            allowed_msgpack_modules=[*nouns(), *allow],
        )

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value; `Unreadable` if the bytes are no value."""
        try:
            return super().loads_typed(data)
        except Exception as error:
            raise Unreadable(thread="?", why=str(error) or type(error).__name__) from error


@cache
def nouns() -> tuple[type[Noun], ...]:
    """Every noun that `state/` defines."""
    found: dict[str, type[Noun]] = {}
    for module in pkgutil.iter_modules(kapelle.state.__path__, "kapelle.state."):
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and issubclass(kind, Noun):
                found[f"{kind.__module__}.{kind.__name__}"] = kind
    return tuple(found[name] for name in sorted(found))
