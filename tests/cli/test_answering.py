"""`kapelle approve`, `edit`, `reject` and `respond`: from any process, each ask once."""

import json
import re
from pathlib import Path

import pytest

from kapelle import Database, Runs, targets
from tests.cli.conftest import Call, Finish
from tests.cli.looking import is_one_line


def test_a_second_process_approves_and_the_run_goes_on_there(
    waiting: tuple[str, str],
    elsewhere: Finish,
    call: Call,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    thread, ask = waiting
    away = tmp_path_factory.mktemp("away")
    result = elsewhere("approve", ask, "--db", str(folder / "kapelle.db"), cwd=away)
    assert (result.returncode, result.stdout.split()[:2]) == (0, ["done", thread])
    assert json.loads(call("inbox", "--json").stdout) == []


def test_a_second_approval_is_refused_with_who_and_when(
    waiting: tuple[str, str], elsewhere: Finish, call: Call
) -> None:
    _, ask = waiting
    assert call("approve", ask, "--by", "ann").exit_code == 0
    result = elsewhere("approve", ask, "--by", "bob")
    assert result.returncode == 2
    assert result.stdout == ""
    assert is_one_line(result.stderr)
    assert re.search(r"approve by ann at .*\d:\d\d:\d\d", result.stderr)


def test_what_the_graph_was_made_with_is_known_to_who_goes_on(
    call: Call, elsewhere: Finish
) -> None:
    made_with = ["--model", "openai:tiny", "--docs", ".", "--config", "depth=2"]
    words = ["agents.py:tuned", "-t", "Do it", "--input", "parts=1", *made_with]
    ask = json.loads(call("run", *words, "--json").stdout)["asks"][0]["id"]
    answered = json.loads(elsewhere("respond", ask, "Once more", "--json").stdout)
    assert answered["asks"][0]["evidence"] == {
        "model": "openai:tiny",
        "docs": str(Path.cwd()),
        "depth": 2,
    }


def test_a_rejected_run_is_refused_with_the_reason_as_whoever_rejects_it_wished(
    waiting: tuple[str, str], call: Call
) -> None:
    result = call("reject", waiting[1], "--reason", "too late", "--by", "ann")
    assert result.exit_code == 0
    assert result.stdout.startswith("refused  ")
    assert "ann rejected it: too late" in result.stdout


def test_an_edit_replaces_what_was_shown(waiting: tuple[str, str], call: Call) -> None:
    found = json.loads(call("edit", waiting[1], '{"better": true}', "--json").stdout)
    assert (found["status"], found["result"]["output"]) == ("done", {"better": True})


def test_an_edit_can_come_from_a_file(waiting: tuple[str, str], call: Call, folder: Path) -> None:
    (folder / "value.json").write_text('["from", "a file"]', encoding="utf-8")
    found = json.loads(call("edit", waiting[1], "--file", "value.json", "--json").stdout)
    assert found["result"]["output"] == ["from", "a file"]


def test_an_edit_needs_one_value(waiting: tuple[str, str], call: Call) -> None:
    for words in ([], ["x", "--file", "-"]):
        result = call("edit", waiting[1], *words)
        assert (result.exit_code, is_one_line(result.stderr)) == (2, True)


def test_several_asks_are_answered_one_by_one_in_any_order(call: Call) -> None:
    words = ["run", "agents.py:several", "-t", "Do it", "--json"]
    asks = [ask["id"] for ask in json.loads(call(*words).stdout)["asks"]]
    assert len(asks) == 3
    first = json.loads(call("approve", asks[2], "--json").stdout)
    assert (first["status"], {a["id"] for a in first["asks"]}) == ("waiting", set(asks[:2]))
    second = json.loads(call("edit", asks[0], "mine", "--json").stdout)
    assert [a["id"] for a in second["asks"]] == [asks[1]]
    last = json.loads(call("approve", asks[1], "--json").stdout)
    assert last["status"] == "done"
    assert "mine" in last["result"]["output"].values()


def test_the_beginning_of_an_ask_is_enough_if_it_is_the_only_one(
    waiting: tuple[str, str], call: Call
) -> None:
    assert call("approve", waiting[1][:6]).exit_code == 0


def test_the_answer_is_by_who_is_logged_in_unless_said_otherwise(
    waiting: tuple[str, str], call: Call
) -> None:
    call("approve", waiting[1], env={"LOGNAME": "carla"})
    assert "carla said approve" in call("show", waiting[0]).stdout


def test_an_answer_to_a_graph_that_is_gone_is_not_taken(
    waiting: tuple[str, str], call: Call, folder: Path
) -> None:
    (folder / "agents.py").rename(folder / "gone.py")
    result = call("approve", waiting[1])
    assert (result.exit_code, is_one_line(result.stderr)) == (2, True)
    assert "agents.py is not there any more" in result.stderr
    assert [a["id"] for a in json.loads(call("inbox", "--json").stdout)] == [waiting[1]]


def test_an_answer_to_a_run_started_from_python_is_kept_for_who_started_it(
    call: Call,
) -> None:
    _, asking, _ = targets.load("agents.py:asking", {})
    with Database("kapelle.db") as db:
        runs = Runs(db, {"asking": asking})
        run = runs.sync.start("asking", "Do it")
        result = call("approve", run.asks[0].id, "--by", "ann")
        assert result.exit_code == 0
        assert f"runs.resume('{run.thread}')" in result.stdout
        assert runs.sync.resume(run.thread).status == "done"
