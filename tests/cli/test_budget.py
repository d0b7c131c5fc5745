"""`kapelle run --estimate` and `kapelle approve ASK --add-…`: money before, and when it is gone."""

import json
from pathlib import Path

from tests.cli.conftest import Call, Finish


def test_an_estimate_says_what_a_run_will_use_and_does_nothing(call: Call, folder: Path) -> None:
    command = ("run", "agents.py:short", "-t", "Do it", "-i", "parts=[1,2,3,4]", "--estimate")
    shown = call(*command).stdout
    assert "one agent alone" in shown
    assert not (folder / "kapelle.db").exists()
    found = json.loads(call(*command, "--json").stdout)
    assert found["team"]["expected"]["usage"]["calls"] == 5
    assert found["alone"]["expected"]["usage"]["calls"] == 4


def test_another_process_adds_to_the_budget_of_a_run_and_what_was_spent_counts(
    call: Call, elsewhere: Finish
) -> None:
    run = json.loads(
        call("run", "agents.py:short", "-t", "Do it", "-i", "parts=5", "--json").stdout
    )
    (ask,) = run["asks"]
    assert ask["evidence"]["add"]["calls"] == 3
    first = elsewhere("approve", ask["id"], "--add-calls", "1", "--json")
    again = json.loads(first.stdout)["asks"][0]
    assert len(again["evidence"]["missing"]) == 2
    last = json.loads(elsewhere("approve", again["id"], "--add-calls", "2", "--json").stdout)
    assert last["status"] == "done"
    assert last["result"]["usage"]["calls"] == 6


def test_nothing_is_added_by_a_refusal(call: Call) -> None:
    run = json.loads(call("run", "agents.py:short", "-t", "Do it", "--json").stdout)
    result = json.loads(call("reject", run["asks"][0]["id"], "--json").stdout)
    assert (result["status"], result["result"]["missing"]) == ("partial", ["part2"])
    assert "no room for 1 part" in result["result"]["failure"]["message"]


def test_to_an_ask_that_is_not_about_a_budget_nothing_can_be_added(call: Call) -> None:
    run = json.loads(call("run", "agents.py:asking", "-t", "Do it", "--json").stdout)
    ask = run["asks"][0]["id"]
    refused = call("approve", ask, "--add-tokens", "100")
    assert refused.exit_code == 2
    assert "not about a budget" in refused.stderr
    shown = [each["id"] for each in json.loads(call("inbox", "--json").stdout)]
    assert ask in shown, "it is still open"
