"""Swarm: peers work on the same task, each blind to the others, and converge by a vote or a judge.

    START ─ estimate ─┬─ open
                      └─ allow ─┬─ open    with policy.ask_above: what is expected to be dear
                                └─ END
            open ─ tally ─┬═ peer ×N ─ tally       those whose answers can change the outcome
                          ├═ judge ×N ─ tally      even answers, each pair in both orders
                          ├═ approve ×N ─ tally    what a person must decide
                          ├═ voice ×N ─ tally      each as often as its vote is wanted, where a
                          │                        person may hold the step
                          ├─ reconcile ─┬─ decide ─ reconcile   claims can't all hold
                          │             └─ END
                          └─ END                   with a result

Remembers   kapelle.state.swarm.Swarm
Needs       peers, a rule, and for a judged vote a judge
Stops       at `allow`, before what is dear; at `approve`: a peer that turned to a person and whose
            vote is needed; a tie that no debate and no judge could break; less agreement than the
            policy wants; at `decide`: what those who gave the winning answer claim, if no rule can
            reconcile it
Ends with   `result`, its confidence the agreement; failed, where nobody gave an answer
After       Condorcet's jury theorem, 1785; E. Meyerson et al., Solving a Million-Step LLM Task with
            Zero Errors, 2025 (first to ahead by k, red flags)
"""

from collections.abc import Callable, Mapping, Sequence

from langgraph.graph import END
from langgraph.types import Send

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import Check
from kapelle.nodes.comparing import compare
from kapelle.nodes.ending import CLOSING, ends, to_end
from kapelle.nodes.estimating import Role, Shape
from kapelle.nodes.gating import Asked, gate
from kapelle.nodes.pattern import (
    STEPS,
    Finished,
    Given,
    Pattern,
    by_name,
    must_be_agent,
    must_be_silent,
    seated,
)
from kapelle.nodes.polling import Seat, voice
from kapelle.nodes.services import Services
from kapelle.nodes.speaking import Voters, add_voters, one_voice, to_slots
from kapelle.nodes.starting import starts
from kapelle.nodes.tallying import count, opening
from kapelle.nodes.voting import peer
from kapelle.state.ballot import Judged, LogOdds, Rule, Same, exact
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.swarm import Election, Round, Swarm
from kapelle.state.turns import most_votes, votes_of

_CONTROL = ("open", "tally", "judge", "approve", "voice", "listen", *CLOSING)


def swarm(
    peers: Sequence[Agent],
    *,
    rule: Rule,
    judge: Agent | None = None,
    rounds: int = 0,
    same: Same = exact,
    check: Check | None = None,
    policy: Policy | None = None,
) -> Pattern:
    """Peers that converge.

    Args:
        peers: Who votes; nodes of their own names. Each is given the task and nothing of what the
            others say. Under a rule that ranks they rank the task's `options`, or without such
            first propose and then rank what was proposed.
        rule: `Plurality()`, `LogOdds(…)`, `AheadBy(k=…)`; `Borda()`, `Copeland()`, `Kemeny()`; or
            `Judged()`.
        judge: Gives a `Preference` on two answers, its brief's `first` and `second`. Compares all
            answers under `Judged()`, else those that are even.
        rounds: Debates at most: where the vote is even, peers vote again and are shown how it
            stood, as `inputs["debate"]`. The vote before it is recorded by then.
        same: When answers are the same: `exact`, `normalised`, `by_key("name", …)` or your own.
        check: What keeps an answer from being well-formed, each flaw a sentence. Malformed answers
            are discarded before the vote, and counted.
        policy: The limits.

    Returns:
        An uncompiled LangGraph graph: `{"task": Task}` in, `{"result": Result}` out.

    Raises:
        Misbuilt: when one of them is no agent, a peer's name can't be a node's, the rule needs a
            judge or the accuracy of a peer and there is none.
    """
    limits = must_be_silent(policy or Policy(), "swarm", "its peers are blind to each other")
    crowd = by_name(peers, reserved=_CONTROL, policy=limits)
    _must_suit(rule, list(crowd), judge, rounds)
    judge = judge and seated(judge, limits)
    election = Election(
        rule=rule,
        peers=tuple(crowd),
        judge=judge.card.name if judge else None,
        rounds=rounds,
        same=same,
        policy=limits,
        graphs=frozenset(a.card.name for a in (*crowd.values(), judge) if a and a.where == "graph"),
    )
    nodes = Voters(
        peers={name: peer(agent, same, check, limits) for name, agent in crowd.items()},
        judge=compare(judge, limits) if judge is not None else None,
    )
    graph = Pattern(Swarm, context_schema=Services, input_schema=Given, output_schema=Finished)
    graph.shape, graph.steps = _shape(crowd, judge, election)
    alone = one_voice(nodes, election, graph.steps)

    graph.add_node("open", opening(limits))
    graph.add_node("tally", count(election, [peer.card for peer in crowd.values()]))
    nexts = add_voters(graph, nodes, gate(limits), back_to="tally")
    graph.add_node("voice", voice(alone, election, limits), input_schema=Seat)

    starts(graph, "open", limits)
    graph.add_edge("open", "tally")
    graph.add_edge("voice", "tally")
    ends(graph, limits)
    graph.add_conditional_edges("tally", by_move(election), [*nexts, "voice", "reconcile", END])
    return graph


def _shape(
    crowd: Mapping[str, Agent], judge: Agent | None, election: Election
) -> tuple[Shape, int]:
    """Who is called how often, and how many steps that may take."""
    rule, rounds, limits = election.rule, 1 + election.rounds, election.policy
    sure = {name: agent.card.confidence for name, agent in crowd.items()}
    least, expected, most = votes_of(rule, sure, limits)
    calls = (least, expected, most * rounds)
    votes = Role("vote", list(crowd.values()), works=True, votes=calls)
    pairs = len(crowd) * (len(crowd) - 1)  # each in both orders
    judges = [Role("judge", [judge], most=pairs)] if judge else []
    steps = STEPS + 4 * most_votes(rule, len(crowd), limits) * rounds
    return Shape(limits, (votes, *judges)), steps


def by_move(election: Election) -> Callable[[Swarm], str | list[Send]]:
    """Where the count leads: to whoever is due, to a person, to the end."""

    def by_move(state: Swarm) -> str | list[Send]:
        ask = state["escalation"]
        if state["move"] == "end":
            return to_end(state)
        if state["move"] == "ask" and ask is not None:
            return [Send("approve", Asked(ask=ask, stopped=None))]
        if state["voices"]:
            return [Send("voice", Seat(voice=n)) for n in range(len(state["voices"]))]
        return to_slots(Round(election, state))

    return by_move


def _must_suit(rule: Rule, peers: Sequence[str], judge: Agent | None, rounds: int) -> None:
    if isinstance(rule, Judged) and judge is None:
        raise Misbuilt("the rule is Judged(), and there is no judge; give one as judge=")
    if judge is not None:
        must_be_agent(judge)
    if isinstance(rule, LogOdds) and (lost := [p for p in peers if p not in rule.accuracy]):
        raise Misbuilt(f"LogOdds needs the accuracy of each peer; there is none of {lost}")
    if rounds < 0:
        raise Misbuilt(f"there can't be {rounds} rounds of debate")
