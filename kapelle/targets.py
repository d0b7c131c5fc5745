"""Targets: how a name on the command line becomes a graph, in this process and in a later one.

A target is a name in `langgraph.json`, LangGraph's own file, found here or in a folder above, which
gives for it `path.py:attribute` or `dotted.module:attribute`; or a `path.py:attribute` itself. The
`env` of that file, variables or the name of a file of them, counts where nothing else is set. What
is named is a graph, or a function that makes one: without a parameter, or with one, given
LangGraph's config: `{"configurable": {...}}`.
"""

import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue

from kapelle.nodes.door import wait
from kapelle.runs import Graph
from kapelle.state.errors import KapelleError, Misbuilt, Refused, UnknownTarget

CONFIG = "langgraph.json"

Spec = dict[str, JsonValue]
"""How a later process finds a graph again: the fields of its `Place`, and what it was made with."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a graph is."""

    name: str
    file: str
    """Its full path."""
    attribute: str
    roots: tuple[str, ...]
    """Folders that its imports start from."""
    config: str | None = None
    """The full path of the `langgraph.json` that belongs to it."""


def load(target: str, configurable: Mapping[str, JsonValue]) -> tuple[str, Graph, Spec]:
    """The graph a target names, with its name and how to find it again.

    Raises:
        UnknownTarget: there is no such graph; says which there are.
        Misbuilt: its file can't be loaded; says where and why.
        Refused: it is given settings and takes none.
    """
    place = _place(target, Path.cwd())
    given = dict(configurable)
    spec = {**asdict(place), "roots": list(place.roots), "configurable": given}
    return place.name, _graph(place, given), spec


def again(spec: Any) -> Graph:
    """The graph that an earlier process found.

    Raises:
        UnknownTarget: it is not there any more.
        Misbuilt: its file can't be loaded any more.
    """
    fields = dict(spec)
    configurable = fields.pop("configurable", {})
    place = Place(**{**fields, "roots": tuple(fields["roots"])})
    if not Path(place.file).is_file():
        raise UnknownTarget(
            f"{place.file} is not there any more; put it back: {place.name} is in it"
        )
    return _graph(place, configurable)


def _place(target: str, here: Path) -> Place:
    path, colon, attribute = target.rpartition(":")
    if colon:
        return _in_file(here / path, attribute, _config_above(here / path))
    if target.endswith(".py"):
        raise UnknownTarget(f"{target} is a file; name the graph in it: {target}:NAME")
    return _by_name(target, _config_above(here / CONFIG))


def _by_name(name: str, config: Path | None) -> Place:
    if config is None:
        raise UnknownTarget(
            f"there is no {CONFIG} here or above that could name {name!r};"
            " give the file and the graph in it: path.py:NAME"
        )
    graphs = _read(config).get("graphs", {})
    if name not in graphs:
        known = ", ".join(sorted(graphs)) or "none"
        raise UnknownTarget(
            f"there is no graph {name!r} in {config}; there are: {known}; or give path.py:NAME"
        )
    entry = graphs[name]
    where = entry.get("path") if isinstance(entry, dict) else entry
    path, colon, attribute = str(where).rpartition(":")
    if not colon:
        raise UnknownTarget(
            f"graph {name!r} in {config} is {where!r}; it must be path.py:NAME or module:NAME"
        )
    file = config.parent / path
    if not path.endswith(".py") and "/" not in path:
        file = _of_module(path, config) or file
    place = _in_file(file, attribute, config)
    return Place(**{**asdict(place), "name": name})


def _of_module(name: str, config: Path) -> Path | None:
    """The file of a dotted module: below the folders the graphs need, or installed."""
    for root in (*_dependencies(config), config.parent):
        stem = root.joinpath(*name.split("."))
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _set_environment(config: Path) -> None:
    """Set what `env` in `langgraph.json` says and nobody else has set."""
    given = _read(config).get("env", {})
    if isinstance(given, str):
        file = config.parent / given
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UnknownTarget(f"{file}, the env of {config}, can't be read: {error}") from error
        pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
        given = {k.strip(): _unquoted(v.strip()) for k, is_, v in pairs if is_ and k[:1] != "#"}
    if not isinstance(given, dict):
        raise UnknownTarget(f"env in {config} must be variables, or the name of a file of them")
    for name, value in given.items():
        os.environ.setdefault(name, str(value))


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value.partition(" #")[0].rstrip()


