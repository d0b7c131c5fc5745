"""The main job: audit a real body of code, ask a person about what is severe, leave a report.

`make demo` runs it on the standard library of this interpreter; `make demo PATH_TO_AUDIT=…` on
another folder. On a terminal you answer the ask; without one, a second process does. Killed at any
moment, it goes on with `kapelle resume`.
"""

import os
import platform
import subprocess
import sys
import sysconfig
import time
from datetime import datetime
from pathlib import Path

from kapelle import Database, Run, Runs
from kapelle.cli import cli
from kapelle.terminal import Terminal

DB = "kapelle.db"
REPORT = Path("report.md").absolute()
HEAD = 24
"""Lines of the report that are shown."""


def main() -> int:
    """Run the audit; the exit code of the command that did."""
    began = time.monotonic()
    thread = f"audit-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    say = Terminal(db=DB)
    print(f"Auditing {about()} as run {thread}.")
    print(f"If this is killed, `{say.command('resume', thread)}` goes on with it.\n", flush=True)
    code = cli.call(["run", "audit", *arguments(thread)])
    if code not in (0, 1):  # what went wrong is said already
        return code
    if read(thread).asks and not say.interactive:
        code = answered_elsewhere(thread)
    run = read(thread)
    if run.status in ("done", "partial"):
        print(page(run, time.monotonic() - began))
        print(f"The whole story: {say.command('show', thread)}")
    return code


def about() -> str:
    """What is audited, in words."""
    given = os.environ.get("PATH_TO_AUDIT")
    version = platform.python_version()
    return given or f"the standard library of Python {version} ({sysconfig.get_path('stdlib')})"


def arguments(thread: str) -> list[str]:
    """What the command is told."""
    given = os.environ.get("PATH_TO_AUDIT")
    path = Path(given).expanduser().absolute() if given else sysconfig.get_path("stdlib")
    return [
        *("--task", f"Audit {about()}"),
        *("--input", f"path={path}"),
        *("--input", f"report={REPORT}"),
        *("--thread", thread),
        *("--db", DB),
    ]


def answered_elsewhere(thread: str) -> int:
    """Have a second process approve what the run asks; its exit code."""
    code = 0
    for ask in read(thread).asks:
        command = [sys.executable, "-m", "kapelle", "approve", ask.id, "--by", "demo", "--db", DB]
        print("\nNobody sits here, so a second process answers:")
        print(f"  kapelle approve {ask.id} --by demo\n", flush=True)
        code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own program
    return code


def read(thread: str) -> Run:
    """How the run stands."""
    with Database(DB) as db:
        return Runs(db, {}).sync.read(thread)


def page(run: Run, seconds: float) -> str:
    """Where the report is, and how it begins."""
    head = REPORT.read_text(encoding="utf-8").splitlines()[:HEAD]
    lines = "\n".join(f"  │ {line}" for line in head)
    return f"\n{REPORT}\n{lines}\n  │ …\n\nRun {run.thread} is {run.status}, in {seconds:.0f} s.\n"


if __name__ == "__main__":
    sys.exit(main())
