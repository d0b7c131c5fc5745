"""Search by meaning: what of an item is embedded, and which vectors are nearest.

The search is exact: every vector under the namespace is compared, by NumPy where it is installed.
`Ranking` is the port for a database that can do it itself.
"""

from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import starmap
from math import hypot
from operator import mul
from typing import Any, Protocol

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    IndexConfig,
    PutOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)


class Ranking(Protocol):
    """Says how near vectors are to one."""

    def __call__(self, query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
        """The cosine of each with the query."""
        ...


class Index:
    """What is embedded, and by whom. LangGraph's `SqliteStore` calls the fields `text_fields`."""

    def __init__(self, config: IndexConfig) -> None:
        self.config = config
        self.embeddings: Embeddings = ensure_embeddings(config["embed"])
        named: Any = config.get("fields") or config.get("text_fields") or ["$"]
        self._paths: Sequence[str] = [named] if isinstance(named, str) else named

    def texts(self, put: PutOp) -> list[str]:
        """The texts of an item that are embedded, each on its own."""
        if put.value is None or put.index is False:
            return []
        paths = self._paths if put.index is None else put.index
        found = (get_text_at_path(put.value, _path(path)) for path in paths)
        return list(dict.fromkeys(text for texts in found for text in texts))


def pack(vector: Sequence[float]) -> bytes:
    """A vector as 32-bit floats."""
    return array("f", vector).tobytes()


def cosines(query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
    """The cosine of each vector with the query; 0 for a vector without length."""
    if not vectors:
        return []
    if (np := _numpy()) is None:
        return [_cosine(query, array("f", vector)) for vector in vectors]
    rows = np.frombuffer(b"".join(vectors), dtype=np.float32).reshape(len(vectors), -1)
    wanted = np.asarray(query, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted)
    near: list[float] = (rows @ wanted / np.where(lengths == 0, 1, lengths)).tolist()
    return near


def best(scored: Sequence[tuple[Any, float]]) -> Mapping[Any, float]:
    """For each item the score of its nearest vector, the nearest item first."""
    found: dict[Any, float] = {}
    for item, score in sorted(scored, key=lambda pair: -pair[1]):
        found.setdefault(item, score)
    return found


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = hypot(*a) * hypot(*b)
    return sum(starmap(mul, zip(a, b, strict=True))) / lengths if lengths else 0.0


@cache
def _numpy() -> Any:
    """NumPy, or None where it is not installed."""
    return import_module("numpy") if find_spec("numpy") else None


def _path(path: str) -> Any:
    return path if path == "$" else tokenize_path(path)
