"""Runs are started, asks listed and answered, over HTTP."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from kapelle import Database, Escalation, Runs, agent
from kapelle.graphs import pipeline
from tests.service.served import Served

LARGE = "Refund order A-2: 400"
NOBODY = "0" * 12
"""No ask's id."""


def asked(refunds: Served) -> dict[str, Any]:
    """The ask of a run of its own."""
    ask: dict[str, Any] = refunds.start(LARGE)["asks"][0]
    return ask


def test_a_run_that_needs_nobody_is_done(refunds: Served) -> None:
    run = refunds.start("Refund order A-1: 40")
    assert run["status"] == "done"
    assert run["result"]["output"] == {"paid": {"order": "Refund order A-1", "eur": 40}}


def test_a_run_that_needs_a_person_waits_with_its_ask(refunds: Served) -> None:
    run = refunds.start(LARGE)
    assert (run["status"], run["result"]) == ("waiting", None)
    assert [ask["evidence"] for ask in run["asks"]] == [{"order": "Refund order A-2", "eur": 400}]


def test_asks_of_all_runs_are_listed_oldest_first(refunds: Served) -> None:
    first, second = asked(refunds), asked(refunds)
    listed = [ask["id"] for ask in refunds.client.get("/asks").json()]
    assert listed[-2:] == [first["id"], second["id"]]


def test_what_is_listed_is_json_even_where_numbers_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPELLE_DB", str(tmp_path / "kapelle.db"))
    from examples.service import service  # noqa: PLC0415  it opens a database

    doubt = agent(name="doubt")(lambda _: Escalation(question="?", evidence={"eur": math.nan}))
    with Database(str(tmp_path / "doubts.db")) as db:
        runs = Runs(db, {"doubt": pipeline([doubt])})
        with TestClient(service(runs, "doubt")) as client:
            thread = client.post("/runs", json={"task": "Doubt"}).json()["thread"]
            pages = [client.get("/asks"), client.get(f"/runs/{thread}/events")]
    (ask,), events = (json.loads(page.text, parse_constant=pytest.fail) for page in pages)
    assert (ask["evidence"], bool(events)) == ({"eur": "NaN"}, True)


def test_an_approved_run_goes_on_to_its_end(refunds: Served) -> None:
    ask = asked(refunds)
    assert refunds.answer(ask["id"]).status_code == 200
    run = refunds.ended(ask["thread"])
    assert run["status"] == "done"
    assert run["result"]["output"]["paid"]["eur"] == 400
    assert ask["id"] not in [ask["id"] for ask in refunds.client.get("/asks").json()]


def test_an_edited_answer_is_what_is_paid(refunds: Served) -> None:
    edit = {"decision": "edit", "by": "ann", "value": {"order": "A-2", "eur": 350}}
    ask = asked(refunds)
    refunds.client.post(f"/asks/{ask['id']}", json=edit)
    run = refunds.ended(ask["thread"])
    assert run["result"]["output"] == {"paid": {"order": "A-2", "eur": 350}}


def test_a_rejected_run_ends_refused_and_pays_nothing(refunds: Served) -> None:
    ask = asked(refunds)
    refunds.answer(ask["id"], "reject")
    run = refunds.ended(ask["thread"])
    assert run["status"] == "refused"
    assert run["result"]["failure"]["kind"] == "refused"
    assert "ann rejected it" in run["result"]["failure"]["message"]


def test_a_second_answer_is_refused_with_who_and_when(refunds: Served) -> None:
    ask = asked(refunds)
    refunds.answer(ask["id"], by="ann")
    second = refunds.answer(ask["id"], "reject", by="bob")
    assert second.status_code == 409
    said = second.json()
    assert (said["ask"], said["decision"], said["by"]) == (ask["id"], "approve", "ann")
    assert ask["asked_at"] <= said["at"] <= ask["asked_at"] + 60
    assert refunds.ended(ask["thread"])["status"] == "done"


