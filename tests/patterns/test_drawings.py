"""The drawing in a pattern's docstring is the graph, edge for edge."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from langgraph._internal._runnable import RunnableCallable
from langgraph.pregel._utils import find_subgraph_pregel

import kapelle.graphs
from kapelle.graphs import hierarchy, manager_worker, marketplace, pipeline, swarm
from kapelle.nodes.agent import as_agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.ballot import Plurality
from kapelle.state.budget import Budget
from kapelle.state.policy import Policy
from tests.patterns.simulated import Crew

Edges = set[tuple[str, str]]

DEAR = Policy(ask_above=Budget(calls=0))
"""A person is asked before any start."""

FACTS = ("Remembers", "Needs", "Stops", "Ends with", "After")

MODULES = [
    importlib.import_module(f"kapelle.graphs.{found.name}")
    for found in pkgutil.iter_modules(kapelle.graphs.__path__)
]


def a_team() -> Pattern:
    """All that a team may have."""
    crew = Crew()
    workers = [crew.worker("worker 1"), crew.worker("worker 2")]
    return manager_worker(
        plan=crew.planner(),
        workers=workers,
        synthesize=crew.worker("s"),
        judge=crew.judge(),
        policy=DEAR,
    )


def a_line() -> Pattern:
    """A line of two stages, with a judge."""
    crew = Crew()
    return pipeline(
        [crew.worker("stage 1"), crew.worker("stage 2")], gates=crew.judge(), policy=DEAR
    )


def a_tree() -> Pattern:
    """A tree with all that may be in it."""
    crew = Crew()
    return hierarchy(
        crew.worker("w"), merge=crew.worker("m"), manager=crew.worker("boss"), policy=DEAR
    )


def a_swarm() -> Pattern:
    """Two peers and a judge."""
    crew = Crew()
    peers = [crew.worker("peer 1"), crew.worker("peer 2")]
    return swarm(peers, rule=Plurality(), judge=crew.judge(), policy=DEAR)


def a_market() -> Pattern:
    """Two contractors, a judge, and room for another from the registry."""
    crew = Crew()
    contractors = [crew.worker("contractor 1"), crew.worker("contractor 2")]
    return marketplace(contractors, judge=crew.judge(), admits=["a newcomer"], policy=DEAR)


EXAMPLES: dict[str, Callable[[], Pattern]] = {
    "manager_worker": a_team,
    "marketplace": a_market,
    "pipeline": a_line,
    "hierarchy": a_tree,
    "swarm": a_swarm,
}
"""A graph of each pattern; its agents are called by their role and a number."""


def drawn(docstring: str) -> Edges:
    """The edges of a drawing.

    `─` is an edge and `═` a fan-out. `┬` begins branches, which `├` and `└` in the same column go
    on with. `×N` marks a node of which there may be many. A line may begin with a node. What
    follows a chain is prose.
    """
    edges: Edges = set()
    forks: dict[int, str] = {}
    for line in docstring.splitlines():
        begin = re.match(r"[ │]*(?:(\w+)(?= [─═])|[├└])", line)
        if begin is None:
            continue
        source = begin[1] or forks[begin.end() - 1]
        at = begin.end()
        while step := re.compile(r" ?[─═]+(?:(┬)[─═]+)? (\w+)(?: ×N)?").match(line, at):
            if step[1]:
                forks[step.start(1)] = source
            edges.add((source, step[2]))
            source, at = step[2], step.end()
    return edges


def real(graph: Pattern) -> Edges:
    """The edges of a graph, agents under the name of their role."""
    names = {"__start__": "START", "__end__": "END"}
    return {
        (
            re.sub(r" \d+$", "", names.get(edge.source, edge.source)),
            re.sub(r" \d+$", "", names.get(edge.target, edge.target)),
        )
        for edge in graph.compile().get_graph().edges
    }


def name_of(module: ModuleType) -> str:
    """The last part."""
    return module.__name__.rpartition(".")[2]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_drawing_shows_every_edge_and_no_other(module: ModuleType) -> None:
    edges = drawn(inspect.getdoc(module) or "")
    assert edges, "there is a drawing"
    assert edges == real(EXAMPLES[name_of(module)]())


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_pattern_says_its_five_facts_in_order(module: ModuleType) -> None:
    said = re.findall(
        r"^(Remembers|Needs|Stops|Ends with|After) ", module.__doc__ or "", re.MULTILINE
    )
    assert tuple(said) == FACTS


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_what_a_pattern_says_it_remembers_is_its_state(module: ModuleType) -> None:
    said = re.search(r"^Remembers +(\S+)\.(\w+)$", module.__doc__ or "", re.MULTILINE)
    assert said is not None
    remembered = getattr(importlib.import_module(said[1]), said[2])
    assert EXAMPLES[name_of(module)]().state_schema is remembered


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_pattern_is_one_public_function_of_its_module_s_name(module: ModuleType) -> None:
    own = [
        name
        for name, thing in vars(module).items()
        if inspect.isfunction(thing)
        and thing.__module__ == module.__name__
        and not name.startswith(("_", "by_", "to_"))
    ]
    assert own == [name_of(module)]


def test_without_a_judge_the_draft_goes_straight_to_the_manager() -> None:
    crew = Crew()
    graph = manager_worker(plan=crew.planner(), workers=[crew.worker("worker 1")], policy=DEAR)
    skipped = {
        ("synthesize", "judge"), ("judge", "gather"), ("gather", "review"), ("review", "gather"),
        ("gather", "judge"),
        ("reconcile", "arbitrate"), ("arbitrate", "reconcile"),
    }  # fmt: skip
    assert real(graph) == (real(a_team()) - skipped) | {("synthesize", "gather")}


@pytest.mark.parametrize("build", EXAMPLES.values(), ids=list(EXAMPLES))
def test_where_no_start_is_too_dear_nothing_is_estimated(
    build: Callable[[], Pattern], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = real(build())
    monkeypatch.setattr(inspect.getmodule(build), "DEAR", Policy())
    onward = {target for source, target in full if source == "estimate"} - {"allow"}
    without = {
        (source, target)
        for source, end in full
        if source not in ("estimate", "allow")
        for target in (onward if end == "estimate" else {end})
    }
    assert real(build()) == without


@pytest.mark.parametrize("build", EXAMPLES.values(), ids=list(EXAMPLES))
def test_a_node_that_langgraph_is_not_to_take_apart_has_no_graph_in_it(
    build: Callable[[], Pattern],
) -> None:
    inner = as_agent(build(), name="inner")
    line = pipeline([inner]).compile()
    assert "inner" in dict(line.get_subgraphs())
    nodes: list[Any] = [*inner.graph.nodes.values(), *line.nodes.values()]
    closed = [
        work.func
        for node in nodes
        for work in (getattr(node.bound, "func", None), getattr(node.bound, "afunc", None))
        if isinstance(work, partial) and inspect.isfunction(work.func)
    ]
    assert len(closed) > len(nodes) / 2
    opened = [RunnableCallable(work) for work in closed]
    assert [work for work in opened if find_subgraph_pregel(work)] == []


def test_a_drawing_is_read_as_one_reads_it() -> None:
    assert drawn(
        """
        START ─ announce ═ bid ×N ═ award ─┬──────────── perform ─ END
                                           ├─ approve ─┬─ perform
                                           │           └─ escalate ─ END   denied
                                           └─ escalate ─ END               nobody bid
        """
    ) == {
        ("START", "announce"),
        ("announce", "bid"),
        ("bid", "award"),
        ("award", "perform"),
        ("perform", "END"),
        ("award", "approve"),
        ("approve", "perform"),
        ("approve", "escalate"),
        ("award", "escalate"),
        ("escalate", "END"),
    }
