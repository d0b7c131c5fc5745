"""What a voice may be asked, one slot after the other, where a person may hold the step.

    START ─┬─ peer ─ listen ─┬─ peer       its vote is wanted, perhaps once more
           ├─ approve ─ listen             it turned to a person, whose answer is wanted
           └─ listen                       it is not its turn yet
                             ├─ approve
                             └─ END        the vote goes on without it, or is over

Where nobody may hold it, the same are asked by the swarm's own graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from kapelle.nodes.comparing import Comparer, Duel
from kapelle.nodes.gating import Asked, Gate
from kapelle.nodes.pattern import Pattern
from kapelle.nodes.polling import Speaking, gate_unless_over, listen
from kapelle.nodes.services import Services
from kapelle.nodes.voting import Peer, Turn
from kapelle.state.budget import Usage
from kapelle.state.swarm import Election, Round, Slot
from kapelle.state.turns import put


@dataclass(frozen=True)
class Voters:
    """Who may be asked in a vote: peers, and a judge of their answers."""

    peers: Mapping[str, Peer]
    judge: Comparer | None


def add_voters(graph: Pattern, nodes: Voters, approve: Gate, *, back_to: str) -> list[str]:
    """Add who may be asked to a graph; their names."""
    for name, node in nodes.peers.items():
        graph.add_node(name, node, input_schema=Turn)
    graph.add_node("approve", approve, input_schema=Asked)
    names = [*nodes.peers, "approve"]
    if nodes.judge is not None:
        graph.add_node("judge", nodes.judge, input_schema=Duel)
        names.append("judge")
    for name in names:
        graph.add_edge(name, back_to)
    return names


def one_voice(
    nodes: Voters, election: Election, steps: int
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """All that one voice may be asked."""
    graph = Pattern(Speaking, context_schema=Services)
    graph.steps = steps
    graph.keep_changes("asked", "results")
    names = add_voters(graph, nodes, gate_unless_over(election.policy), back_to="listen")
    graph.add_node("listen", listen)
    graph.add_conditional_edges(START, by_turn(election, "listen"), [*names, "listen"])
    graph.add_conditional_edges("listen", by_turn(election, END), [*names, END])
    return graph.compile(name="voice")


def by_turn(election: Election, none: str) -> Callable[[Speaking], str | list[Send]]:
    """Whether a voice has a slot to fill; where it has `none`."""

    def by_turn(state: Speaking) -> str | list[Send]:
        return to_slots(Round(election, state)) or none

    return by_turn


def to_slots(now: Round) -> list[Send]:
    """To all who are due, in the order of asking."""
    due = set(now.state["due"])
    return [to_slot(now, slot) for slot in now.state["asked"] if slot.id in due]


def to_slot(now: Round, slot: Slot) -> Send:
    """An agent whose answer is wanted; a person, where it turned to one."""
    state = now.state
    last, order = state["results"].get(slot.id), state["revisions"].get(slot.id)
    if last is not None and last.escalation is not None and now.stands(slot) == "waiting":
        return Send("approve", Asked(ask=last.escalation, stopped=last, order=order))
    revision = last.revision + 1 if last else 1
    task = put(now, slot)
    if slot.kind == "judge":
        first, second = (now.answer(key) for key in slot.pair)
        duel = Duel(slot=slot, task=task, first=first, second=second, revision=revision)
        return Send("judge", duel)
    said = (*state["feedback"], *(order.feedback if order else ()))
    used = last.usage if last else Usage()
    turn = Turn(slot=slot, task=task, feedback=said, revision=revision, used=used)
    return Send(slot.agent, turn)
