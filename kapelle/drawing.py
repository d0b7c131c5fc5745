"""A graph as SVG, drawn here: nothing is sent anywhere.

Where a conditional edge may lead, it is dashed. A graph inside another is drawn inside its box.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue

from kapelle.layering import Arrow, Knot, Layout, lay_out
from kapelle.runs import Graph
from kapelle.showing import clean

App = CompiledStateGraph[Any, Any, Any, Any]

MARGIN, PADDING, HIGH, PORT = 24.0, 16.0, 36.0, 10.0
"""Around all, inside a box, a box, between two arrows at a box."""
TITLE, BASE = 22.0, 5.0
"""The line for the title of a box, and how far below its middle a line of text stands."""
NAMES = {START: "START", END: "END"}

STYLE = """
  svg { font: 14px system-ui, sans-serif; background: #fff }
  .box { fill: #f2f0ff; stroke: #7c6fd6; stroke-width: 1.2 }
  .end { fill: #e4e4ec; stroke: #8a8a99 }
  .arrow { fill: none; stroke: #5c5c6b; stroke-width: 1.2 }
  .may { stroke-dasharray: 5 4 }
  text { fill: #1d1d28; text-anchor: middle }
  .title { font-size: 12px; fill: #5b4fc0 }
  .label { font-size: 11px; fill: #5c5c6b }
  .head { fill: #5c5c6b }
"""


@dataclass(frozen=True)
class Picture:
    """A piece of drawing and its size."""

    width: float
    height: float
    body: str


def compiled(graph: Graph) -> App:
    """A graph in its compiled form."""
    return graph if isinstance(graph, CompiledStateGraph) else graph.compile()


def document(app: App, *, nested: bool = False) -> dict[str, JsonValue]:
    """Nodes and edges for programs, and the same as Mermaid text."""
    drawn = app.get_graph(xray=nested)
    return {
        "nodes": [{"id": i, "name": node.name} for i, node in drawn.nodes.items()],
        "edges": [
            {"source": e.source, "target": e.target, "conditional": e.conditional}
            for e in drawn.edges
        ],
        "mermaid": drawn.draw_mermaid(),
    }


def svg(app: App, *, nested: bool = False) -> str:
    """The drawing as a page of SVG."""
    picture = _picture(app, nested=nested)
    width, height = picture.width + 2 * MARGIN, picture.height + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}" role="img">\n'
        f"<title>{_safe(app.get_name())}</title>\n<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>\n'
        f'<g transform="translate({MARGIN:g} {MARGIN:g})">\n{picture.body}</g>\n</svg>\n'
    )


def _picture(app: App, *, nested: bool) -> Picture:
    drawn = app.get_graph()
    inner = {name: _picture(graph, nested=True) for name, graph in _inside(app)} if nested else {}
    arrows = {(e.source, e.target): e for e in drawn.edges}
    names = sorted(drawn.nodes, key=lambda name: (name == END) - (name == START))
    layout = lay_out({name: _size(name, inner.get(name), arrows) for name in names}, list(arrows))
    ports = _ports(layout)
    lines = [
        *(_arrow(layout, ports, arrow, conditional=e.conditional) for arrow, e in arrows.items()),
        *(_box(layout, name, inner.get(name)) for name in names),
        *(_label(layout, arrow, e.data) for arrow, e in arrows.items()),
    ]
    return Picture(layout.width, layout.height, "\n".join(filter(None, lines)) + "\n")


def _inside(app: App) -> Iterator[tuple[str, App]]:
    for name, graph in app.get_subgraphs():
        if isinstance(graph, CompiledStateGraph):
            yield name, graph


def _size(name: str, inner: Picture | None, arrows: Mapping[Arrow, object]) -> tuple[float, float]:
    width = max(_wide(name) + 2 * PADDING, PORT * sum(name in arrow for arrow in arrows))
    if inner is None:
        return width, HIGH
    return max(width, inner.width + 2 * PADDING), inner.height + 2 * PADDING + TITLE


def _wide(text: str) -> float:
    return sum(14.0 if unicodedata.east_asian_width(c) in "FW" else 7.6 for c in text)


def _ports(layout: Layout) -> dict[tuple[Arrow, str], float]:
    """Where along its edge a box lets each arrow in or out, so that none lies on another."""
    sides: dict[tuple[Knot, bool], list[tuple[float, bool, Arrow]]] = {}  # x, downwards, arrow
    for arrow, path in layout.paths.items():
        for box, beside, begins in ((path[0], path[1], True), (path[-1], path[-2], False)):
            below = layout.y[beside] > layout.y[box]
            sides.setdefault((box, below), []).append((layout.x[beside], begins == below, arrow))
    ports: dict[tuple[Arrow, str], float] = {}
    for (box, _), ends in sides.items():
        step = min(PORT * 1.6, layout.sizes[box][0] / (len(ends) + 1))
        for number, (_, _, arrow) in enumerate(sorted(ends)):
            at = layout.x[box] + (number - (len(ends) - 1) / 2) * step
            ports[arrow, "out" if arrow[0] == box else "in"] = at
    return ports


def _arrow(
    layout: Layout, ports: Mapping[tuple[Arrow, str], float], arrow: Arrow, *, conditional: bool
) -> str:
    if arrow not in layout.paths:
        return _loop(layout, arrow[0])
    path = layout.paths[arrow]
    first, last = (ports[arrow, "out"], path[0]), (ports[arrow, "in"], path[-1])
    points = [
        (first[0], _rim(layout, first[1], path[1])),
        *((layout.x[knot], layout.y[knot]) for knot in path[1:-1]),
        (last[0], _rim(layout, last[1], path[-2])),
    ]
    kind = "arrow may" if conditional else "arrow"
    return f'<path class="{kind}" marker-end="url(#head)" d="{_curve(points)}"/>'


def _rim(layout: Layout, box: Knot, towards: Knot) -> float:
    half = layout.sizes[box][1] / 2
    return layout.y[box] + (half if layout.y[towards] > layout.y[box] else -half)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        half = (y1 + y2) / 2
        parts.append(f"C{x1:.1f} {half:.1f} {x2:.1f} {half:.1f} {x2:.1f} {y2:.1f}")
    return " ".join(parts)


def _loop(layout: Layout, box: str) -> str:
    right, y = layout.x[box] + layout.sizes[box][0] / 2, layout.y[box]
    return (
        f'<path class="arrow" marker-end="url(#head)"'
        f' d="M{right:.1f} {y - 8:.1f} c22 -6 22 22 0 16"/>'
    )


def _box(layout: Layout, name: str, inner: Picture | None) -> str:
    (width, height), x, y = layout.sizes[name], layout.x[name], layout.y[name]
    ends = name in (START, END)
    rect = (
        f'<rect class="box{" end" if ends else ""}"'
        f' x="{x - width / 2:.1f}" y="{y - height / 2:.1f}"'
        f' width="{width:.1f}" height="{height:.1f}" rx="{height / 2 if ends else 8:g}"/>'
    )
    if inner is None:
        return f'{rect}<text x="{x:.1f}" y="{y + BASE:.1f}">{_safe(NAMES.get(name, name))}</text>'
    top = y - height / 2
    return (
        f'{rect}<text class="title" x="{x:.1f}" y="{top + PADDING:.1f}">{_safe(name)}</text>\n'
        f'<g transform="translate({x - inner.width / 2:.1f} {top + PADDING + TITLE:.1f})">\n'
        f"{inner.body}</g>"
    )


def _label(layout: Layout, arrow: Arrow, data: object) -> str:
    if not data or str(data) == arrow[1] or arrow not in layout.paths:
        return ""
    path = layout.paths[arrow]
    a, b = path[len(path) // 2 - 1], path[len(path) // 2]
    x, y = (layout.x[a] + layout.x[b]) / 2, (layout.y[a] + layout.y[b]) / 2
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}">{_safe(str(data))}</text>'


def _safe(text: str) -> str:
    return escape(clean(text))
