"""What passes: a server that is gone for a moment is waited for, what gave way is tried again.

Only where trying again can't do a thing twice: everything that is looked up, and everything that is
written if it surely was not committed, or comes to the same when it is written again.
"""

import time
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError

PATIENCE = 10.0
"""Seconds that a server may be gone before whoever waits is told."""

STATES = ("08", "40", "53300", "57P")
"""How the SQLSTATEs of what passes begin: no connection, gave way, too many, shutting down."""

CODES = frozenset((1040, 1053, 1213, 1927, 2002, 2003, 2006, 2013))
"""The same as MariaDB and MySQL number it."""


def passing(error: BaseException | None) -> bool:
    """Whether an error may be over in a moment, and nothing of the transaction is left.

    A file is not gone for a moment: nothing of SQLite's passes.
    """
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    if error is None or error.orig is None:
        return False
    module = type(error.orig).__module__.partition(".")[0]
    if module == "psycopg":
        state = getattr(error.orig, "sqlstate", None)
        lost = type(error.orig).__name__ in ("OperationalError", "InterfaceError")
        return lost if state is None else state.startswith(STATES)
    code = error.orig.args[0] if error.orig.args else None
    return module == "pymysql" and (code in CODES or type(error.orig).__name__ == "InterfaceError")


def pauses() -> Iterator[float]:
    """Seconds to wait before the next try, again and again until patience is over."""
    until, pause = time.monotonic() + PATIENCE, 0.02
    while time.monotonic() + pause < until:
        yield pause
        pause = min(2 * pause, 0.5)
