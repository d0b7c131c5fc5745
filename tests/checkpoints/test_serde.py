"""What may come back as an object: the nouns, LangGraph's own, and what was allowed."""

import inspect
import json
import pkgutil
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import ormsgpack
import pytest
from pydantic import BaseModel

import kapelle.state
from kapelle.checkpoints import Database
from kapelle.checkpoints.serde import StrictSerializer, nouns
from kapelle.state.approval import Approval
from kapelle.state.errors import Unreadable
from kapelle.state.noun import Noun
from kapelle.state.task import Result, Task

pytestmark = pytest.mark.anyio


class Report(BaseModel):
    """A model of a user's."""

    title: str


def test_every_noun_of_state_and_nothing_else_is_on_the_list() -> None:
    there = {
        kind
        for module in pkgutil.walk_packages(kapelle.state.__path__, "kapelle.state.")
        for kind in vars(import_module(module.name)).values()
        if inspect.isclass(kind) and issubclass(kind, Noun)
    }
    assert set(nouns()) == there
    assert {Task, Result, Approval} <= there
    assert all(kind.__module__.startswith("kapelle.state.") for kind in nouns())


def test_nouns_come_back_as_they_were() -> None:
    serde = StrictSerializer()
    result = Result(task="t", status="done", output={"a": [1, None]})
    assert serde.loads_typed(serde.dumps_typed({"t": result})) == {"t": result}


def test_a_type_that_is_not_allowed_comes_back_as_plain_data() -> None:
    stored = StrictSerializer().dumps_typed(Report(title="five"))
    assert StrictSerializer().loads_typed(stored) == {"title": "five"}
    assert StrictSerializer([Report]).loads_typed(stored) == Report(title="five")


@pytest.mark.parametrize("code", range(6))
def test_nothing_is_run_on_load(code: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    call = ("os", "system", f"touch {marker}")
    arguments = {1: (call[2],), 2: {"command": call[2]}}.get(code, call[2])
    body = ormsgpack.packb((*call[:2], arguments, "model_validate_json"))
    packed = ormsgpack.packb({"x": ormsgpack.Ext(code, body)})
    StrictSerializer().loads_typed(("msgpack", packed))
    assert not marker.exists()


@pytest.mark.parametrize(
    "stored",
    [
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x92\x01"),
        ("pickle", b"N."),
        ("nothing", b""),
        ("json", b"{"),
    ],
)
def test_damaged_and_foreign_values_are_unreadable(stored: tuple[str, bytes]) -> None:
    with pytest.raises(Unreadable):
        StrictSerializer().loads_typed(stored)


def test_the_database_allows_what_it_is_told(url: str) -> None:
    config = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c1"}}
    with Database(url, allow=[Report]) as database:
        serde = database.saver.serde
        assert serde.loads_typed(serde.dumps_typed(Report(title="x"))) == Report(title="x")
        database.saver.put_writes(config, [("channel", Report(title="x"))], "task")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [None, "from_float"])
def test_json_that_names_a_constructor_stays_what_it_is(method: str | None) -> None:
    """CVE-2025-64439: once such a row called whatever it named."""
    named = {"lc": 2, "type": "constructor", "id": ["fractions", "Fraction"], "args": [0.5]}
    stored = json.dumps(named | ({"method": [method]} if method else {})).encode()
    try:
        loaded = StrictSerializer().loads_typed(("json", stored))
    except Unreadable:
        return
    assert not isinstance(loaded, Fraction)
