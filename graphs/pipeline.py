"""Pipeline: stages one after the other, with a gate behind each; many items flow at once.

    START ─ estimate ─┬─ open
                      └─ allow ─┬─ open    with policy.ask_above: what is expected to be dear
                                └─ END
            open ─┬─ stage ×N ─ gate ─┬─ stage ×N         the next one, or the same with feedback
                  │                   ├─ stage ×N         an earlier one, if a message asks for it
                  │                   ├─ gate             the next judge
                  │                   ├─ approve ─ gate   a person must decide
                  │                   ├─ reconcile ─┬─ decide ─ reconcile   claims can't all hold
                  │                   │             └─ END
                  │                   └─ END              through, or the line is stopped
                  ├═ item ×N ─ collect ─┬─ reconcile      each on a line of its own, like this one
                  │                     ├─ approve ─ collect   a person adds to the budget, or not
                  │                     ├═ item ×N        those go on that it had stopped
                  │                     └─ END
                  └─ collect                              there are no items

Remembers   kapelle.state.line.Line
Needs       stages, each an agent; gates: schemas, plain functions, judges
Stops       at `allow`, before what is dear; at `approve`: a stage that turned to a person, a gate
            that wants one to decide; at `decide`: claims that no rule can reconcile
Ends with   `result`: the last stage's, or the list of them; where a line was stopped, what was
            finished until then, and in `parts` why
After       the stop-the-line rule: T. Ohno, Toyota Production System, 1988 (jidoka)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langgraph.graph import END, START
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.checking import Check, must_be_check
from kapelle.nodes.ending import CLOSING, ends, to_end
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.gating import Asked
from kapelle.nodes.gating import gate as person
from kapelle.nodes.passing import stage_gate
from kapelle.nodes.pattern import STEPS, Finished, Given, Pattern, by_name
from kapelle.nodes.services import Services
from kapelle.nodes.staging import opening, stage
from kapelle.nodes.starting import starts
from kapelle.nodes.streaming import Flowed, Piece, Place, collecting, item
from kapelle.state.errors import Misbuilt
from kapelle.state.line import Line, built_on, halted_ones, items_of, stage_names
from kapelle.state.policy import Policy

_CONTROL = ("open", "gate", "approve", "item", "collect", *CLOSING)

Gate = Check | Sequence[Check]
"""One check or several, in order; the first that does not accept decides."""


def pipeline(
    stages: Sequence[Agent],
    *,
    gates: Gate | Mapping[str, Gate] | None = None,
    policy: Policy | None = None,
) -> Pattern:
    """A line of stages: each works on what the earlier ones made.

    With a list in the task's `inputs["items"]`, each item goes through all stages for itself, as
    `inputs["item"]`; none waits for another. The output is then the list of what came of them, None
    for an item that was stopped; `missing` and `parts` name items by their place, from 0.

    Args:
        stages: In order; nodes of their agents' names. Each gets the task, and in its brief the
            results of `policy.look_back` earlier stages, by stage name. An agent may have several
            stages: they are called by its name and a number from 1, and share its node.
        gates: For all stages, or by the name of a stage or agent: a pydantic model that the output
            must fit, a plain function of the output (giving True, False, what is wrong with it, or
            a `Verdict`), a judge (an agent that gives a `Verdict`), or several of them. Without one
            a stage passes if its output is valid. Work sent back more than `policy.rounds` times
            stops the line, or goes to a person if `policy.on_failure` is `ask`.
        policy: The limits; `parallel` items flow at once. `channels` let stages write to each
            other: a later one reads it, an earlier one works again if it is a request.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out.

    Raises:
        Misbuilt: when a stage or gate is none, a name can't be a node's, or a gate has no stage.
    """
    limits = policy or Policy()
    agents = by_name(dict.fromkeys(stages), reserved=_CONTROL, policy=limits)
    nodes = [agent.card.name for agent in stages]
    names = dict(zip(stage_names(nodes), nodes, strict=True))
    checks = _checks(gates, names, limits)
    graph = _line(Given, agents, names, checks, limits)
    graph.shape = _shape(stages, names, checks, limits)
    piece = _line(Piece, agents, names, checks, limits)

    starts(graph, "open", limits)
    piece.add_edge(START, "open")
    ends(graph, limits, rests=lambda state, tasks: built_on(state["stages"], tasks))
    graph.add_conditional_edges("gate", by_result, [*agents, "gate", "approve", "reconcile", END])
    piece.add_conditional_edges("gate", by_move, [*agents, "gate", "approve", END])
    piece.add_conditional_edges("open", by_move, [*agents, "gate"])
    piece.add_edge("approve", "gate")
    graph.add_conditional_edges("open", by_items, [nodes[0], "item", "collect"])
    graph.add_node("item", item(piece.compile(name="item"), limits), input_schema=Place)
    graph.add_node("collect", collecting(limits))
    graph.add_edge("item", "collect")
    graph.add_conditional_edges("approve", by_stream, ["gate", "collect"])
    graph.add_conditional_edges("collect", by_lines, ["item", "approve", "reconcile", END])
    return graph


def _shape(
    stages: Sequence[Agent],
    names: Mapping[str, str],
    checks: Mapping[str, Sequence[Check]],
    limits: Policy,
) -> Shape:
    often = 1 + limits.rounds
    roles: list[Role] = []
    for agent, name in zip(stages, names, strict=True):
        roles.append(Role(name, [agent], each=True, most=often, works=True))
        judges: list[Any] = [each for each in checks.get(name, ()) if hasattr(each, "card")]
        if judges:
            roles.append(Role(f"gate of {name}", judges, each=True, most=often, all=True))
    return Shape(limits, tuple(roles))


def _line(
    given: type,
    agents: Mapping[str, Agent],
    stages: Mapping[str, str],
    checks: Mapping[str, Sequence[Check]],
    limits: Policy,
) -> Pattern:
    left = Flowed if given is Piece else Finished
    graph = Pattern(Line, context_schema=Services, input_schema=given, output_schema=left)
    graph.keep_changes("results", "lines", "halted")
    often = 1 + limits.rounds * len(stages) if limits.channels else 1  # called back by messages
    graph.steps = STEPS + 10 * (1 + limits.rounds) * len(stages) * often

    graph.add_node("open", opening(stages, limits))
    for name, agent in agents.items():
        graph.add_node(name, stage(agent, stages, limits))
    graph.add_node("gate", stage_gate(stages, checks, limits, agents))
    graph.add_node("approve", person(limits), input_schema=Asked)

    for name in agents:
        graph.add_edge(name, "gate")
    return graph


def by_items(state: Line) -> str | list[Send]:
    """The first stage; or a line for each item."""
    items = items_of(state["task"])
    if items is None or state["result"] is not None:
        return state["move"]
    return [Send("item", Place(place=i)) for i in range(len(items))] or "collect"


def by_lines(state: Line) -> str | list[Send]:
    """The end; a person who may add to the budget; the items it had stopped, once they did."""
    if state["move"] == "item":
        return [Send("item", Place(place=int(i))) for i in halted_ones(state)]
    return by_result(state)


def by_stream(state: Line) -> Literal["gate", "collect"]:
    """To where it was asked from: what is asked about a whole stream, at its end."""
    return "gate" if items_of(state["task"]) is None else "collect"


def by_result(state: Line) -> str | list[Send]:
    """What the whole claims is reconciled at its end; what an item's line does, with all others."""
    return to_end(state) if state["move"] == "end" else by_move(state)


def by_move(state: Line) -> str | list[Send]:
    """Where the gate's decision leads."""
    if state["move"] == "end":
        return END
    ask = state["escalation"]
    if state["move"] == "approve" and ask is not None:
        return [Send("approve", Asked(ask=ask, stopped=None))]
    return state["move"]


def _checks(
    gates: Gate | Mapping[str, Gate] | None, stages: Mapping[str, str], limits: Policy
) -> Mapping[str, Sequence[Check]]:
    """The checks behind each stage."""
    if gates is None:
        return {}
    if not isinstance(gates, Mapping):
        return dict.fromkeys(stages, _each(gates, limits))
    if unknown := set(gates) - set(stages) - set(stages.values()):
        raise Misbuilt(f"gates for {sorted(unknown)}, but the stages are {list(stages)}")
    found = {name: gates.get(name, gates.get(agent)) for name, agent in stages.items()}
    return {name: _each(gate, limits) for name, gate in found.items() if gate is not None}


def _each(gate: Gate, limits: Policy) -> Sequence[Check]:
    checks: Sequence[Check] = gate if isinstance(gate, Sequence) else (gate,)
    return [must_be_check(check, limits) for check in checks]
