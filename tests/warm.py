"""Python processes that begin in milliseconds: forked from one that has imported everything.

    with Warm() as warm:
        process = warm.start("-m", "kapelle", "runs", stdout=PIPE)

The words are those that stand after `python` on a command line. What they name runs as `python`
would run it: as `__main__`, in its own process, which has nothing of ours but what was imported,
may be killed, and ends as any interpreter ends. `python -m tests.warm` is the one it comes from.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).parents[1]

IMPORTED = (
    "alembic.command",
    "kapelle.cli",
    "kapelle.commands",
    "kapelle.drills",
    "kapelle.graphs",
    "kapelle.runs",
    "langchain_openai",
    "langgraph.checkpoint.sqlite.aio",
    "langgraph.store.sqlite.aio",
    "psycopg",
    "pymysql",
    "sqlalchemy.dialects.mysql.pymysql",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "examples.service",
    "uvicorn.main",
)
"""What takes long to import."""

STANDARD = 3
"""Input, output and errors."""


# ── here ─────────────────────────────────────────────────────────────────────────────────────


class Process:
    """A process that was begun warm, with the manners of `subprocess.Popen`."""

    stdin: Any
    stdout: Any
    stderr: Any
    """Its pipes; None where there is none."""

    def __init__(self, talk: socket.socket, pipes: Sequence[IO[Any] | None]) -> None:
        self._talk = talk
        self._said = talk.makefile("r")
        self.stdin, self.stdout, self.stderr = pipes
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended, as `wait` says it; None while it is at work."""
        if self.returncode is None and select.select([self._talk], [], [], 0)[0]:
            self.returncode = int(self._said.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end: its exit code, or the signal that killed it, less than 0."""
        if self.returncode is None and not select.select([self._talk], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Read all it says, and wait for its end; it is killed if that takes too long."""
        pipes = (self.stdout, self.stderr)
        with ThreadPoolExecutor(len(pipes)) as readers:
            told = readers.map(lambda pipe: pipe and pipe.read(), pipes, timeout=timeout)
            try:
                out, err = told
            except TimeoutError:
                self.kill()
                raise
        self.wait(timeout)
        return out, err

    def send_signal(self, which: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it if it is still at work, and let go of it."""
        self.kill()
        self.wait()
        for thing in (self.stdin, self.stdout, self.stderr, self._said, self._talk):
            if thing is not None:
                thing.close()


class Warm:
    """An interpreter that has imported everything, and forks."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
            self._server = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._orders.close()
        self._server.wait()

    def start(
        self,
        *words: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = False,
        **more: Any,
    ) -> Process:
        """Begin a process; `more`: `cwd`, `env`, `pass_fds` and `start_new_session` of `Popen`."""
        ends = [_ends(how, number, text) for number, how in enumerate((stdin, stdout, stderr))]
        mine, theirs = socket.socketpair()
        passed = list(more.pop("pass_fds", ()))
        sent = [theirs.fileno(), *(end for end, _ in ends), *passed]
        socket.send_fds(self._orders, [b"!"], sent)
        theirs.close()
        for (end, _), how in zip(ends, (stdin, stdout, stderr), strict=True):
            if how in (PIPE, DEVNULL):
                os.close(end)
        mine.sendall(f"{json.dumps(_order(words, passed, **more))}\n".encode())
        return Process(mine, [pipe for _, pipe in ends])

    def finish(self, *words: str, timeout: float | None = None) -> CompletedProcess[str]:
        """Begin a process, and read what it says to its end."""
        process = self.start(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, text=True)
        try:
            out, err = process.communicate(timeout)
            return CompletedProcess(words, process.wait(), out, err)
        finally:
            process.close()


def _ends(how: int | None, number: int, text: bool) -> tuple[int, IO[Any] | None]:  # noqa: FBT001
    """Both ends of one of the three: theirs, and ours if there is a pipe."""
    if how == PIPE:
        reads, writes = os.pipe()
        theirs, ours, mode = (reads, writes, "w") if number == 0 else (writes, reads, "r")
        return theirs, os.fdopen(ours, mode if text else f"{mode}b", 1 if text else -1)
    if how == DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    return number if how is None else how, None


def _order(
    words: Sequence[str],
    passed: Sequence[int],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> dict[str, Any]:
    return {
        "words": words,
        "cwd": str(cwd or Path.cwd()),
        "env": dict(os.environ if env is None else env),
        "alone": start_new_session,
        "places": [*range(STANDARD), *passed],
    }


# ── there ────────────────────────────────────────────────────────────────────────────────────


def serve(orders: socket.socket) -> list[str] | None:
    """Fork for each order; the words in a process that was forked, None when all is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    while True:
        word, given, *_ = socket.recv_fds(orders, 1, 64)
        forget_the_ended()
        if not word:
            return None
        if os.fork() == 0:
            orders.close()
            return mind(*given)
        for one in given:
            os.close(one)


def forget_the_ended() -> None:
    """Leave no zombies of those who mind processes."""
    with suppress(ChildProcessError):  # there is none at all
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def mind(said: int, *given: int) -> list[str]:
    """Fork once more, and tell how that process ends; its words in there."""
    talk = socket.socket(fileno=said)
    order = json.loads(talk.makefile("r").readline())
    child = os.fork()
    if child == 0:
        talk.close()
        settle(order, given)
        words: list[str] = order["words"]
        return words
    for one in (*range(STANDARD), *given):
        os.close(one)
    talk.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    talk.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def settle(order: Mapping[str, Any], given: Sequence[int]) -> None:
    """Make this process the one that was ordered."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    above = max(*order["places"], *given) + 1
    for number, one in enumerate(given, above):  # none is overwritten before it is in its place
        os.dup2(one, number)
        os.close(one)
    for number, place in enumerate(order["places"], above):
        os.dup2(number, place)
        os.close(number)
    if order["alone"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))


def run(words: Sequence[str]) -> None:
    """Run what stands after `python`."""
    kind, *more = words
    if kind == "-m":
        sys.path[0], sys.argv[:] = str(Path.cwd()), more
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0], sys.argv[:] = "", [kind, *more[1:]]
        exec(compile(more[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        sys.path[0], sys.argv[:] = str(Path(kind).parent), list(words)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    ordered = serve(socket.socket(fileno=int(sys.argv[1])))
    if ordered is not None:
        run(ordered)