def _in_file(path: Path, attribute: str, config: Path | None) -> Place:
    file = path.resolve()
    if not file.is_file():
        raise UnknownTarget(f"there is no file {path}; give a Python file: path.py:NAME")
    if file.suffix != ".py":
        raise UnknownTarget(f"{path} is no Python file; give path.py:NAME")
    roots = [*_dependencies(config), _package_root(file)]
    return Place(
        name=attribute,
        file=str(file),
        attribute=attribute,
        roots=tuple(dict.fromkeys(map(str, roots))),
        config=str(config) if config else None,
    )


def _config_above(path: Path) -> Path | None:
    return next((f for p in path.absolute().parents if (f := p / CONFIG).is_file()), None)


def _read(config: Path) -> dict[str, Any]:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownTarget(f"{config} can't be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("graphs", {}), dict):
        raise UnknownTarget(f'{config} must look like {{"graphs": {{"name": "./path.py:name"}}}}')
    return content


def _dependencies(config: Path | None) -> list[Path]:
    """Folders that `langgraph.json` says the graphs need."""
    if config is None:
        return []
    local = [d for d in _read(config).get("dependencies", []) if str(d).startswith(".")]
    return [(config.parent / d).resolve() for d in local]


def _package_root(file: Path) -> Path:
    """The folder that the package a file belongs to is imported from; its own if there is none."""
    return next(p for p in file.parents if not (p / "__init__.py").is_file())


def _graph(place: Place, configurable: Mapping[str, JsonValue]) -> Graph:
    if place.config is not None and Path(place.config).is_file():
        _set_environment(Path(place.config))
    found = _attribute(_module(place), place)
    if inspect.isroutine(found):
        found = _made(found, place, configurable)
    elif configurable:
        given = ", ".join(sorted(configurable))
        raise Refused(
            f"{place.name!r} is a graph, not a function that makes one: it takes no {given}"
        )
    if not isinstance(found, StateGraph | CompiledStateGraph):
        kind = type(found).__name__
        raise UnknownTarget(
            f"{place.attribute!r} in {place.file} is a {kind}, not a LangGraph graph"
        )
    return found


def _made(make: Callable[..., Any], place: Place, configurable: Mapping[str, JsonValue]) -> object:
    takes = len(inspect.signature(make).parameters)
    if takes > 1:
        raise UnknownTarget(
            f"{place.attribute}() takes {takes} parameters; it may take one: config"
        )
    if configurable and not takes:
        given = ", ".join(sorted(configurable))
        raise Refused(f"{place.attribute}() takes no config, so it can't be given {given}")
    with _blamed(place):
        made = make({"configurable": dict(configurable)}) if takes else make()
        return wait(made) if inspect.iscoroutine(made) else made


def _attribute(module: ModuleType, place: Place) -> Any:
    if hasattr(module, place.attribute):
        return getattr(module, place.attribute)
    known = ", ".join(_offers(module)) or "none"
    raise UnknownTarget(f"there is no {place.attribute!r} in {place.file}; graphs there: {known}")


def _offers(module: ModuleType) -> Iterator[str]:
    for name, thing in vars(module).items():
        if isinstance(thing, StateGraph | CompiledStateGraph):
            yield name


def _module(place: Place) -> ModuleType:
    """The module of a file, under the name it has for those that import it.

    Worker processes find agents, and types find their way back, by that name.
    """
    for root in reversed(place.roots):
        if root not in sys.path:
            sys.path.insert(0, root)
    with _blamed(place):
        name = _import_name(place)
        return importlib.import_module(name) if name else _by_file(place.file)


def _import_name(place: Place) -> str | None:
    """The dotted name that leads to just this file; None if there is none."""
    for root in place.roots:
        if not Path(place.file).is_relative_to(root):
            continue
        parts = Path(place.file).relative_to(root).with_suffix("").parts
        if all("." not in part for part in parts) and _leads_to(place.file, ".".join(parts)):
            return ".".join(parts)
    return None


def _leads_to(file: str, name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return (
        spec is not None and spec.origin is not None and Path(spec.origin).resolve() == Path(file)
    )


def _by_file(file: str) -> ModuleType:
    alias = f"kapelle_target_{sha256(file.encode()).hexdigest()[:12]}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[alias] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


@contextmanager
def _blamed(place: Place) -> Iterator[None]:
    """What the user's own code raises becomes one line that names file and line."""
    try:
        yield
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        why = str(error) if isinstance(error, KapelleError) else _said(error)
        raise Misbuilt(f"{_where(error, place)} can't be loaded: {why}") from error


def _said(error: BaseException) -> str:
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {what}" if what else type(error).__name__


def _where(error: BaseException, place: Place) -> str:
    """The last line of the user's own that led to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if _is_own(f.filename, place)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else place.file


def _is_own(file: str, place: Place) -> bool:
    path = Path(file)
    if "site-packages" in path.parts:
        return False
    return any(path.is_relative_to(root) for root in place.roots)
