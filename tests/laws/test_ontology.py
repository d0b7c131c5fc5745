"""An ontology is a tree of is-a, however it is written down; a card reads and writes as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kapelle.state.errors import Misbuilt
from kapelle.state.skills import PLAIN, AgentCard, Ontology, fits
from kapelle.state.task import Task

WANTED = {"math": None, "algebra": "math", "linear": "algebra", "geometry": "math", "writing": None}


@pytest.mark.parametrize(
    "text",
    [
        "math: {algebra: {linear: }, geometry: }\nwriting:",
        "- math: [algebra: [linear], geometry]\n- writing",
        "math:\nalgebra: math\nlinear: algebra\ngeometry: math\nwriting:",
        json.dumps({"math": {"algebra": {"linear": None}, "geometry": None}, "writing": None}),
        json.dumps(
            [
                {"id": 1, "name": "math"},
                {"id": 101, "name": "algebra", "parent": 1},
                {"id": 10101, "name": "linear", "parent": 101},
                {"id": 102, "name": "geometry", "parent": 1},
                {"id": 2, "name": "writing"},
            ]
        ),
        json.dumps(
            {
                "skills": [
                    {"uid": 1, "name": "linear", "caption": "Linear", "extends": "algebra"},
                    {"uid": 1, "name": "algebra", "extends": "math"},
                    {"uid": 2, "name": "geometry", "extends": "math"},
                    {"uid": 1, "name": "math"},
                    {"uid": 2, "name": "writing"},
                ]
            }
        ),
    ],
)
def test_however_it_is_written_it_is_the_same_tree(text: str) -> None:
    ontology = Ontology.parse(text)
    assert ontology.parents == WANTED
    assert ontology.lineage("linear") == ("linear", "algebra", "math")
    assert ontology.is_a("linear", "math")
    assert not ontology.is_a("math", "linear")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b\nb: a", "kinds of each other: a -> b -> a"),
        ("a: [x]\nb: [x]", "'x' is a kind of 'a' and of 'b'"),
        ("3", "3 is no skill"),
        ("{", "no ontology"),
        ("!!python/object/apply:os.getcwd []", "no ontology"),
    ],
)
def test_what_is_no_ontology_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(Misbuilt, match=said):
        Ontology.parse(text)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdef"), max_size=6)
)
def test_every_lineage_ends(parents: dict[str, str | None]) -> None:
    try:
        ontology = Ontology(parents=parents)
    except ValueError:
        return
    for skill in parents:
        line = ontology.lineage(skill)
        assert len(set(line)) == len(line)
        assert all(ontology.is_a(skill, wider) for wider in line)


def test_names_nobody_knows_are_answered_with_the_nearest() -> None:
    ontology = Ontology(parents=WANTED)
    assert ontology.unknown(["algebra", "algebrra"]) == [
        "nobody knows the skill 'algebrra'; the nearest is 'algebra'"
    ]
    assert "there is none like it" in ontology.unknown(["juggling"])[0]
    assert PLAIN.unknown(["research"], also=["research.web"]) == []


def test_who_has_the_narrower_skill_fits() -> None:
    ontology = Ontology(parents=WANTED)
    task = Task(goal="x", skills=("math",))
    assert fits(AgentCard(name="a", skills=("linear",)), task, ontology)
    assert not fits(AgentCard(name="a", skills=("linear",)), task)


class Report(BaseModel):
    """What an agent gives."""

    title: str


def test_a_card_reads_and_writes_as_json() -> None:
    card = AgentCard(name="a", skills=("x",), price=3, seconds=1.5, confidence=0.5, output=Report)
    text = card.model_dump_json()
    read = AgentCard.model_validate_json(text)
    assert read.model_dump_json() == text
    assert AgentCard.model_validate_json(read.model_dump_json()) == read
    assert json.loads(text)["output"]["required"] == ["title"]
    plain = AgentCard(name="b")
    assert AgentCard.model_validate_json(plain.model_dump_json()) == plain
