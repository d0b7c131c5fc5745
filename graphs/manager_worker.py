"""Manager-worker: decompose a task, delegate the parts, merge what comes back.

    START ─ plan ─ estimate ─┬─ gather
                             └─ allow ─ gather         with policy.ask_above: a plan that is dear
                   gather ─┬═ worker ×N ─ gather       each part as soon as its needs are met
                           ├═ approve ×N ─ gather      what a person must decide
                           ├═ part ×N ─ gather         each with all that follows from it, where
                           │                           a person may hold the step
                           ├─ replan ─ estimate        parts were lost, or a person wants it
                           ├═ review ×N ─ gather       a part its author is not sure of
                           ├─ reconcile ─┬─ gather     claims that can't all hold
                           │             └─ arbitrate ─ reconcile
                           ├─ synthesize ─ gather
                           ├─ judge ─ gather           a draft, once what it claims is reconciled
                           └─ END                      with a result

Remembers   kapelle.state.team.Team
Needs       a planner, and workers whose cards name their skills
Stops       at `allow`, before what is dear; at `approve`: a plan, a part that turned to a person or
            that nobody could do, a draft the judge does not accept, claims that neither rule nor
            judge can reconcile, a budget that leaves no room, a channel that is full
Ends with   `result`: done; partial, naming the parts that are missing; failed; refused by a person
After       R. G. Smith and R. Davis, Frameworks for Cooperation in Distributed Problem Solving,
            IEEE Trans. SMC 11, 1981 (task sharing); without barriers between parts
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.deciding import arbitrate
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.following import Part, follow, part
from kapelle.nodes.gathering import gather
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.judging import judge as judging
from kapelle.nodes.pattern import Finished, Given, Pattern, by_name, seated
from kapelle.nodes.performing import Work, work_of, worker
from kapelle.nodes.planning import plan as planning
from kapelle.nodes.planning import replan as replanning
from kapelle.nodes.reconciling import reconcile
from kapelle.nodes.reviewing import Doubtful, review
from kapelle.nodes.services import Services
from kapelle.nodes.starting import goes_on
from kapelle.nodes.synthesizing import synthesize as synthesizing
from kapelle.state.ladder import in_doubt
from kapelle.state.needs import by_urgency
from kapelle.state.policy import Policy
from kapelle.state.team import Team, parts_of, standings

_CONTROL = (
    "plan", "replan", "gather", "approve", "part", "follow", "review", "reconcile", "arbitrate",
    "synthesize", "judge",
)  # fmt: skip


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
    team = by_name(workers, reserved=_CONTROL, policy=limits)
    plan = seated(plan, limits)
    synthesize, judge = (role and seated(role, limits) for role in (synthesize, judge))
    graph = Pattern(Team, context_schema=Services, input_schema=Given, output_schema=Finished)

    graph.shape = Shape(
        limits,
        (
            Role("plan", [plan], most=1 + limits.replans),
            Role("work", workers, each=True, most=limits.agents_per_task, works=True),
            *([Role("synthesize", [synthesize], most=1 + limits.rounds)] if synthesize else []),
            *([Role("judge", [judge], most=1 + limits.rounds)] if judge else []),
        ),
    )

    graph.add_node("plan", planning(plan, workers, limits))
    graph.add_node("replan", replanning(plan, workers, limits))
    graph.add_node("gather", gather(list(team.values()), limits, judged=judge is not None))
    for name, agent in team.items():
        graph.add_node(name, worker(agent, limits, peers=tuple(team)), input_schema=Work)
    graph.add_node("approve", gate(limits), input_schema=Asked)
    graph.add_node("part", part(_part(team, judge, limits), limits), input_schema=Part)
    graph.add_node("reconcile", reconcile(limits, judged=judge is not None))
    graph.add_node("synthesize", synthesizing(synthesize, limits, judged=judge is not None))

    graph.add_edge(START, "plan")
    goes_on(graph, ["plan", "replan"], "gather", limits)
    nexts = [*team, "approve", "part", "replan", "reconcile", "synthesize", END]
    for name in team:
        graph.add_edge(name, "gather")
    graph.add_edge("approve", "gather")
    graph.add_edge("part", "gather")
    graph.add_edge("synthesize", "gather")
    if judge is None:
        graph.add_edge("reconcile", "gather")
    else:
        graph.add_node("arbitrate", arbitrate(judge, limits, parts_of))
        graph.add_conditional_edges("reconcile", by_doubt, ["arbitrate", "gather"])
        graph.add_edge("arbitrate", "reconcile")
        graph.add_node("judge", judging(judge, limits))
        graph.add_edge("judge", "gather")
        graph.add_node("review", review(judge, limits), input_schema=Doubtful)
        graph.add_edge("review", "gather")
        nexts += ["review", "judge"]
    graph.add_conditional_edges("gather", by_move, nexts)
    return graph


def by_move(state: Team) -> str | list[Send]:
    """Where the manager's last move leads."""
    move, ask = state["move"], state["escalation"]
    if move == "end":
        return END
    if move == "ask" and ask is not None:
        return [Send("approve", Asked(ask=ask, stopped=None))]
    return to_workers(state) if move == "work" else move


