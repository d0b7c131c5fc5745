"""Manager-worker: decompose a task, delegate the parts, merge what comes back.

    START ─ plan ─ gather ─┬═ worker ×N ─ gather       each part as soon as its needs are met
                           ├═ approve ×N ─ gather      what a person must decide
                           ├─ replan ─ gather          parts were lost, or a person wants it
                           ├─ synthesize ─ judge ─ gather
                           └─ END                      with a result

Remembers   kapelle.state.team.Team
Needs       a planner, and workers whose cards name their skills
Stops       at `approve`: a plan, a part that turned to a person or that nobody could do, a draft
            the judge does not accept
Ends with   `result`: done; partial, naming the parts that are missing; failed; refused by a person
After       R. G. Smith and R. Davis, Frameworks for Cooperation in Distributed Problem Solving,
            IEEE Trans. SMC 11, 1981 (task sharing); without barriers between parts
"""

from collections.abc import Sequence

from langgraph.graph import END, START
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.gathering import gather
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.judging import judge as judging
from kapelle.nodes.pattern import Finished, Given, Pattern, by_name, must_be_agent
from kapelle.nodes.performing import Work, worker
from kapelle.nodes.planning import plan as planning
from kapelle.nodes.planning import replan as replanning
from kapelle.nodes.services import Services
from kapelle.nodes.synthesizing import synthesize as synthesizing
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.team import Team, standings

_CONTROL = ("plan", "replan", "gather", "approve", "synthesize", "judge")


def manager_worker(
    *,
    plan: Agent,
    workers: Sequence[Agent],
    synthesize: Agent | None = None,
    judge: Agent | None = None,
    policy: Policy | None = None,
) -> Pattern:
    """A team: a planner decomposes, workers do the parts in parallel, a synthesizer merges.

    Args:
        plan: Gives a `Plan`, or a list of tasks, for the task; told who the workers are.
        workers: Who can do parts; nodes of their own names.
        synthesize: Gives the one output; told all results. None: the output of the last part,
            or those of all last parts by id.
        judge: Gives a `Verdict` on the draft; told all results and the draft. None: no judging.
        policy: The limits.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out.

    Raises:
        Misbuilt: when one of them is no agent, or a worker's name can't be a node's.
    """
    limits = policy or Policy()
    team = by_name(workers, reserved=_CONTROL)
    for role in (plan, synthesize, judge):
        if role is not None:
            must_be_agent(role)
    graph = Pattern(Team, context_schema=Services, input_schema=Given, output_schema=Finished)

    graph.add_node("plan", planning(plan, workers, limits))
    graph.add_node("replan", replanning(plan, workers, limits))
    graph.add_node("gather", gather(workers, limits))
    for name, agent in team.items():
        graph.add_node(name, worker(agent, limits), input_schema=Work)
    graph.add_node("approve", gate(limits), input_schema=Asked)
    graph.add_node("synthesize", synthesizing(synthesize, limits, judged=judge is not None))

    graph.add_edge(START, "plan")
    graph.add_edge("plan", "gather")
    graph.add_edge("replan", "gather")
    graph.add_conditional_edges("gather", by_move, [*team, "approve", "replan", "synthesize", END])
    for name in team:
        graph.add_edge(name, "gather")
    graph.add_edge("approve", "gather")
    if judge is None:
        graph.add_edge("synthesize", "gather")
    else:
        graph.add_node("judge", judging(judge, limits))
        graph.add_edge("synthesize", "judge")
        graph.add_edge("judge", "gather")
    return graph


def by_move(state: Team) -> str | list[Send]:
    """Where the manager's last move leads."""
    move, ask = state["move"], state["escalation"]
    if move == "end":
        return END
    if move == "ask" and ask is not None:
        return [Send("approve", Asked(ask=ask, stopped=None))]
    return to_workers(state) if move == "work" else move


def to_workers(state: Team) -> list[Send]:
    """A worker per subtask that is due, a gate per subtask that waits for a person; in one step."""
    plan, results = state["plan"], state["results"]
    assert plan is not None
    stand = standings(plan, results, state["revisions"])
    sends = []
    for task in sorted(plan.tasks, key=lambda task: -task.priority):
        last = results.get(task.id)
        if stand[task.id] == "waiting" and last is not None and last.escalation is not None:
            sends.append(Send("approve", Asked(ask=last.escalation, stopped=last)))
        elif stand[task.id] == "due" and task.id in state["assigned"]:
            order = state["revisions"].get(task.id)
            work = Work(
                subtask=task,
                given={need: results[need] for need in task.needs if stand[need] == "done"},
                feedback=order.feedback if order else (),
                revision=last.revision + 1 if last else 1,
                used=last.usage if last else Usage(),
            )
            sends.append(Send(state["assigned"][task.id], work))
    return sends
