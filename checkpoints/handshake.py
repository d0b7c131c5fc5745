"""How a connection to MariaDB or MySQL begins, where PyMySQL would take long over it.

Where nothing is said of TLS, PyMySQL encrypts if the server can, and reads all certificates of the
system for it, only to check none of them: 40 ms of CPU at each connection. What it makes is made
once here, and used for all.
"""

from functools import cache
from ssl import SSLContext
from typing import Any

from sqlalchemy import Engine, event

ITS_OWN = ("ssl", "read_default")
"""What a setting of the driver begins with that may say something else of TLS."""


def hasten(engine: Engine) -> None:
    """Have new connections of an engine begin quickly, if it is PyMySQL that makes them."""
    if engine.dialect.driver == "pymysql":
        event.listen(engine, "do_connect", _connection)


def _connection(dialect: Any, _record: Any, given: Any, named: dict[str, Any]) -> Any:
    """A connection as the driver makes it; None: let it make it itself."""
    driver = dialect.loaded_dbapi
    if any(name.startswith(ITS_OWN) for name in named) or (tls := _tls(driver)) is None:
        return None
    connection = driver.connect(*given, **named, ssl_disabled=True, defer_connect=True)
    connection.ssl, connection.ctx = True, tls
    connection.connect()
    return connection


@cache
def _tls(driver: Any) -> SSLContext | None:
    """What it encrypts with if nothing is said of it; None where it would not encrypt."""
    return getattr(driver.connect(defer_connect=True), "ctx", None)
