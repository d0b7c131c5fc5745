"""Hierarchy: a tree of managers over very many items, merged on the way up.

    START ─ estimate ─┬─ open
                      └─ allow ─┬─ open    with policy.ask_above: what is expected to be dear
                                └─ END
            open ─┬─ manage ─ gather ─┬─ manage           who leads says what each child is to do
                  │                   ├═ leaf ×N          an item each, or a team; failed: once more
                  │                   ├═ branch ×N        a tree of its own each
                  │                   ├═ approve ×N ─ gather   what a person must decide
                  │                   ├═ part ×N ─ gather      an item or a team each by itself,
                  │                   │                        where a person may hold the step
                  │                   ├─ merge ─ gather   what the children made becomes one
                  │                   ├─ reconcile ─┬─ decide ─ reconcile   claims can't all hold
                  │                   │             └─ END
                  │                   └─ END
                  ├═ leaf ×N ─ gather
                  ├═ branch ×N ─ gather
                  ├═ part ×N ─ gather
                  ├─ merge                                all that is needed was kept
                  └─ END                                  there are no items, or too many

Remembers   kapelle.state.tree.Tree
Needs       a worker for the items, or named teams; who merges; perhaps a manager
Stops       at `allow`, before what is dear; at `approve`: a leaf, a manager or a merger that turned
            to a person, or that failed; at `decide`: claims that no rule can reconcile
Ends with   `result`: done; partial, naming the items that are missing; failed; refused
After       M. S. Fox, An Organizational View of Distributed Systems, IEEE Trans. SMC 11, 1981
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Union

from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from kapelle.nodes.agent import Agent, as_agent
from kapelle.nodes.alone import alone, to_next
from kapelle.nodes.branching import Below, Child, Part, branch, part
from kapelle.nodes.branching import leaf as working
from kapelle.nodes.ending import CLOSING, ends, to_end
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.managing import (
    Box,
    Merge,
    gathering,
    is_agent,
    managing,
    merging,
    open_branch,
    open_root,
)
from kapelle.nodes.pattern import Finished, Given, Pattern, must_be_node, must_be_silent, seated
from kapelle.nodes.services import Services
from kapelle.nodes.starting import starts
from kapelle.state.budget import Budget
from kapelle.state.errors import Misbuilt
from kapelle.state.manager import asking
from kapelle.state.policy import Policy
from kapelle.state.tree import (
    BRANCH,
    LEAF,
    MANAGE,
    MERGE,
    Branching,
    Costs,
    Tree,
    leaves_of,
    managers_of,
    width_of,
)

Chart = Mapping[str, Union[Agent, "Chart"]]
"""An organisation chart: teams by name, each an agent or a chart of its own."""

_CONTROL = (
    "open", "manage", LEAF, BRANCH, "approve", "part", "follow", "merge", "gather", *CLOSING,
)  # fmt: skip


def hierarchy(
    worker: Agent | Chart,
    *,
    merge: Merge,
    manager: Agent | None = None,
    branching: Branching | Costs = "auto",
    policy: Policy | None = None,
) -> Pattern:
    """A tree of managers: 1,000 to 100,000 items, or an organisation chart of named teams.

    Args:
        worker: Does one item: `inputs["item"]` of its task, whose id is the item's place, from 0.
            Or a chart: each team gets the whole task, under its own name.
        merge: Makes one output of several, at each manager: a plain function of the list of outputs
            (for a chart: of outputs by name), or an agent, told the results. What it makes must be
            what it takes, for it is merged again above.
        manager: Says what each child is to do: one goal for all, a list of goals, or goals by name;
            told the `children` and, of the items, `count` and a `sample`. None: the goal of the
            whole.
        branching: Children of one manager; chosen by the cost model T = t_work + depth * (latency
            + b * t_split + t_merge), of which you may give the costs.
        policy: The limits; `parallel` leaves of the whole tree work at once.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out.

    Raises:
        Misbuilt: when one of them is no agent, a team's name can't be a node's, or the branching is
            below two.
    """
    why = "all who work in it begin at once, told by their manager alone"
    limits = must_be_silent(policy or Policy(), "hierarchy", why)
    if isinstance(branching, int) and branching < 2:
        raise Misbuilt(f"a manager with {branching} children is no tree; give at least 2")
    manager = manager and seated(manager, limits)
    if is_agent(merge) or not callable(merge):
        merge = seated(merge, limits)

    if isinstance(worker, Mapping):
        teams = _teams(worker, merge, manager, limits)
        start = open_root(list(teams), branching, manager, limits, _graphs(teams))
        graph = _manager(Given, start, teams, None, merge, manager, limits)
        work = Role("work", list(teams.values()), all=True, most=1 + limits.redos, works=True)
        graph.shape = _shape(work, lambda _: 1, merge, manager, limits)
        starts(graph, "open", limits)
        return graph

    leaf = {LEAF: seated(worker, limits)}
    below: list[CompiledStateGraph[Any, Any, Any, Any]] = []  # LangGraph does not look in a list
    opens = open_branch(manager, limits, _graphs(leaf))
    lower = _manager(Below, opens, leaf, below, merge, manager, limits)
    lower.add_edge(START, "open")
    below.append(lower.compile(name="branch"))
    start = open_root((), branching, manager, limits, _graphs(leaf))
    graph = _manager(Given, start, leaf, below, merge, manager, limits)
    work = Role("work", list(leaf.values()), each=True, most=1 + limits.redos, works=True)
    shape = _shape(work, partial(_managers, branching, limits), merge, manager, limits)
    graph.shape = replace(shape, items=lambda task: len(leaves_of(task) or ()))
    starts(graph, "open", limits)
    return graph


def _managers(branching: Branching | Costs, limits: Policy, items: int) -> int:
    return managers_of(items, width_of(branching, items, limits))


def _shape(
    work: Role, managers: Callable[[int], int], merge: Merge, manager: Agent | None, limits: Policy
) -> Shape:
    """For each manager a call before and after its children, where these take an agent."""
    most = 1 + limits.redos
    merger = [Role("merge", [merge], often=managers, most=most)] if is_agent(merge) else []
    chief = [Role("manage", [manager], often=managers, most=most)] if manager else []
    return Shape(limits, (*chief, work, *merger))


def _manager(
    given: type,
    start: Box,
    workers: Mapping[str, Agent],
    below: Sequence[CompiledStateGraph[Any, Any, Any, Any]] | None,
    merge: Merge,
    manager: Agent | None,
    limits: Policy,
) -> Pattern:
    graph = Pattern(Tree, context_schema=Services, input_schema=given, output_schema=Finished)
    graph.keep_changes("results")
    nodes, root = [*workers, "approve", "part", "merge"], given is Given

    graph.add_node("open", start)
    graph.add_node("gather", gathering(manager, limits, _graphs(workers), root=root))
    graph.add_node("approve", gate(limits), input_schema=Asked)
    for name, agent in workers.items():
        graph.add_node(name, working(agent, limits), input_schema=Child)
    graph.add_node("part", part(alone(workers, limits), limits), input_schema=Part)
    if below is not None:
        graph.add_node(BRANCH, branch(lambda: below[0], limits), input_schema=Child)
        nodes.append(BRANCH)
    if manager is not None:
        graph.add_node("manage", managing(manager, limits))
        nodes.append("manage")
    graph.add_node("merge", merging(merge, limits))

    graph.add_conditional_edges("open", to_children, [n for n in (*nodes, END) if n != "approve"])
    if root:
        ends(graph, limits)
        graph.add_conditional_edges("gather", by_result, [*nodes, "reconcile", END])
    else:
        graph.add_conditional_edges("gather", to_children, [*nodes, END])
    for name in nodes:
        graph.add_edge(name, "gather")
    return graph


def by_result(state: Tree) -> str | list[Send]:
    """What the whole claims is reconciled at the root, once."""
    return to_children(state) if state["result"] is None else to_end(state)


def to_children(state: Tree) -> str | list[Send]:
    """A node per child that goes to work, a gate per result that waits for a person."""
    if state["result"] is not None:
        return END
    sent, ask = state["sent"], state["escalation"]
    if ask is not None:
        return [Send("approve", Asked(ask=ask, stopped=None))]
    if sent in ([MANAGE], [MERGE]):
        return sent[0]
    parts = [_part_of(child, _node(child, state), state) for child in sent]
    parts += [_part_of(result.task, "approve", state) for result in asking(state)]
    return [Send("part", one) if state["held"] else to_next(one) for one in parts]


def _part_of(child: str, to: str, state: Tree) -> Part:
    def own(of: Mapping[str, Any]) -> dict[str, Any]:
        return {child: of[child]} if child in of else {}

    return Part(
        child=child,
        node=_node(child, state),
        to=to,
        results=own(state["results"]),
        revisions=own(state["revisions"]),
    )


def _graphs(workers: Mapping[str, Agent]) -> set[str]:
    return {name for name, agent in workers.items() if agent.where == "graph"}


def _node(child: str, state: Tree) -> str:
    if state["levels"] == 0:
        return child
    return BRANCH if "-" in child else LEAF


def _teams(
    chart: Chart, merge: Merge, manager: Agent | None, limits: Policy
) -> Mapping[str, Agent]:
    if not chart:
        raise Misbuilt("there is no team in the chart; give at least one")
    below = limits.model_copy(update={"ask_above": Budget()})  # the whole was looked at
    return {
        must_be_node(name, _CONTROL): as_agent(
            hierarchy(team, merge=merge, manager=manager, policy=below), name=name
        )
        if isinstance(team, Mapping)
        else seated(team, limits)
        for name, team in chart.items()
    }
