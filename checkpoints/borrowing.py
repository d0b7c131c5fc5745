"""Engines that somebody else made: what of them can be used, and how they connect.

The connections of an `AsyncEngine` belong to its event loop; ours are used by threads, also where
no loop runs. So an async engine is asked how it would connect, and a driver of the same database
that needs no loop is told the same. Where that can't be said in full, nothing is guessed.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from sqlalchemy import Engine, event

from kapelle.state.errors import Misbuilt

Connect = Callable[[], Any]
"""Makes a driver's connection."""

MEMORY = (None, "", ":memory:")
"""How SQLite's URLs name a database that is in no file."""

OWN = "sqlalchemy.engine.create"
"""Where the function comes from by which an engine connects, if nobody gave it one."""

PSYCOPG = ("psycopg", "psycopg_async")
"""The drivers that take the same arguments with and without a loop."""


class HasEngine(Protocol):
    """SQLAlchemy's `AsyncEngine`, which can be imported only where greenlet is installed."""

    @property
    def sync_engine(self) -> Engine:
        """The engine it stands before."""
        ...


class _Asked(Exception):
    """How an engine would connect now."""

    def __init__(self, arguments: tuple[Any, Any]) -> None:
        super().__init__("not to be connected")
        self.arguments = arguments


_ASKING = object()
"""Stands where a connection's record would, if one were to be made."""


def of_sqlite(engine: Engine) -> None:
    """Raise `Misbuilt` unless an engine of SQLite's leads to a file."""
    if engine.url.database in MEMORY or _creator(engine).__module__ != OWN:
        raise Misbuilt(
            "of an SQLite engine the file is used, and this one has none that is known: "
            "give Database the path of a file, or sqlite:// for one that passes"
        )


def as_awaited(engine: Engine) -> Connect | None:
    """How to connect as an async engine does; None if its URL says it all.

    Listeners to its `do_connect` are heard each time: they may fetch a token.
    """
    if _creator(engine).__module__ != OWN:
        raise _untold(engine, "async_creator")
    if engine.dialect.driver in PSYCOPG:
        connect = import_module("psycopg").connect
        return lambda: _connected(connect, engine)
    if _arguments(engine) != tuple(engine.dialect.create_connect_args(engine.url)):
        raise _untold(engine, "connect_args, or a listener to do_connect,")
    return None


def _connected(connect: Callable[..., Any], engine: Engine) -> Any:
    given, named = _arguments(engine)
    return connect(*given, **named)


def _untold(engine: Engine, what: str) -> Misbuilt:
    return Misbuilt(
        f"{what} of an AsyncEngine on {engine.dialect.driver} can't be told to another driver: "
        "give Database a URL that says all, or an Engine made by create_engine(…)"
    )


def _creator(engine: Engine) -> Callable[..., Any]:
    """What SQLAlchemy keeps it in; there is no other way to ask an engine how it connects."""
    creator: Callable[..., Any] = engine.pool._creator  # noqa: SLF001
    return creator


def _arguments(engine: Engine) -> tuple[Any, Any]:
    """What the driver would be given for a connection now; nothing is connected."""
    _listening(engine)
    try:
        _creator(engine)(_ASKING)
    except _Asked as asked:
        return asked.arguments
    raise _untold(engine, "a listener to do_connect")


@cache
def _listening(engine: Engine) -> None:
    event.listen(engine, "do_connect", _answer)


def _answer(_dialect: Any, record: Any, given: Any, named: Any) -> None:
    if record is _ASKING:
        raise _Asked((given, named))
