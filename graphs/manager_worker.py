"""Manager-worker: decompose a task, delegate the parts, merge what comes back.

    START ─ plan ─ estimate ─┬─ gather
                             └─ allow ─ gather         with policy.ask_above: a plan that is dear
                   gather ─┬═ worker ×N ─ gather       each part as soon as its needs are met
                           ├═ approve ×N ─ gather      what a person must decide
                           ├─ replan ─ estimate        parts were lost, or a person wants it
                           ├═ review ×N ─ gather       a part its author is not sure of
                           ├─ reconcile ─┬─ gather     claims that can't all hold
                           │             └─ arbitrate ─ reconcile
                           ├─ synthesize ─ judge ─ gather
                           ├─ judge ─ gather           a draft, once its judge can be paid
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
from typing import Literal

from langgraph.graph import END, START
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.deciding import arbitrate
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.gathering import gather
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.judging import judge as judging
from kapelle.nodes.pattern import Finished, Given, Pattern, by_name, seated
from kapelle.nodes.performing import Work, worker
from kapelle.nodes.planning import plan as planning
from kapelle.nodes.planning import replan as replanning
from kapelle.nodes.reconciling import reconcile
from kapelle.nodes.reviewing import Doubtful, review
from kapelle.nodes.services import Services
from kapelle.nodes.starting import goes_on
from kapelle.nodes.synthesizing import synthesize as synthesizing
from kapelle.state.budget import Usage
from kapelle.state.policy import Policy
from kapelle.state.task import Task, by_urgency
from kapelle.state.team import Standing, Team, parts_of, standings

_CONTROL = (
    "plan", "replan", "gather", "approve", "review", "reconcile", "arbitrate", "synthesize",
    "judge",
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
    graph.add_node("gather", gather(workers, limits, judged=judge is not None))
    for name, agent in team.items():
        graph.add_node(name, worker(agent, limits, peers=tuple(team)), input_schema=Work)
    graph.add_node("approve", gate(limits), input_schema=Asked)
    graph.add_node("reconcile", reconcile(limits, judged=judge is not None))
    graph.add_node("synthesize", synthesizing(synthesize, limits, judged=judge is not None))

    graph.add_edge(START, "plan")
    goes_on(graph, ["plan", "replan"], "gather", limits)
    nexts = [*team, "approve", "replan", "reconcile", "synthesize", END]
    for name in team:
        graph.add_edge(name, "gather")
    graph.add_edge("approve", "gather")
    if judge is None:
        graph.add_edge("reconcile", "gather")
        graph.add_edge("synthesize", "gather")
    else:
        graph.add_node("arbitrate", arbitrate(judge, limits, parts_of))
        graph.add_conditional_edges("reconcile", by_doubt, ["arbitrate", "gather"])
        graph.add_edge("arbitrate", "reconcile")
        graph.add_node("judge", judging(judge, limits))
        graph.add_edge("synthesize", "judge")
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
    """A worker per subtask that is due; a judge or a gate per one that waits; all in one step."""
    plan, results = state["plan"], state["results"]
    assert plan is not None
    stand = standings(plan, results, state["revisions"])
    sends = []
    for task in by_urgency(plan.tasks, state["task"].priority):
        last, order = results.get(task.id), state["revisions"].get(task.id)
        if stand[task.id] == "waiting" and last is not None and last.escalation is not None:
            if last.escalation.about == "doubt":
                sends.append(Send("review", Doubtful(subtask=task, stopped=last)))
            else:
                sends.append(Send("approve", Asked(ask=last.escalation, stopped=last, order=order)))
                if task.id in state["standby"]:
                    again = _work(state, task, state["standby"][task.id], stand)
                    sends.append(Send(state["standby"][task.id], {**again, "stands_by": True}))
        elif stand[task.id] == "due" and task.id in state["assigned"]:
            name = state["assigned"][task.id]
            sends.append(Send(name, _work(state, task, name, stand)))
            if task.id in state["standby"]:
                sends.append(Send("approve", {"watches": task.id, "order": order}))
    return sends


def _work(state: Team, task: Task, agent: str, stand: Mapping[str, Standing]) -> Work:
    last, order = state["results"].get(task.id), state["revisions"].get(task.id)
    return Work(
        subtask=task,
        given={need: state["results"][need] for need in task.needs if stand[need] == "done"},
        feedback=order.feedback if order else (),
        mail=state["mail"].get(agent, ()),
        revision=last.revision + 1 if last else 1,
        used=last.usage if last else Usage(),
        watched={n: by == "approve" for n in task.needs if (by := state["standby"].get(n))},
    )
