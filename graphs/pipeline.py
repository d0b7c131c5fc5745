"""Pipeline: stages one after the other, with a gate behind each.

    START ─ open ─ stage ×N ─ gate ─┬─ stage ×N         the next one, or the same with feedback
                                    ├─ approve ─ gate   a person must decide
                                    └─ END              through, or the line is stopped

Remembers   kapelle.state.line.Line
Needs       stages, each an agent; gates, each a judge
Stops       at `approve`: a stage that turned to a person, or that its gate does not accept
Ends with   `result`: the last stage's; where the line was stopped, what was finished until then
After       the stop-the-line rule: T. Ohno, Toyota Production System, 1988 (jidoka)
"""

from collections.abc import Mapping, Sequence

from langgraph.graph import END, START
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.gating import Asked
from kapelle.nodes.gating import gate as person
from kapelle.nodes.pattern import Finished, Given, Pattern, by_name, must_be_agent
from kapelle.nodes.services import Services
from kapelle.nodes.staging import open_line, stage, stage_gate
from kapelle.state.errors import Misbuilt
from kapelle.state.line import Line
from kapelle.state.policy import Policy

_CONTROL = ("open", "gate", "approve")


def pipeline(
    stages: Sequence[Agent],
    *,
    gates: Agent | Mapping[str, Agent] | None = None,
    policy: Policy | None = None,
) -> Pattern:
    """A line of stages: each works on what the earlier ones made.

    Args:
        stages: In order; nodes of their own names. Each gets the task, and the earlier stages'
            results in its brief, by stage name.
        gates: A judge for all stages, or one by stage name; gives a `Verdict`. Without one, a
            stage passes if its output is valid.
        policy: The limits.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out.

    Raises:
        Misbuilt: when a stage or gate is no agent, a stage's name can't be a node's, or a gate
            has no stage.
    """
    limits = policy or Policy()
    line = by_name(stages, reserved=_CONTROL)
    judges = _judges(gates, line)
    graph = Pattern(Line, context_schema=Services, input_schema=Given, output_schema=Finished)

    graph.add_node("open", open_line)
    for name, agent in line.items():
        graph.add_node(name, stage(agent, limits))
    graph.add_node("gate", stage_gate(stages, judges, limits))
    graph.add_node("approve", person(limits), input_schema=Asked)

    graph.add_edge(START, "open")
    graph.add_edge("open", stages[0].card.name)
    for name in line:
        graph.add_edge(name, "gate")
    graph.add_conditional_edges("gate", by_move, [*line, "approve", END])
    graph.add_edge("approve", "gate")
    return graph


def by_move(state: Line) -> str | list[Send]:
    """Where the gate's decision leads."""
    if state["move"] == "end":
        return END
    ask = state["escalation"]
    if state["move"] == "approve" and ask is not None:
        return [Send("approve", Asked(ask=ask, stopped=None))]
    return state["move"]


def _judges(
    gates: Agent | Mapping[str, Agent] | None, line: Mapping[str, Agent]
) -> Mapping[str, Agent]:
    if gates is None:
        return {}
    if not isinstance(gates, Mapping):
        return dict.fromkeys(line, must_be_agent(gates))
    if unknown := set(gates) - set(line):
        raise Misbuilt(f"gates for {sorted(unknown)}, but the stages are {list(line)}")
    return {name: must_be_agent(gate) for name, gate in gates.items()}
