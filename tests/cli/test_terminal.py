"""On a terminal the run shows how far it is, asks who sits there, and goes on with the answer."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Start
from tests.cli.looking import MOST, until

if sys.platform == "win32":
    pytest.skip("there are no such terminals", allow_module_level=True)

pytestmark = pytest.mark.slow


STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Seat:
    """Someone at a terminal where a command runs."""

    def __init__(self, start: Start, *words: str) -> None:
        self._mine, theirs = os.openpty()
        os.set_blocking(self._mine, False)
        pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        self.process = start(*words, env=environment, start_new_session=True, **pipes)
        os.close(theirs)
        self.seen = ""

    def sees(self, text: str) -> None:
        """Look until a text is there."""
        until(lambda: text in self._look(), f"{text!r} in {self.seen!r}")

    def types(self, text: str) -> None:
        """Answer; what was seen before is forgotten."""
        self.seen = ""
        os.write(self._mine, text.encode())

    def leaves(self) -> int:
        """Wait for the end; the exit code."""
        until(lambda: (self._look(), self.process.poll() is not None)[1], "over")
        return self.process.wait(MOST)

    def close(self) -> None:
        """Turn the terminal off."""
        os.close(self._mine)

    def _look(self) -> str:
        with suppress(OSError):  # nothing yet, or nothing any more
            read = os.read(self._mine, 100_000).decode(errors="replace")
            self.seen += STYLES.sub("", read)
        return self.seen


@pytest.fixture
def seat(start: Start) -> Iterator[Callable[..., Seat]]:
    """Sit down at a terminal where a command runs."""
    seats: list[Seat] = []

    def sit(*words: str) -> Seat:
        seats.append(Seat(start, *words))
        return seats[-1]

    yield sit
    for taken in seats:
        taken.close()


def test_who_sits_there_sees_progress_approves_and_the_run_goes_on(
    seat: Callable[..., Seat],
) -> None:
    here = seat("run", "asking", "-t", "Do it", "--thread", "mine")
    here.sees("approve / edit / reject / respond / later / all > ")
    assert "It is severe." in here.seen
    assert "3/3" in here.seen, "progress was drawn"
    here.types("ap\n")
    assert here.leaves() == 0
    assert "part0: part0 is done" in here.seen


def test_an_answer_that_is_none_is_asked_for_again(seat: Callable[..., Seat]) -> None:
    here = seat("run", "asking", "-t", "Do it")
    here.sees(" > ")
    here.types("re\n")
    here.sees("answer one of approve, edit, reject, respond, later, all")
    here.types("reject\n")
    here.sees("Why")
    here.types("not like this\n")
    assert here.leaves() == 1
    assert "rejected it: not like this" in here.seen


def test_each_ask_can_be_left_for_later(seat: Callable[..., Seat], call: Call) -> None:
    here = seat("run", "agents.py:several", "-t", "Do it", "--input", "parts=2")
    here.sees(" > ")
    here.types("later\n")
    here.sees(" > ")
    here.types("approve\n")
    assert here.leaves() == 0
    assert "waiting" in here.seen
    assert "kapelle approve " in here.seen


def test_who_is_too_late_is_told_and_sees_how_the_run_stands(
    seat: Callable[..., Seat], call: Call
) -> None:
    here = seat("run", "asking", "-t", "Do it", "--thread", "shared")
    here.sees(" > ")
    ask = json.loads(call("inbox", "--json").stdout)[0]["id"]
    assert call("approve", ask, "--by", "ann").exit_code == 0
    here.types("reject\n")
    here.sees("Why")
    here.types("\n")
    assert here.leaves() == 0
    assert "already answered: approve by ann" in here.seen
    assert "done  shared" in here.seen


def test_an_edit_opens_the_editor(
    seat: Callable[..., Seat], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = folder / "editor"
    editor.write_text('#!/bin/sh\necho \'{"edited": 1}\' > "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    here = seat("run", "asking", "-t", "Do it")
    here.sees(" > ")
    here.types("edit\n")
    assert here.leaves() == 0
    assert "edited: 1" in here.seen
