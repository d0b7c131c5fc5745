"""What there is to audit: the modules and packages below a folder."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kapelle import Task

SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "node_modules"}
"""Folders that are not the code itself; hidden ones are skipped as well."""


class Module(NamedTuple):
    """A top-level module or package."""

    name: str
    path: Path
    """Its file or its folder."""
    size: int
    """Bytes of source."""


def root_of(task: Task) -> Path:
    """The folder a task is about; the standard library if it names none."""
    return Path(str(task.inputs.get("path") or sysconfig.get_path("stdlib"))).absolute()


def modules_in(root: Path) -> list[Module]:
    """The modules below a folder, the largest first, each with a name of its own.

    Where `a/` and `a.py` stand side by side the package is `a`, as for `import`, the file `a.py`.
    """
    if not root.exists():
        raise ValueError(f"There is nothing at {root}: give the folder to audit as inputs['path'].")
    paths = [p for p in ([root] if root.is_file() else sorted(root.iterdir())) if _is_code(p)]
    modules = [Module(_name(path, paths), path, _size(path)) for path in paths if files_of(path)]
    if not modules:
        raise ValueError(f"There are no Python files in {root}: nothing to audit.")
    return sorted(modules, key=lambda module: (-module.size, module.name))


def files_of(path: Path) -> list[Path]:
    """The Python files of a module: the file itself, or all in the folder and below."""
    return [path] if path.is_file() else sorted(_walk(path))


def relative(file: str | Path, path: Path) -> str:
    """A file as the report names it: from the audited folder on, with forward slashes."""
    return Path(file).relative_to(path.parent).as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_skipped(name)]
        yield from (path for name in files if _is_code(path := Path(place, name)))


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" if path.is_file() else path.is_dir() and not _is_skipped(path.name)


def _is_skipped(folder: str) -> bool:
    return folder in SKIPPED or folder.startswith(".")


def _name(path: Path, among: list[Path]) -> str:
    return path.name if path.is_dir() or path.with_suffix("") in among else path.stem


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in files_of(path))
