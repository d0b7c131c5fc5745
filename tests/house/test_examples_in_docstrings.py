"""What a docstring shows is what happens."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = sorted(
    f"kapelle.{floor}.{path.stem}"
    for floor in ("state", "nodes", "graphs", "checkpoints")
    for path in (ROOT / floor).glob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