def test_of_many_answers_at_once_one_wins_and_the_others_learn_whose_it_was(
    refunds: Served,
) -> None:
    people = [f"person-{n}" for n in range(8)]
    ask, together = asked(refunds), Barrier(len(people))

    def answered(by: str) -> httpx.Response:
        together.wait()
        return refunds.answer(ask["id"], "approve", by)

    with ThreadPoolExecutor(len(people)) as pool:
        answers = dict(zip(people, pool.map(answered, people), strict=True))
    won = [by for by, answer in answers.items() if answer.status_code == 200]
    lost = [answer for answer in answers.values() if answer.status_code == 409]
    assert (len(won), len(lost)) == (1, 7)
    assert {answer.json()["by"] for answer in lost} == set(won)
    refunds.ended(ask["thread"])
    paid = refunds.client.get(f"/runs/{ask['thread']}/events").json()
    assert len([e for e in paid if (e["kind"], e["agent"]) == ("attempt", "pay")]) == 1


def test_two_answers_that_disagree_can_not_both_win(refunds: Served) -> None:
    ask, together = asked(refunds), Barrier(2)

    def answered(decision: str) -> httpx.Response:
        together.wait()
        return refunds.answer(ask["id"], decision, by=decision)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(answered, ["approve", "reject"]))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [lost] = [answer.json() for answer in answers if answer.status_code == 409]
    status = refunds.ended(ask["thread"])["status"]
    assert status == {"approve": "done", "reject": "refused"}[lost["by"]]


@pytest.mark.parametrize("path", ["/runs/nowhere", "/runs/nowhere/events"])
def test_an_unknown_run_is_not_found(refunds: Served, path: str) -> None:
    answer = refunds.client.get(path)
    assert (answer.status_code, answer.json()["thread"]) == (404, "nowhere")


@pytest.mark.parametrize("ask", [NOBODY, "no-such-ask"])
def test_an_unknown_ask_is_not_found(refunds: Served, ask: str) -> None:
    answer = refunds.answer(ask)
    assert (answer.status_code, answer.json()["ask"]) == (404, ask)


def test_an_answer_that_is_not_offered_is_refused_and_the_ask_stays_open(refunds: Served) -> None:
    run = refunds.start("Refund order A-3: 9999999")
    ask = run["asks"][0]
    assert ask["offers"] == ["approve", "reject"]
    answer = refunds.answer(ask["id"], "edit")
    assert answer.status_code == 422
    assert answer.json()["offered"] == "approve, reject"
    assert refunds.run(run["thread"]) == run


@pytest.mark.parametrize(
    "answer",
    [{}, {"decision": "maybe", "by": "ann"}, {"decision": "approve", "by": "ann", "extra": 1}],
)
def test_what_is_no_answer_is_refused(refunds: Served, answer: dict[str, Any]) -> None:
    ask = asked(refunds)
    assert refunds.client.post(f"/asks/{ask['id']}", json=answer).status_code == 422
    assert ask in refunds.client.get("/asks").json()


@pytest.mark.parametrize("body", [{}, {"task": ""}, {"task": "  "}, {"task": 7}])
def test_an_empty_task_is_refused_and_no_run_begins(refunds: Served, body: dict[str, Any]) -> None:
    assert refunds.client.post("/runs", json=body).status_code == 422


def test_a_task_the_team_can_not_do_is_a_failed_run_not_an_error(refunds: Served) -> None:
    run = refunds.start("Refund nothing")
    assert run["status"] == "failed"
    assert "check raised" in run["result"]["failure"]["message"]


def test_the_events_of_a_run_can_be_followed(refunds: Served) -> None:
    run = refunds.start(LARGE)
    path = f"/runs/{run['thread']}/events"
    before = refunds.client.get(path).json()
    refunds.answer(run["asks"][0]["id"], by="ann")
    refunds.ended(run["thread"])
    after = refunds.client.get(path, params={"after": len(before)}).json()
    assert ("attempt", "check") in [(e["kind"], e["agent"]) for e in before]
    assert ("approval", "ann") in [(e["kind"], e["agent"]) for e in after]
    assert after[-1]["kind"] == "run"
    assert refunds.client.get(path).json() == before + after