def by_doubt(state: Team) -> Literal["arbitrate", "gather"]:
    """To the judge, if there is something that no rule settles and nobody was asked yet."""
    return "arbitrate" if state["found"] and state["escalation"] is None else "gather"


def to_workers(state: Team) -> list[Send]:
    """A worker per subtask that is due; a judge or a gate per one that waits; all in one step.

    Where a person may hold it, all that follows from a part is within that step as well.
    """
    plan, results = state["plan"], state["results"]
    assert plan is not None
    stand = standings(plan, results, state["revisions"])
    sends = []
    for task in by_urgency(plan.tasks, state["task"].priority):
        if stand[task.id] == "waiting":
            to = "review" if in_doubt(results[task.id]) else "approve"
        elif stand[task.id] == "due" and task.id in state["assigned"]:
            to = state["assigned"][task.id]
        else:
            continue
        given = {need: results[need] for need in task.needs if stand[need] == "done"}
        one = Part(
            subtask=task,
            given=given,
            mail=state["mail"],
            results={task.id: results[task.id]} if task.id in results else {},
            revisions={i: r for i, r in state["revisions"].items() if i == task.id},
            to=to,
        )
        sends.append(Send("part", one) if state["held"] else to_next(one))
    return sends


def to_next(state: Part) -> Send:
    """Whoever is next for one part: an agent, the judge, a person."""
    task, to = state["subtask"], state["to"]
    last, order = state["results"].get(task.id), state["revisions"].get(task.id)
    if last is not None and to == "review":
        return Send(to, Doubtful(subtask=task, stopped=last))
    if last is not None and last.escalation is not None and to == "approve":
        return Send(to, Asked(ask=last.escalation, stopped=last, order=order))
    mail = state["mail"].get(to, ())
    return Send(to, work_of(task, state["given"], last, order, mail=mail))


def by_next(state: Part) -> str | Send:
    """Whoever is next for one part, or its end."""
    return to_next(state) if state["to"] else END


def _part(
    team: Mapping[str, Agent], judge: Agent | None, limits: Policy
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """All that may become of one part."""
    cards = [agent.card for agent in team.values()]
    graph = Pattern(Part, context_schema=Services)
    graph.add_node("follow", follow(cards, limits, judged=judge is not None))
    for name, agent in team.items():
        graph.add_node(name, worker(agent, limits, peers=tuple(team)), input_schema=Work)
    graph.add_node("approve", gate(limits), input_schema=Asked)
    nexts = [*team, "approve"]
    if judge is not None:
        graph.add_node("review", review(judge, limits), input_schema=Doubtful)
        nexts.append("review")
    graph.add_conditional_edges(START, by_next, [*nexts, END])
    for name in nexts:
        graph.add_edge(name, "follow")
    graph.add_conditional_edges("follow", by_next, [*nexts, END])
    return graph.compile(name="part")
