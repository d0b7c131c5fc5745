"""`kapelle runs`, `show` and `inbox`: what the database says."""

import json
import sqlite3

import pytest

from tests.cli.conftest import Call
from tests.cli.looking import is_one_line

READING = (["runs"], ["inbox"], ["show", "x"], ["resume", "x"], ["approve", "abc"])


def test_runs_are_listed_the_newest_first(call: Call) -> None:
    for thread in ("one", "two"):
        call("run", "named", "-t", f"Task {thread}", "--thread", thread)
    assert [row["thread"] for row in json.loads(call("runs", "--json").stdout)] == ["two", "one"]
    listed = call("runs").stdout
    assert listed.index("Task two") < listed.index("Task one")
    assert [row["thread"] for row in json.loads(call("runs", "-n", "1", "--json").stdout)] == [
        "two"
    ]


def test_the_inbox_lists_the_asks_of_all_runs(call: Call) -> None:
    threads = {
        json.loads(call("run", "asking", "-t", "Do it", "--json").stdout)["thread"] for _ in "ab"
    }
    asks = json.loads(call("inbox", "--json").stdout)
    assert {ask["thread"] for ask in asks} == threads
    listed = call("inbox").stdout
    assert all(ask["id"] in listed for ask in asks)


def test_one_ask_is_shown_in_full(call: Call) -> None:
    call("run", "asking", "-t", "Do it", "--input", "parts=100")
    ask = json.loads(call("inbox", "--json").stdout)[0]
    assert "more lines" in call("show", ask["thread"]).stdout
    assert "part99: part99 is done" in call("inbox", ask["id"]).stdout


def test_show_says_who_did_what_and_why(waiting: tuple[str, str], call: Call) -> None:
    thread, ask = waiting
    before = call("show", thread).stdout
    assert "Status  waiting" in before
    assert "assigned 3 to work  by skill and load" in before
    assert "judge: asked task  It is severe." in before
    assert ask in before
    call("reject", ask, "--reason", "not yet", "--by", "ann")
    after = call("show", thread).stdout
    assert after.count("ann said reject") == 1
    assert "not yet" in after
    assert "the run is refused" in after


@pytest.mark.parametrize("show", [False, True])
def test_what_contradicts_and_what_rests_on_it_is_shown(call: Call, *, show: bool) -> None:
    words = ("run", "agents.py:insisting", "-t", "Do it", "--input", "parts=2", "--thread", "x")
    shown = call(*words).stdout
    if show:
        shown = call("show", "x").stdout
    assert "1 contradiction, settled" in shown
    assert 'ui = "part0" (by evidence); not "part1" (insist)' in shown
    assert "rests on what fell, not done again: part1" in shown
    if show:
        assert "flagged" in shown


def test_show_counts_what_each_agent_did(call: Call) -> None:
    thread = json.loads(call("run", "agents.py:failing", "-t", "Do it", "--json").stdout)["thread"]
    agents = json.loads(call("show", thread, "--json").stdout)["agents"]
    assert [(a["agent"], a["subtasks"], a["attempts"], a["failed_attempts"]) for a in agents] == [
        ("plan", 1, 1, 0),
        ("fail", 3, 3, 3),
    ]


def test_show_says_who_spent_what_with_retries_and_waste_apart(call: Call) -> None:
    thread = json.loads(call("run", "agents.py:faltering", "-t", "Do it", "--json").stdout)[
        "thread"
    ]
    told = json.loads(call("show", thread, "--json").stdout)
    (model,), tasks = told["models"], {t["task"]: t for t in told["tasks"]}
    used = [model[part]["input_tokens"] for part in ("usage", "retries", "waste")]
    assert (model["model"], used) == ("small-1", [540, 270, 270])
    assert tasks["part0"]["usage"]["output_tokens"] == 20
    page = call("show", thread).stdout
    assert "By model" in page
    assert "By task" in page


def test_show_tells_all_that_happened_if_asked(waiting: tuple[str, str], call: Call) -> None:
    thread, _ = waiting
    decisions = json.loads(call("show", thread, "--json").stdout)["events"]
    assert {e["kind"] for e in decisions} == {"run", "choice", "verdict", "escalation"}
    everything = json.loads(call("show", thread, "--events", "--json").stdout)["events"]
    assert {"attempt", "message"} < {event["kind"] for event in everything}
    assert "work to manager: inform part1" in call("show", thread, "--events").stdout


def test_show_tells_of_the_last_run_of_a_thread_only(call: Call) -> None:
    for _ in "ab":
        call("run", "named", "-t", "Do it", "--thread", "again")
    agents = json.loads(call("show", "again", "--json").stdout)["agents"]
    assert {a["agent"]: a["attempts"] for a in agents} == {"plan": 1, "work": 3}


def test_an_unknown_thread_is_one_line(waiting: tuple[str, str], call: Call) -> None:
    for command in ("show", "resume"):
        result = call(command, "nowhere")
        assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
        assert "'nowhere'" in result.stderr
        assert "kapelle runs" in result.stderr


@pytest.mark.parametrize("ask", ["0123abc", "no ask at all", "'; --"])
def test_an_unknown_ask_is_one_line(waiting: tuple[str, str], call: Call, ask: str) -> None:
    for words in (["approve", ask], ["edit", ask, "1"], ["reject", ask], ["respond", ask, "x"]):
        result = call(*words)
        assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
        assert "kapelle inbox" in result.stderr


@pytest.mark.parametrize("words", READING)
def test_a_missing_database_is_one_line_and_none_is_made(call: Call, words: list[str]) -> None:
    result = call(*words, "--db", "nowhere.db")
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert "nowhere.db" in result.stderr
    assert "kapelle run" in result.stderr
    assert call("runs", "--db", "nowhere.db").exit_code == 2


@pytest.mark.parametrize("words", [*READING, ["run", "named", "-t", "Do it"]])
def test_a_newer_database_is_one_line_and_stays_as_it_is(
    waiting: tuple[str, str], call: Call, words: list[str]
) -> None:
    with sqlite3.connect("kapelle.db") as connection:
        connection.execute("UPDATE kapelle_version SET version_num = '9999'")
    connection.close()
    result = call(*words)
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert "9999" in result.stderr
    assert "upgrade Kapelle" in result.stderr


def test_the_environment_can_name_the_database(call: Call) -> None:
    call("run", "named", "-t", "Do it", "--thread", "kept", env={"KAPELLE_DB": "other.db"})
    rows = json.loads(call("runs", "--db", "other.db", "--json").stdout)
    assert [row["thread"] for row in rows] == ["kept"]
