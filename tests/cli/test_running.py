"""`kapelle run`: to the end, to where it waits, to where it fails."""

import json

import pytest

from tests.cli.conftest import Call, Finish
from tests.cli.looking import is_one_line


def test_a_run_goes_to_its_end_and_shows_what_came_out(call: Call) -> None:
    result = call("run", "agents.py:done", "--task", "Do it", "--thread", "first")
    assert result.exit_code == 0
    assert result.stdout.startswith("done  first\n")
    assert "part2: part2 is done" in result.stdout
    assert "kapelle show first" in result.stdout


def test_a_graph_is_found_by_its_name_in_langgraph_json(call: Call) -> None:
    result = call("run", "named", "--task", "Do it", "--json")
    assert json.loads(result.stdout)["graph"] == "named"


def test_inputs_reach_the_task_as_json_or_as_text(call: Call) -> None:
    words = ["--input", "parts=2", "--input", "note=a=b", "--input", 'list=["x"]']
    found = json.loads(call("run", "named", "-t", "Do it", *words, "--json").stdout)
    assert found["task"]["inputs"] == {"parts": 2, "note": "a=b", "list": ["x"]}
    assert sorted(found["result"]["output"]) == ["part0", "part1"]


def test_where_nobody_sits_a_waiting_run_shows_its_ask_and_the_exact_command(call: Call) -> None:
    result = call("run", "asking", "-t", "Do it", "--db", "my runs.db")
    assert result.exit_code == 0
    assert result.stdout.startswith("waiting  asking-")
    assert "It is severe." in result.stdout
    ask = json.loads(call("inbox", "--db", "my runs.db", "--json").stdout)[0]["id"]
    assert f"kapelle approve {ask} --db 'my runs.db'\n" in result.stdout


def test_progress_goes_to_stderr_and_json_has_stdout_to_itself(call: Call) -> None:
    plain = call("run", "named", "-t", "Do it", "--thread", "talkative")
    assert plain.stderr.startswith("run talkative\n")
    quiet = call("run", "named", "-t", "Do it", "--json")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["status"] == "done"


def test_a_run_that_fails_exits_1_and_says_why(call: Call) -> None:
    result = call("run", "agents.py:failing", "-t", "Do it")
    assert result.exit_code == 1
    assert result.stdout.startswith("failed  failing-")
    assert "fail raised TypeError: broken by design" in result.stdout


@pytest.mark.slow
def test_an_agent_that_never_returns_keeps_neither_the_run_nor_the_process(
    elsewhere: Finish,
) -> None:
    result = elsewhere("run", "agents.py:stuck", "-t", "Do it", "--input", "parts=1")
    assert result.returncode == 1
    assert "gave no answer within 0.2 s" in result.stdout


@pytest.mark.parametrize("task", [[], ["--task", ""], ["--task", "  \n"]])
def test_an_empty_task_is_refused_in_one_line(call: Call, task: list[str]) -> None:
    result = call("run", "named", *task)
    assert result.exit_code == 2
    assert is_one_line(result.stderr)
    assert "--task" in result.stderr


@pytest.mark.slow
def test_agents_are_found_again_in_worker_processes(elsewhere: Finish) -> None:
    words = ["agents.py:away", "-t", "Do it", "--input", "parts=1", "--json"]
    found = json.loads(elsewhere("run", *words).stdout)
    assert found["result"]["output"]["process"] > 0


def test_a_thread_that_waits_takes_no_other_task(call: Call, waiting: tuple[str, str]) -> None:
    thread, ask = waiting
    result = call("run", "asking", "-t", "Another", "--thread", thread)
    assert result.exit_code == 2
    assert is_one_line(result.stderr)
    assert ask in result.stderr


def test_an_input_without_a_value_is_refused_in_one_line(call: Call) -> None:
    result = call("run", "named", "-t", "Do it", "--input", "parts")
    assert result.exit_code == 2
    assert is_one_line(result.stderr)
    assert "'parts' is not KEY=VALUE" in result.stderr


@pytest.mark.parametrize("words", [["dance"], ["run"], ["run", "named", "--loudly"], ["approve"]])
def test_a_misused_command_is_one_line_that_says_where_help_is(
    call: Call, words: list[str]
) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert is_one_line(result.stderr)
    assert "--help" in result.stderr


def test_kapelle_alone_lists_the_commands(call: Call) -> None:
    result = call()
    assert result.exit_code == 0
    assert "approve" in result.stdout


def test_what_an_agent_says_cannot_steer_the_terminal(call: Call) -> None:
    words = ["agents.py:steering", "-t", "Do it", "--input", "parts=1"]
    result = call("run", *words)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "the [red]screen[/red]?" in result.stdout
    assert "\x1b" not in call("inbox").stdout
