"""Marketplace: call for proposals, award each task to a bid, measure what came of it.

    START ─ estimate ─┬─ open
                      └─ allow ─┬─ open    with policy.ask_above: what is expected to be dear
                                └─ END
            open ─ announce ─┬═ bid ×N ─ award ─┬═ contractor ×N ─ judge ─ settle ─ award
                             │                  ├═ perform ×N ─ judge    found in the registry
                             │                  ├═ approve ×N ─ judge    a price, a doubt, nobody
                             │                  ├═ deal ×N ─ settle      each task by itself, where
                             │                  │                        a person may hold the step
                             │                  ├─ announce              a person wants bids again
                             │                  ├─ reconcile ─┬─ arbitrate ─ reconcile   claims that
                             │                  │             ├─ decide ─ reconcile      can't all
                             │                  │             └─ END                     hold
                             │                  └─ END                   with a result
                             └─ award                                    it fits nobody

Remembers   kapelle.state.market.Market
Needs       agents whose cards name their skills; they bid by their cards, or as they are told to
Stops       at `allow`, before what is dear; at `approve`: a price above policy.ask_above, work that
            turned to a person, a task that nobody bids for or that those who did failed at; at
            `decide`: claims that neither rule nor judge can reconcile
Ends with   `result`: of one task its contractor's, of many their outputs by id; partial, naming
            what is missing; failed; refused by a person. It never raises for lack of bids
After       R. G. Smith, The Contract Net Protocol, IEEE Trans. Computers C-29, 1980; FIPA SC00029
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.graph import END, START
from langgraph.types import Send

from kapelle.nodes.agent import Agent, may_ask
from kapelle.nodes.announcing import Caller, announce, open_market
from kapelle.nodes.awarding import Step, award, deal, settle
from kapelle.nodes.awarding import judge as judging
from kapelle.nodes.bidding import Bidder, Bidding, Invitation, as_bidder, bid
from kapelle.nodes.ending import CLOSING, ends, to_end
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.gating import Asked, gate_by_task
from kapelle.nodes.pattern import Finished, Given, Pattern, by_name, must_be_silent, seated
from kapelle.nodes.performing import Found, Work, whoever, work_of, worker
from kapelle.nodes.services import Services
from kapelle.nodes.starting import starts
from kapelle.state.auction import must_be_rule
from kapelle.state.errors import Misbuilt
from kapelle.state.market import Market, Rule, alone_with, at_stake
from kapelle.state.policy import Policy
from kapelle.state.skills import PLAIN, Ontology
from kapelle.state.task import Task

_CONTROL = ("open", "announce", "bid", "award", "perform", "judge", "settle", "approve",
            "deal", *CLOSING)  # fmt: skip


def marketplace(  # noqa: PLR0913 - each is a choice with a default
    agents: Sequence[Agent],
    *,
    rule: Rule = "best_value",
    deadline: float = 30.0,
    ontology: Ontology = PLAIN,
    bids: Mapping[str, Bidder] | None = None,
    judge: Agent | None = None,
    admits: Collection[str] = (),
    policy: Policy | None = None,
) -> Pattern:
    """A contract net: agents bid for tasks, the best bid gets each, reputation follows from work.

    Args:
        agents: Who may bid, and does what it is awarded; nodes of their own names.
        rule: How awards are made: `best_value`, `vickrey` (second price), `assignment` (all tasks
            at once, evenly; needs SciPy), `sequential` (one task after the other).
        deadline: Seconds that bidders have. What comes later does not count. Once all have
            answered, it is awarded at once, for nobody else may bid.
        ontology: Which skill is a kind of which. If it declares skills, agents may have no others.
        bids: How agents bid, by name: an `Offer`, a function of the task or an agent that gives
            one. By default as the card says.
        judge: Gives a `Verdict` on what was delivered; what it does not accept counts as failed.
            None: what is valid is good.
        admits: Names of agents that may bid if they are in the registry. Nobody else from there.
        policy: The limits. None: as `Policy(on_failure="ask")`, so that what nobody does goes to a
            person.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out. If the task's
        `inputs` have `tasks`, a list as of a plan, these are awarded, side by side.

    Raises:
        Misbuilt: when one of them is no agent or no way to bid, a name can't be a node's, a skill
            is not in the ontology, or the rule can't be used.
    """
    why = "its contractors work on tasks that need no other, against each other"
    limits = must_be_silent(policy or Policy(on_failure="ask"), "marketplace", why)
    must_be_rule(rule)
    market = by_name(agents, _CONTROL, limits) if agents or not admits else {}
    _must_know(ontology, market)
    bidders = {name: as_bidder(name, how) for name, how in (bids or {}).items()}
    if strangers := set(bidders) - {*market, *admits}:
        raise Misbuilt(f"bids for {sorted(strangers)}, but in the market are {[*market, *admits]}")
    if not deadline > 0:
        raise Misbuilt(f"the deadline is {deadline} s; bidders need some time")
    judge = judge and seated(judge, limits)
    nodes = _Nodes(
        bid=bid(market, bidders, deadline, limits),
        announce=announce(market, ontology, admits, limits),
        award=award(rule, ontology, limits, _graphs(market, judge)),
        settle=settle(ontology, limits),
        judge=judging(judge, limits) if judge is not None else None,
    )
    graph = _market(market, nodes, admits, limits)
    graph.shape = _shape(market, bidders, judge, limits)
    alone = _market(market, nodes, admits, limits, alone=True)

    starts(graph, "open", limits)
    graph.add_node("open", open_market(limits))
    graph.add_node("deal", deal(alone.compile(name="deal"), limits), input_schema=Market)
    graph.add_edge("open", "announce")
    graph.add_edge("deal", "settle")
    ends(graph, limits, judge=judge)
    return graph


@dataclass(frozen=True)
class _Nodes:
    """The nodes of a market, also of one for a single task."""

    announce: Caller
    bid: Bidding
    award: Step
    judge: Step | None
    settle: Step


def _market(
    agents: Mapping[str, Agent],
    nodes: _Nodes,
    admits: Collection[str],
    limits: Policy,
    *,
    alone: bool = False,
) -> Pattern:
    """What goes round in a market; `alone` for one task, begun where that stands."""
    schemas: Any = {} if alone else {"input_schema": Given, "output_schema": Finished}
    graph = Pattern(Market, context_schema=Services, **schemas)
    done = "settle" if nodes.judge is None else "judge"

    graph.add_node("announce", nodes.announce)
    graph.add_node("bid", nodes.bid, input_schema=Invitation)
    graph.add_node("award", nodes.award)
    for name, agent in agents.items():
        graph.add_node(name, worker(agent, limits, opening="accept-proposal"), input_schema=Work)
    if admits:
        graph.add_node("perform", whoever(limits, "accept-proposal"), input_schema=Found)
    graph.add_node("approve", gate_by_task(), input_schema=Asked)
    if nodes.judge is not None:
        graph.add_node("judge", nodes.judge)
        graph.add_edge("judge", "settle")
    graph.add_node("settle", nodes.settle)

    graph.add_conditional_edges("announce", to_bidders, ["bid", "award"])
    graph.add_edge("bid", "award")
    working = [*agents, *(["perform"] if admits else []), "approve"]
    nexts = [*working, "announce", END]
    if alone:
        graph.add_conditional_edges(START, by_stand, nexts)
    graph.add_conditional_edges(
        "award", by_stand, nexts if alone else [*nexts, "deal", "reconcile"]
    )
    for name in working:
        graph.add_edge(name, done)
    graph.add_edge("settle", "award")
    return graph


def _graphs(market: Mapping[str, Agent], judge: Agent | None) -> Collection[str]:
    """The contractors at whose work a person may be asked; all of them, if the judge is a graph."""
    if judge is not None and may_ask(judge):
        return set(market)
    return {name for name, agent in market.items() if may_ask(agent)}


def _shape(
    market: Mapping[str, Agent], bidders: Mapping[str, Bidder], judge: Agent | None, limits: Policy
) -> Shape:
    """For each task a bid of everyone, by call or by card, an award, and its contractor."""
    asked: list[Any] = [how for how in bidders.values() if hasattr(how, "card")]
    most = limits.agents_per_task
    by_card = max(0, len(market) - len(asked))
    return Shape(
        limits,
        (
            Role("bid", asked, each=True, all=True, tells=2 * by_card + len(market) - 1),
            Role("work", list(market.values()), each=True, most=most, works=True),
            *([Role("judge", [judge], each=True, most=most)] if judge else []),
        ),
        items=_tasks,
    )


def _tasks(task: Task) -> int:
    given = task.inputs.get("tasks")
    return len(given) if isinstance(given, list) else 1


def to_bidders(state: Market) -> list[Send] | Literal["award"]:
    """One `bid` per invited agent, all in the same step; straight on if nobody was invited."""
    tasks, call = state["tasks"], state["call"]
    return [
        Send("bid", Invitation(call=call, agent=name, tasks=tuple(tasks[t] for t in fitting)))
        for name, fitting in state["invited"].items()
    ] or "award"


def by_stand(state: Market) -> str | list[Send]:
    """The end; another call; or all at once who is to work, and what a person is asked."""
    stands = state["stands"]
    if state["result"] is not None:
        return END if state["alone"] else to_end(state)
    if state["escalation"] is not None:
        return [Send("approve", Asked(ask=state["escalation"], stopped=None))]
    if "uncalled" in stands.values():
        return "announce"
    if state["held"]:
        return [Send("deal", alone_with(state, task)) for task in _urgent(state, at_stake(state))]
    asks = [Send("approve", Asked(ask=ask, stopped=None)) for ask in state["asks"].values()]
    due = _urgent(state, (task for task, stand in stands.items() if stand == "due"))
    return asks + [to_contractor(state, task) for task in due]


def to_contractor(state: Market, task: str) -> Send:
    """A task to the node of the agent it was awarded to."""
    agent, said = state["awards"][task][-1].agent, state["feedback"].get(task, ())
    work = work_of(state["tasks"][task], {}, state["results"].get(task), feedback=said)
    return (
        Send("perform", Found(**work, agent=agent))
        if agent in state["newcomers"]
        else Send(agent, work)
    )


def _urgent(state: Market, tasks: Iterable[str]) -> list[str]:
    """The most urgent first."""
    return sorted(tasks, key=lambda task: (-state["tasks"][task].priority, task))


def _must_know(ontology: Ontology, market: Mapping[str, Agent]) -> None:
    if not ontology.parents:
        return
    for name, agent in market.items():
        if unknown := ontology.unknown(agent.card.skills):
            raise Misbuilt(f"agent {name}: {'; '.join(unknown)}")
