"""The nouns: frozen values that say what they mean."""

import inspect
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from kapelle.checkpoints.serde import nouns
from kapelle.state.context import Claim
from kapelle.state.noun import Noun
from kapelle.state.skills import AgentCard
from kapelle.state.task import Failure, Plan, Result, Task

OBVIOUS = {
    "agent", "agents", "attempts", "body", "budget", "by", "claims", "decision", "decisions",
    "description", "evidence", "failure", "goal", "key", "kind", "message", "name", "offers",
    "performative", "question", "reason", "receiver", "result", "sender", "skills", "status",
    "task", "tasks", "thread", "tier", "usage", "value", "reserved",
}  # fmt: skip
"""Names that another noun documents, or that are what they say."""

FIELDS = [
    pytest.param(name, field, id=f"{noun.__name__}.{name}")
    for noun in nouns()
    for name, field in noun.model_fields.items()
]


@pytest.mark.parametrize("noun", nouns(), ids=lambda noun: noun.__name__)
def test_every_noun_says_what_it_is(noun: type[Noun]) -> None:
    assert (inspect.getdoc(noun) or "").endswith("."), "a sentence"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_says_what_it_is(name: str, field: FieldInfo) -> None:
    assert field.description or name in OBVIOUS


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_number_has_its_unit(name: str, field: FieldInfo) -> None:
    kinds = {field.annotation, *get_args(field.annotation)}
    if kinds & {int, float}:
        assert field.description, "a number needs its unit"


@pytest.mark.parametrize("noun", nouns(), ids=lambda noun: noun.__name__)
def test_nouns_are_frozen_and_strict_about_names(noun: type[Noun]) -> None:
    assert noun.model_config.get("frozen") is True
    assert noun.model_config.get("extra") == "forbid"


def test_a_noun_cannot_be_changed() -> None:
    task: Any = Task(goal="work")
    with pytest.raises(ValidationError, match="frozen"):
        task.goal = "play"


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="dead_line"):
        Task.model_validate({"goal": "work", "dead_line": 3})


def test_nouns_with_equal_fields_are_equal() -> None:
    assert Task(goal="work") == Task(goal="work", id="task")


def test_a_failure_s_text_goes_through_json() -> None:
    failure = Failure(kind="raised", message='\x00 \U0001f600 "quoted"\n')
    assert Failure.model_validate_json(failure.model_dump_json()) == failure


def test_what_is_no_number_goes_through_json() -> None:
    claim = Claim(key="k", value=float("inf"))
    assert Claim.model_validate_json(claim.model_dump_json()) == claim


def test_a_result_is_read_as_the_model_it_was_declared_to_be() -> None:
    plan = Plan(tasks=(Task(id="a", goal="work"),))
    output = plan.model_dump(mode="json")
    assert Result(task="t", status="done", output=output).read(Plan) == plan


def test_a_card_with_an_output_is_written_with_its_schema() -> None:
    written = AgentCard(name="w", output=Task).model_dump(mode="json")
    assert written["output"]["title"] == "Task"
    assert AgentCard(name="w").model_dump(mode="json")["output"] is None
