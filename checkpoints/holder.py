"""Who holds a lease: names this process, so that others on its host can tell when it has died.

    host/pid/start/boot/space/lot

A process is known by its host, the host's present boot, its space of process ids (containers have
their own), its id there, and when it was started, since ids come round again. Where the system does
not say all that (there is no /proc), nobody is ever said to be dead, and a lease has to run out.
"""

import os
import socket
from pathlib import Path
from uuid import uuid4

PROC = Path("/proc")


def holder() -> str:
    """A name for somebody in this process; no two are the same."""
    pid = os.getpid()
    host = socket.gethostname()[:48].replace("/", "_")
    return "/".join((host, str(pid), _started(pid), *_here(), uuid4().hex[:6]))


def has_died(name: str | None) -> bool:
    """Whether the process that made this name is known to be gone: True only if that is certain."""
    parts = (name or "").split("/")
    if len(parts) != 6 or "" in parts or not parts[1].isdecimal():
        return False
    host, pid, started, boot, space, _ = parts
    if host != holder().split("/")[0] or (boot, space) != _here():
        return False
    try:
        os.kill(int(pid), 0)  # asks only whether there is one, of any user
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return _started(int(pid)) not in ("", started)


def _here() -> tuple[str, str]:
    """The host's present boot and this process's space of process ids; empty if unknown."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().split("-")[0]
        return boot, (PROC / "self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return "", ""


def _started(pid: int) -> str:
    """When a process was started, in ticks since the boot; empty if that can't be read."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "over" if state in "ZX" else rest[18]
