"""The least that keeping can cost: all in memory, and one row a step, committed by itself.

No checkpoint could be read back from it. What a saver takes beyond this is its own doing; what this
takes is the disk's, the server's, and the way to another thread and back.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

BODY = b"x" * 600
"""About what a checkpoint and its metadata take."""


class Least(InMemorySaver):
    """Waits for one INSERT a checkpoint."""

    def __init__(self, insert: Callable[[], object]) -> None:
        super().__init__()
        self._insert = insert
        self._thread = ThreadPoolExecutor(1)

    async def aput(self, *args: Any, **kwargs: Any) -> RunnableConfig:
        """Kept in memory; returns when a row is durable."""
        put = self.put(*args, **kwargs)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._insert)
        return put


@asynccontextmanager
async def on_sqlite() -> AsyncIterator[Least]:
    """A fresh file, as durable as the savers'."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "least.db"
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE least (id INTEGER PRIMARY KEY, body BLOB)")
        yield Least(lambda: connection.execute("INSERT INTO least (body) VALUES (?)", [BODY]))
        connection.close()


def on_postgres(url: str) -> Callable[[], AbstractAsyncContextManager[Least]]:
    """A fresh table, and one connection."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Least]:
        import psycopg  # noqa: PLC0415  # it may not be there

        plain = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain, autocommit=True, prepare_threshold=0) as connection:
            connection.execute("DROP TABLE IF EXISTS least")
            connection.execute("CREATE TABLE least (id serial PRIMARY KEY, body bytea)")
            insert: Any = "INSERT INTO least (body) VALUES (%s)"
            yield Least(lambda: connection.execute(insert, [BODY]))
            connection.execute("DROP TABLE least")

    return opened
