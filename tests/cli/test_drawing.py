"""`kapelle graph`: Mermaid text and SVG, drawn here."""

import json
from pathlib import Path
from typing import TypedDict
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as some
from langgraph.graph import START, StateGraph

from kapelle import as_agent, drawing
from kapelle.graphs import manager_worker, pipeline
from kapelle.layering import lay_out
from tests.cli.agents import judge, plan, work
from tests.cli.conftest import Call

SVG = "{http://www.w3.org/2000/svg}"
NODES = {
    *("plan", "replan", "gather", "work", "approve", "review", "part"),
    *("reconcile", "arbitrate", "synthesize", "judge"),
}
BOXES = some.lists(some.sampled_from("abcdefgh"), min_size=2, unique=True)


def test_a_graph_is_drawn_as_mermaid_text_with_its_nodes(call: Call) -> None:
    text = call("graph", "asking").stdout
    assert "graph TD;" in text
    assert all(f"\t{node}({node})" in text for node in NODES)


def test_a_graph_is_drawn_for_programs(call: Call) -> None:
    drawn = json.loads(call("graph", "asking", "--json").stdout)
    assert {node["name"] for node in drawn["nodes"]} == NODES | {"__start__", "__end__"}
    assert {"source": "synthesize", "target": "gather", "conditional": False} in drawn["edges"]


def test_a_graph_is_drawn_as_svg_with_its_nodes_and_edges(call: Call, folder: Path) -> None:
    assert call("graph", "asking", "--svg", "drawn.svg").exit_code == 0
    root = ET.fromstring((folder / "drawn.svg").read_text(encoding="utf-8"))  # noqa: S314
    assert {text.text for text in root.iter(f"{SVG}text")} == NODES | {"START", "END"}
    arrows = [p for p in root.iter(f"{SVG}path") if "arrow" in (p.get("class") or "")]
    assert len(arrows) == len(json.loads(call("graph", "asking", "--json").stdout)["edges"])


def test_svg_can_go_to_stdout(call: Call) -> None:
    assert call("graph", "asking", "--svg", "-").stdout.startswith("<svg ")


def test_svg_that_cannot_be_written_is_one_line(call: Call) -> None:
    result = call("graph", "asking", "--svg", "no/folder/drawn.svg")
    assert result.exit_code == 2
    assert result.stderr.startswith("kapelle: Could not open file")


def test_a_graph_inside_another_is_drawn_in_its_box() -> None:
    inner = as_agent(manager_worker(plan=plan, workers=[work], judge=judge), name="team")
    app = drawing.compiled(pipeline([inner]))
    assert "gather" not in drawing.svg(app)
    root = ET.fromstring(drawing.svg(app, nested=True))  # noqa: S314
    titles = [t.text or "" for t in root.iter(f"{SVG}text") if t.get("class") == "title"]
    # a line has a line for each item of a stream; a team has a graph for each part of a held step
    assert sorted(titles) == ["item", "part", "part", "team", "team"]
    assert {text.text for text in root.iter(f"{SVG}text")} > NODES


class Count(TypedDict):
    """A state."""

    number: int


def test_names_are_never_markup() -> None:
    graph = StateGraph(Count)
    graph.add_node('<b>&"', lambda state: state)
    graph.add_edge(START, '<b>&"')
    root = ET.fromstring(drawing.svg(drawing.compiled(graph)))  # noqa: S314
    assert '<b>&"' in {text.text for text in root.iter(f"{SVG}text")}


@given(boxes=BOXES, data=some.data())
def test_no_box_stands_on_another_whatever_leads_where(
    boxes: list[str], data: some.DataObject
) -> None:
    ends = some.sampled_from(boxes)
    arrows = data.draw(some.lists(some.tuples(ends, ends), max_size=20))
    layout = lay_out({box: (len(box) * 40.0, 30.0) for box in boxes}, arrows)
    placed = [(layout.x[box], layout.y[box]) for box in boxes]
    for number, (x, y) in enumerate(placed):
        for other, (x2, y2) in enumerate(placed):
            assert number == other or abs(x - x2) >= 40 or abs(y - y2) >= 30
    assert all(path[0] == a and path[-1] == b for (a, b), path in layout.paths.items())
    assert set(layout.paths) == {(a, b) for a, b in arrows if a != b}


@pytest.mark.parametrize("size", [1, 60])
def test_a_graph_of_any_size_is_drawn(size: int) -> None:
    names = [f"n{number}" for number in range(size)]
    layout = lay_out(dict.fromkeys(names, (40.0, 30.0)), [])
    assert layout.width > 0
