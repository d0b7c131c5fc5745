"""How a function is found again in a worker process: by where it is defined, not by pickling it.

Pickle refuses a decorated function, because its name now means the agent made of it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

Address = tuple[str, str, str]
"""Module, file, qualified name."""


class NoAddress(Exception):
    """The function can't be found from another process: a lambda, a closure, a notebook's."""


def address(function: Callable[..., Any]) -> Address:
    """Where a function is defined."""
    file = function.__code__.co_filename
    if "<" in function.__qualname__ or not Path(file).is_file():
        raise NoAddress(function.__qualname__)
    return function.__module__, str(Path(file).resolve()), function.__qualname__


def perform(place: Address, given: tuple[Any, ...]) -> Any:
    """Call the function at an address; runs in the worker process."""
    return _function(place)(*given)


def _function(place: Address) -> Callable[..., Any]:
    module, file, name = place
    found: Any = _module(module, file)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = getattr(found, "function", found)
    return function


def _module(name: str, file: str) -> ModuleType:
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == file:
        return known
    if name != "__main__":
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    alias = f"kapelle_elsewhere_{abs(hash(file))}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module
