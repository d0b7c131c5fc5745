"""`kapelle db` and `kapelle doctor`: what looks after the database."""

import json
import sqlite3

import pytest

from tests.cli.conftest import Call
from tests.cli.looking import is_one_line


def test_a_database_is_set_up_before_anything_runs(call: Call) -> None:
    made = json.loads(call("db", "upgrade", "--db", "new.db", "--json").stdout)
    assert made["database"].endswith("new.db")
    assert call("runs", "--db", "new.db").exit_code == 0
    assert made["schema"] in call("db", "upgrade", "--db", "new.db").stdout


def test_stats_tell_which_threads_are_large(call: Call) -> None:
    call("run", "named", "-t", "Do it", "--thread", "kept")
    stats = json.loads(call("db", "stats", "--json").stdout)
    assert stats["rows"]["checkpoints"] > 1
    assert stats["bytes"]["checkpoints"] > 100
    assert list(stats["threads"]) == ["kept"]
    shown = call("db", "stats").stdout
    assert "checkpoints" in shown
    assert "kept" in shown


def test_old_checkpoints_are_forgotten_and_the_run_can_still_be_read(call: Call) -> None:
    for thread in ("one", "two"):
        call("run", "named", "-t", "Do it", "--thread", thread)
    assert json.loads(call("db", "prune", "--days", "1", "--json").stdout)["checkpoints"] == 0
    pruned = json.loads(call("db", "prune", "--thread", "one", "--json").stdout)
    assert pruned["checkpoints"] > 0
    left = json.loads(call("db", "stats", "--json").stdout)["threads"]
    assert left["one"] < left["two"]
    assert call("show", "one").exit_code == 0
    assert "Forgot" in call("db", "prune", "--keep", "2").stdout


def test_idle_threads_are_forgotten_but_not_those_that_wait(call: Call) -> None:
    call("run", "named", "-t", "Do it", "--thread", "over")
    call("run", "asking", "-t", "Do it", "--thread", "waits")
    assert json.loads(call("db", "prune", "--idle", "1", "--json").stdout)["threads"] == []
    gone = json.loads(call("db", "prune", "--idle", "-1", "--json").stdout)["threads"]
    assert gone == ["over"]
    assert [row["thread"] for row in json.loads(call("runs", "--json").stdout)] == ["waits"]


def test_the_doctor_finds_a_safe_database_safe(call: Call) -> None:
    call("db", "upgrade")
    told = call("doctor")
    assert (told.exit_code, "unsafe" in told.stdout) == (0, False)
    findings = json.loads(call("doctor", "--json").stdout)
    assert {"versions", "journal_mode", "synchronous", "schema", "serializer", "quick_check"} <= {
        finding["what"] for finding in findings
    }


def test_the_doctor_looks_at_a_database_that_is_refused(call: Call) -> None:
    call("db", "upgrade")
    with sqlite3.connect("kapelle.db") as connection:
        connection.execute("UPDATE kapelle_version SET version_num = '9999'")
    connection.close()
    told = call("doctor")
    assert told.exit_code == 1
    assert "unsafe  schema  9999" in told.stdout
    assert "upgrade Kapelle" in told.stdout


@pytest.mark.parametrize("words", [["db", "prune"], ["db", "stats"], ["doctor"]])
def test_a_database_that_is_not_there_is_one_line(call: Call, words: list[str]) -> None:
    result = call(*words, "--db", "nowhere.db")
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert "nowhere.db" in result.stderr


@pytest.mark.parametrize(
    "url",
    ["nonsense://x", "postgresql://me:secret@127.0.0.1:1/none", "mysql://me:secret@[::1]:1/x"],
)
def test_a_database_that_can_not_be_reached_is_one_line_without_the_password(
    call: Call, url: str
) -> None:
    for words in (["db", "upgrade"], ["db", "stats"], ["doctor"]):
        result = call(*words, "--db", url)
        assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
        assert "secret" not in result.stderr
