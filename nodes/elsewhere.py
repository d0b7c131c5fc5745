"""How a function is found again in a worker process: by where it is defined, not by pickling it.

Pickle refuses a decorated function, because its name now means the agent made of it.
"""

import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

Address = tuple[str, str, str]
"""Module, file, qualified name."""


class NoAddress(Exception):
    """The function can't be found from another process: a lambda, a closure, a notebook's."""


def address(function: Callable[..., Any]) -> Address:
    """Where a function is defined."""
    plain = inspect.unwrap(function)
    name = getattr(plain, "__qualname__", "<nameless>")
    if not inspect.isfunction(plain) or "<" in name:
        raise NoAddress(name)
    file = Path(plain.__code__.co_filename)
    if not file.is_file():
        raise NoAddress(name)
    return plain.__module__, str(file.resolve()), name


def perform(place: Address, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Call the function at an address; runs in the worker process."""
    try:
        return _function(place)(*given, **named)
    except Exception as error:  # noqa: BLE001  whatever it is, it must travel home
        raise _portable(error) from None


def _portable(error: Exception) -> Exception:
    """The error itself, if it can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  pickling runs foreign code
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def importing() -> bool:
    """Whether a worker process is just importing what it was sent for: no time to start a run."""
    return _loading or "__main__" not in sys.modules


def _function(place: Address) -> Callable[..., Any]:
    module, file, name = place
    found: Any = _module(module, file)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = getattr(found, "function", found)
    return function


def _module(name: str, file: str) -> ModuleType:
    known = sys.modules.get(name) or _imported(name)
    if known is not None and _file(known) == file:
        return known
    alias = name if known is None else f"{name}@{file}"
    return sys.modules.get(alias) or _loaded(alias, file)


def _imported(name: str) -> ModuleType | None:
    try:
        with _no_runs():
            return importlib.import_module(name)
    except ImportError:
        return None


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if file else None


def _loaded(name: str, file: str) -> ModuleType:
    """The module in a file, by the name it has in the process that sent for it."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _no_runs():
        spec.loader.exec_module(module)
    return module


_loading = False


@contextmanager
def _no_runs() -> Iterator[None]:
    global _loading  # noqa: PLW0603  of this process, like the modules it loads
    _loading = True
    try:
        yield
    finally:
        _loading = False
