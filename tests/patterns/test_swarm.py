"""Peers, blind to each other, converge by a vote, a ranking or a judge; a tie is nobody's."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from kapelle.graphs import swarm
from kapelle.nodes.agent import Agent, FunctionAgent, agent
from kapelle.nodes.pattern import Pattern
from kapelle.state.approval import Choice, Escalation
from kapelle.state.ballot import (
    AheadBy,
    Borda,
    Copeland,
    Judged,
    Kemeny,
    LogOdds,
    Plurality,
    Rule,
    by_key,
    normalised,
)
from kapelle.state.budget import Budget, Usage
from kapelle.state.context import Claim, MasterContext
from kapelle.state.errors import Misbuilt
from kapelle.state.event import Event
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Reply, Task
from kapelle.state.verdict import Preference
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Run

pytestmark = pytest.mark.anyio

ASK = Escalation(question="Is it so?", evidence="x")
FIRST, SECOND = Preference(better="first"), Preference(better="second")
NEITHER = Preference(better="neither")


class Crowd:
    """Peers with a script: what each answers the first, the second, … time, then the last again."""

    def __init__(self) -> None:
        self.heard: list[tuple[Task, Brief]] = []

    def peer(self, name: str, *answers: object) -> FunctionAgent:
        """One peer."""
        mine: list[object] = []

        @agent(name=name)
        async def say(task: Task, brief: Brief) -> object:
            self.heard.append((task, brief))
            answer: Any = answers[min(len(mine), len(answers) - 1)]
            mine.append(answer)
            await asyncio.sleep(0)
            if callable(answer):
                answer = answer(task)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return say

    def peers(self, *answers: object) -> list[FunctionAgent]:
        """One an answer; a tuple is what it answers in turn."""
        return [
            self.peer(f"p{n}", *(answer if isinstance(answer, tuple) else (answer,)))
            for n, answer in enumerate(answers)
        ]

    @property
    def asked(self) -> list[str]:
        """Who was asked, in order."""
        return [task.id for task, _ in self.heard]


@pytest.fixture
def crowd() -> Crowd:
    """Nobody yet."""
    return Crowd()


def change(**more: Any) -> Policy:
    """The quick policy with something changed."""
    return QUICK.model_copy(update=more)


def vote(peers: Sequence[Agent], rule: Rule | None = None, **more: Any) -> Pattern:
    """A swarm that is quick; by plurality if nothing else is said."""
    return swarm(peers, rule=rule or Plurality(), **{"policy": QUICK, **more})


async def told(run: Run, kind: str) -> list[Event]:
    """What was journaled of a kind."""
    return [event for event in await run.events() if event.kind == kind]


# ── a vote ──


async def test_what_most_say_is_the_result_and_every_vote_is_in_the_journal(
    crowd: Crowd, everywhere: Saver
) -> None:
    run = await Run(vote(crowd.peers("x", "y", "x")), everywhere).go()
    result = run.result
    assert (result.task, result.status, result.output) == ("task", "done", "x")
    assert result.confidence == pytest.approx(2 / 3)
    assert result.usage.calls == 3
    votes = {e.agent: e.data["choice"] for e in await told(run, "vote")}
    assert votes == {"p0": '"x"', "p1": '"y"', "p2": '"x"'}
    last = (await told(run, "tally"))[-1]
    assert last.what == "won"
    assert last.data["winners"] == ['"x"']
    assert last.data["scores"] == {'"x"': 2, '"y"': 1}
    assert last.data["red_flagged"] == 0


async def test_peers_are_given_the_task_and_nothing_of_what_others_say(crowd: Crowd) -> None:
    run = Run(vote(crowd.peers("x", "y", "x"), judge=crowd.peer("j", FIRST), rounds=2))
    run.task = Task(goal="decide", inputs={"in": "May"})
    await run.go()
    for task, brief in crowd.heard:
        assert (task.goal, task.inputs) == ("decide", {"in": "May"})
        assert (brief.results, brief.feedback, brief.context.goal) == ({}, (), "decide")


@pytest.mark.parametrize(
    ("answers", "asked"),
    [("xxxyy", 3), ("xxyxy", 4), ("xyxyx", 5), ("xyzxx", 5), ("xxxx", 3), ("xx", 2), ("x", 1)],
)
async def test_nobody_is_asked_whose_vote_cannot_change_the_winner(
    crowd: Crowd, answers: str, asked: int
) -> None:
    assert (await Run(vote(crowd.peers(*answers))).go()).result.output == "x"
    assert len(crowd.asked) == asked


class Noted:
    """A run of voters who take turns by lot; what was decided in it."""

    def __init__(self, seed: int, parallel: int, rule: Rule, **more: Any) -> None:
        self.order = random.Random(f"{seed}/{parallel}")
        self.most = self.at_once = 0
        peers = [agent(name=f"p{n}")(self.say) for n in range(16)]
        judge = agent(name="judge 1")(self.compare)
        policy = change(seed=seed, parallel=parallel, max_votes=400)
        self.run = Run(swarm(peers, rule=rule, judge=judge, policy=policy, **more), InMemorySaver())

    async def say(self, task: Task) -> object:
        """Vote by the name of the slot; when, by lot."""
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        for _ in range(self.order.randrange(9)):
            await asyncio.sleep(0)
        self.at_once -= 1
        lot = random.Random(task.id)
        if "options" in task.inputs:
            return sorted(task.inputs["options"], key=lambda _: lot.random())  # type: ignore[arg-type]
        return lot.choices(["x", "y", "z", 5], [3, 2, 1, 1])[0]

    async def compare(self, task: Task, brief: Brief) -> Preference:
        """The later in the alphabet, or now and then whatever is first."""
        await asyncio.sleep(0)
        first, second = (f"{brief.results[which].output}" for which in ("first", "second"))
        biased = random.Random(f"{sorted((first, second))}").random() < 0.3
        return FIRST if biased or first > second else SECOND

    async def decided(self) -> list[Any]:
        """What was asked, voted, counted and chosen; and the result."""
        await self.run.go()
        events = [
            (e.kind, e.what, e.task, e.agent, e.why, e.data)
            for e in await self.run.events()
            if e.kind in ("choice", "vote", "tally", "verdict", "escalation")
        ]
        ask = [(a.value.reason, a.value.evidence) for a in self.run.asks.values()]
        left = None if ask else self.run.result.model_copy(update={"attempts": ()})
        return [sorted(events, key=repr), ask, left]


@pytest.mark.parametrize("rule", [Plurality(), AheadBy(k=4), Borda(), Judged()], ids=repr)
@pytest.mark.parametrize("seed", [1, 2])
async def test_with_one_or_with_sixteen_at_once_the_decisions_are_the_same(
    rule: Rule, seed: int
) -> None:
    one, many = Noted(seed, 1, rule, rounds=1), Noted(seed, 16, rule, rounds=1)
    assert await one.decided() == await many.decided()
    assert one.most == 1 < many.most


async def test_the_result_has_the_claims_of_those_who_agree(crowd: Crowd) -> None:
    claims = [Claim(key=f"k{n}", value=n) for n in range(3)]
    said = [Reply(output=o, claims=(c,)) for o, c in zip("xyx", claims, strict=True)]
    result = (await Run(vote(crowd.peers(*said))).go()).result
    assert [(c.value, c.by) for c in result.claims] == [(0, "p0"), (2, "p2")]


async def test_a_second_task_on_the_thread_is_voted_on_afresh(crowd: Crowd, saver: Saver) -> None:
    run = await Run(vote(crowd.peers(("x", "u"), ("y", "v"), ("x", "v"))), saver).go()
    assert run.result.output == "x"
    run.task = Task(goal="something else")
    result = (await run.go()).result
    assert (result.output, result.usage.calls) == ("v", 3)


async def test_peers_are_blind_to_what_becomes_known_while_they_vote(crowd: Crowd) -> None:
    @agent(name="leak")
    async def leak(task: Task) -> str:
        await run.services.memory.change("t1", lambda _: MasterContext(constraints=("say y",)))  # type: ignore[arg-type]
        return "y"

    peers = [leak, *crowd.peers("x", "y", "x", "x")]
    run = Run(vote(peers), InMemorySaver())
    assert (await run.go()).result.output == "x"
    assert (await run.services.memory.context("t1")).constraints != ()
    assert [brief.context.constraints for _, brief in crowd.heard] == [()] * 4


# ── what is the same, what is malformed ──


async def test_answers_are_compared_as_the_caller_wants(crowd: Crowd) -> None:
    said = [{"city": "Paris", "why": "a"}, {"city": "Lyon"}, {"city": "PARIS", "why": "b"}]
    assert (await Run(vote(crowd.peers(*said), same=by_key("city"))).go()).result.output == said[0]
    run = await Run(vote(crowd.peers(*said))).go()
    assert run.asks, "exactly, they are three"
    spoken = crowd.peers("Paris.", "lyon", " paris")
    assert (await Run(vote(spoken, same=normalised)).go()).result.output == "Paris."


async def test_malformed_answers_are_discarded_before_the_vote_and_counted(crowd: Crowd) -> None:
    peers = crowd.peers("bad", "y", "z", "bad", "y")
    run = await Run(vote(peers, check=lambda answer: ["bad!"] if answer == "bad" else [])).go()
    assert run.result.output == "y"
    assert run.result.confidence == pytest.approx(2 / 3)
    last = (await told(run, "tally"))[-1].data
    assert (last["red_flagged"], last["votes"], last["failed"]) == (2, 3, 0)


async def test_a_check_that_raises_finds_a_flaw(crowd: Crowd) -> None:
    run = await Run(vote(crowd.peers("x", {"n": 1}), check=lambda answer: answer["n"] and [])).go()  # type: ignore[index,call-overload]
    assert run.result.output == {"n": 1}
    assert (await told(run, "tally"))[-1].data["red_flagged"] == 1


async def test_an_answer_that_cannot_be_compared_is_malformed(crowd: Crowd) -> None:
    run = await Run(vote(crowd.peers("prose", {"n": 1}, {"n": 1}), same=by_key("n"))).go()
    assert run.result.output == {"n": 1}
    (flagged,) = [e for e in await told(run, "vote") if e.data["red_flagged"]]
    assert flagged.agent == "p0"
    assert "has no fields" in flagged.why


async def test_a_malformed_answer_may_be_given_again_and_still_counts_as_one(crowd: Crowd) -> None:
    peers = crowd.peers(("prose", {"n": 2}), {"n": 1}, {"n": 2})
    run = await Run(vote(peers, same=by_key("n"), policy=change(attempts=2))).go()
    assert run.result.output == {"n": 2}
    assert (await told(run, "tally"))[-1].data["red_flagged"] == 1


# ── peers that fail, or turn to a person ──


async def test_a_peer_that_fails_costs_the_others_nothing(crowd: Crowd, everywhere: Saver) -> None:
    peers = crowd.peers("x", ValueError("no"), "y", "x", ValueError("no"))
    run = await Run(vote(peers), everywhere).go()
    assert (run.result.status, run.result.output) == ("done", "x")
    assert (await told(run, "tally"))[-1].data["failed"] == 2
    assert len(crowd.asked) == 5


async def test_where_nobody_answers_the_result_says_why(crowd: Crowd, everywhere: Saver) -> None:
    peers = crowd.peers(ValueError("deaf"), ValueError("blind"))
    result = (await Run(vote(peers), everywhere).go()).result
    assert (result.status, result.output) == ("failed", None)
    assert result.failure is not None
    assert "deaf" in result.failure.message
    assert "blind" in result.failure.message


async def test_where_nobody_answers_a_person_may_be_asked(crowd: Crowd) -> None:
    peers = crowd.peers((ValueError("deaf"), "heard"), ValueError("blind"))
    run = await Run(vote(peers, policy=change(on_failure="ask")), InMemorySaver()).go()
    assert "nobody gave an answer" in run.asks["task"].value.reason
    assert (await run.answer(decision="respond", value="louder")).result.output == "heard"


async def test_a_person_is_not_asked_for_a_vote_that_changes_nothing(
    crowd: Crowd, saver: Saver
) -> None:
    run = await Run(vote(crowd.peers("x", ASK, "x", "y", "x")), saver).go()
    assert run.result.output == "x"
    assert len(crowd.asked) == 5


@pytest.mark.parametrize(
    ("decision", "more", "output"),
    [("approve", {}, "x"), ("edit", {"value": "y"}, "y"), ("respond", {"value": "sure?"}, "y")],
)
async def test_a_peer_that_turns_to_a_person_parks_only_itself(
    crowd: Crowd, everywhere: Saver, decision: Choice, more: dict[str, Any], output: str
) -> None:
    run = await Run(vote(crowd.peers((ASK, "y"), "x", "y", "y", "x")), everywhere).go()
    assert set(run.asks) == {"p0/1"}
    assert len(crowd.asked) == 5, "all others have voted"
    await run.answer(decision=decision, **more)
    assert run.result.output == output
    assert len(crowd.asked) == (6 if decision == "respond" else 5)
    if decision == "respond":
        assert crowd.heard[-1][1].feedback == ("ann says: sure?",)
    assert run.result.usage.calls == len(crowd.asked)


async def test_a_vote_a_person_refuses_is_none(crowd: Crowd, saver: Saver) -> None:
    run = await Run(vote(crowd.peers(ASK, "x", "y")), saver).go()
    await run.answer("p0/1", decision="reject", reason="no")
    assert "2 answers are even" in run.asks["task"].value.reason


async def test_all_peers_may_turn_to_people(crowd: Crowd, saver: Saver) -> None:
    run = await Run(vote(crowd.peers(ASK, ASK, ASK)), saver).go()
    assert set(run.asks) == {"p0/1", "p1/2"}, "two that agree are enough"
    await run.answer("p0/1")
    await run.answer("p1/2", decision="edit", value="y")
    assert set(run.asks) == {"p2/3"}
    assert (await run.answer()).result.output == "x"


async def test_refused_by_all_it_is_refused(crowd: Crowd) -> None:
    run = await Run(vote(crowd.peers(ASK)), InMemorySaver()).go()
    assert (await run.answer(decision="reject", reason="no")).result.status == "refused"


async def test_an_unsure_peer_is_asked_about_like_any_agent(crowd: Crowd) -> None:
    peers = crowd.peers(Reply(output="x", confidence=0.2), "y")
    run = await Run(vote(peers, policy=change(min_confidence=0.4)), InMemorySaver()).go()
    assert set(run.asks) == {"p0/1"}


async def test_too_little_agreement_is_shown_to_a_person(crowd: Crowd, saver: Saver) -> None:
    peers = crowd.peers("x", "y", "x", "z")
    run = await Run(vote(peers, policy=change(min_confidence=0.6)), saver).go()
    shown = run.asks["task"].value
    assert (shown.evidence, shown.about) == ("x", "result")
    assert "50%" in shown.question
    result = (await run.answer()).result
    assert (result.status, result.output, result.confidence) == ("done", "x", 0.5)


async def test_a_vote_the_budget_ends_is_no_vote_that_was_won(crowd: Crowd, saver: Saver) -> None:
    policy = change(budget=Budget(calls=4))
    run = await Run(vote(crowd.peers("x", "y"), AheadBy(k=3), policy=policy), saver).go()
    assert (len(crowd.asked), run.result.status) == (4, "partial")
    assert run.result.output == [{"answer": "x", "score": 2.0}, {"answer": "y", "score": 2.0}]
    assert run.result.failure is not None
    assert run.result.failure.wanted == Usage(calls=len(run.result.missing))


async def test_a_person_adds_to_the_budget_of_a_vote(crowd: Crowd, saver: Saver) -> None:
    policy = change(budget=Budget(calls=3), on_budget="ask")
    peers = crowd.peers("x", "y", "x", "y", "y")
    run = await Run(vote(peers, policy=policy), saver).go()
    assert run.asks["task"].value.about == "budget"
    await run.answer()
    assert (run.result.status, run.result.output, len(crowd.asked)) == ("done", "y", 5)


async def test_a_winner_that_absent_votes_could_change_is_partial(
    crowd: Crowd, memory: Saver
) -> None:
    policy = change(budget=Budget(calls=3))
    result = (await Run(vote(crowd.peers(*"xyxyy"), policy=policy), memory).go()).result
    assert (result.status, result.output, len(result.missing)) == ("partial", "x", 2)


# ── ties ──


@pytest.mark.parametrize(
    ("decision", "more", "status", "output"),
    [
        ("edit", {"value": "y"}, "done", "y"),
        ("reject", {"reason": "neither"}, "refused", None),
        ("respond", {"value": "think"}, "done", "z"),
    ],
)
async def test_a_tie_goes_to_a_person_and_to_nobody_else(
    crowd: Crowd,
    everywhere: Saver,
    decision: Choice,
    more: dict[str, Any],
    status: str,
    output: object,
) -> None:
    run = await Run(vote(crowd.peers(("x", "z"), ("y", "z"))), everywhere).go()
    shown = run.asks["task"].value
    assert shown.evidence == [{"answer": "x", "score": 1}, {"answer": "y", "score": 1}]
    assert shown.offers == ("edit", "reject", "respond")
    await run.answer(decision=decision, **more)
    assert (run.result.status, run.result.output) == (status, output)
    if decision == "respond":
        assert crowd.heard[-1][1].feedback == ("ann says: think",)
        assert "debate" not in crowd.heard[-1][0].inputs, "they vote anew, and blind"


async def test_an_answer_that_was_not_offered_asks_again(crowd: Crowd) -> None:
    run = await Run(vote(crowd.peers("x", "y")), InMemorySaver()).go()
    await run.answer(decision="approve")
    assert run.asks, "what should be approved?"


async def test_peers_debate_only_what_the_vote_left_open(crowd: Crowd, saver: Saver) -> None:
    run = await Run(vote(crowd.peers("x", ("y", "x"), "y", "x"), rounds=1), saver).go()
    assert run.result.output == "x"
    blind, seen = crowd.heard[:4], crowd.heard[4:]
    assert all("debate" not in task.inputs for task, _ in blind)
    for task, _ in seen:
        shown: Any = task.inputs["debate"]
        assert sorted(shown, key=repr) == [
            {"answer": "x", "score": 2},
            {"answer": "y", "score": 2},
        ]
    counts = [(e.data["round"], e.what) for e in await told(run, "tally")]
    assert counts.index((0, "tied")) < counts.index((1, "won")), "the first vote is recorded"


async def test_what_the_vote_decided_is_not_debated(crowd: Crowd) -> None:
    await Run(vote(crowd.peers("x", "y", "x"), rounds=3)).go()
    assert len(crowd.asked) == 3


async def test_debates_have_an_end(crowd: Crowd) -> None:
    run = await Run(vote(crowd.peers("x", "y"), rounds=2), InMemorySaver()).go()
    assert len(crowd.asked) == 6
    assert run.asks


# ── a judge ──


def critic(*worse_to_better: str, order: list[str] | None = None) -> FunctionAgent:
    """A judge who knows how good answers are, and notes the order in which it saw them."""

    @agent(name="critic")
    async def judge(task: Task, brief: Brief) -> Preference:
        first, second = (str(brief.results[which].output) for which in ("first", "second"))
        if order is not None:
            order.append(first + second)
        assert [r.agent for r in brief.results.values()] == [None, None], "it is not told whose"
        rank = worse_to_better.index
        return FIRST if rank(first) > rank(second) else SECOND

    return judge


async def test_a_judge_breaks_a_tie_and_sees_each_pair_in_both_orders(
    crowd: Crowd, everywhere: Saver
) -> None:
    order: list[str] = []
    peers = crowd.peers("x", "y", "z", "x", "y", "z", "u")
    run = await Run(vote(peers, judge=critic("x", "z", "y", order=order)), everywhere).go()
    assert run.result.output == "y"
    assert run.result.confidence == pytest.approx(2 / 7)
    assert sorted(order) == ["xy", "xz", "yx", "yz", "zx", "zy"], "u is not among the first"
    assert run.result.usage.calls == 7 + 6
    assert len(await told(run, "verdict")) == 6


async def test_a_judge_is_not_asked_where_the_vote_decides(crowd: Crowd) -> None:
    order: list[str] = []
    await Run(vote(crowd.peers("x", "y", "x"), judge=critic("x", "y", order=order))).go()
    assert order == []


@pytest.mark.parametrize("judge", [FIRST, SECOND, NEITHER, "prose", ValueError("blind")], ids=repr)
async def test_a_judge_that_does_not_choose_the_same_in_both_orders_chooses_nothing(
    crowd: Crowd, saver: Saver, judge: object
) -> None:
    run = await Run(vote(crowd.peers("x", "y"), judge=crowd.peer("critic", judge)), saver).go()
    assert run.asks["task"].value.reason == "2 answers are even"


async def test_a_judge_may_turn_to_a_person(crowd: Crowd, saver: Saver) -> None:
    judge = crowd.peer("critic", ASK)
    run = await Run(vote(crowd.peers("x", "y"), judge=judge), saver).go()
    assert set(run.asks) == {"critic/3", "critic/4"}
    await run.answer("critic/3", decision="edit", value={"better": "second"})
    await run.answer("critic/4", decision="edit", value={"better": "first"})
    assert run.result.output == "y"


async def test_judged_by_pairs_the_best_answer_wins(crowd: Crowd, everywhere: Saver) -> None:
    peers = crowd.peers("x", "y", "x", "z")
    run = await Run(vote(peers, Judged(), judge=critic("x", "y", "z")), everywhere).go()
    assert run.result.output == "z", "however many say x"
    assert (await told(run, "tally"))[-1].data["scores"] == {'"x"': 0, '"y"': 1, '"z"': 2}


async def test_where_all_say_the_same_there_is_nothing_to_judge(crowd: Crowd) -> None:
    order: list[str] = []
    run = await Run(vote(crowd.peers("x", "x"), Judged(), judge=critic("x", order=order))).go()
    assert (run.result.output, run.result.confidence, order) == ("x", 1, [])


async def test_a_judge_that_contradicts_itself_may_be_a_person_s_to_settle(crowd: Crowd) -> None:
    peers, judge = crowd.peers("x", "y"), crowd.peer("critic", FIRST)
    run = await Run(vote(peers, Judged(disagreement="ask"), judge=judge), InMemorySaver()).go()
    assert "changes with the order" in run.asks["task"].value.reason


async def test_answers_too_many_to_compare_are_shown_to_a_person(crowd: Crowd) -> None:
    graph = vote(crowd.peers(*"abcd"), Judged(), judge=critic(*"abcd"), policy=change(max_votes=11))
    run = await Run(graph, InMemorySaver()).go()
    assert "4 answers are too many to compare" in run.asks["task"].value.reason


# ── ahead by k ──


async def test_peers_are_asked_anew_until_an_answer_is_ahead_by_k(
    crowd: Crowd, everywhere: Saver
) -> None:
    peers = crowd.peers(("x", "y", "x"), ("y", "x"))
    run = await Run(vote(peers, AheadBy(k=3)), everywhere).go()
    assert run.result.output == "x"
    assert sorted(crowd.asked) == ["p0/1", "p0/3", "p0/5", "p0/7", "p1/2", "p1/4", "p1/6"]


async def test_a_single_peer_may_be_asked_as_often_as_it_takes(crowd: Crowd) -> None:
    result = (await Run(vote([crowd.peer("solo", "x", "y", "x")], AheadBy(k=3))).go()).result
    assert (result.output, len(crowd.asked)) == ("x", 5)
    assert result.confidence == 0.8


async def test_asking_anew_has_a_limit(crowd: Crowd, saver: Saver) -> None:
    run = await Run(vote(crowd.peers("x", "y"), AheadBy(k=2, votes=7)), saver).go()
    assert len(crowd.asked) == 7
    assert "2 answers are even" in run.asks["task"].value.reason
    other = Run(vote(crowd.peers("x"), AheadBy(k=9), policy=change(max_votes=5)), InMemorySaver())
    assert "no answer got far enough ahead" in (await other.go()).asks["task"].value.reason


async def test_who_failed_is_not_asked_anew_and_who_was_malformed_is(crowd: Crowd) -> None:
    peers = crowd.peers(ValueError("no"), (7, "x"), "x")
    check = lambda answer: ["no text"] if answer == 7 else []  # noqa: E731
    run = await Run(vote(peers, AheadBy(k=4), check=check)).go()
    assert run.result.output == "x"
    assert [slot.split("/")[0] for slot in crowd.asked].count("p0") == 2, "twice in the first wave"
    assert (await told(run, "tally"))[-1].data["red_flagged"] == 1


# ── log-odds ──


async def test_the_heaviest_are_asked_first_and_may_be_enough(crowd: Crowd) -> None:
    rule = LogOdds(accuracy={"p0": 0.6, "p1": 0.8, "p2": 0.6, "p3": 0.7})
    result = (await Run(vote(crowd.peers("y", "x", "y", "x"), rule)).go()).result
    assert (result.output, crowd.asked) == ("x", ["p1/1", "p3/2"])
    assert result.confidence == pytest.approx(1 / (1 + (0.2 / 0.8) * (0.3 / 0.7)))


# ── rankings ──


@pytest.mark.parametrize("rule", [Borda(), Copeland(), Kemeny()], ids=repr)
async def test_peers_rank_the_options_the_task_names(
    crowd: Crowd, everywhere: Saver, rule: Rule
) -> None:
    peers = crowd.peers(list("xyz"), list("xzy"), list("yzx"), ["x"])
    run = Run(vote(peers, rule), everywhere)
    run.task = Task(goal="choose", inputs={"options": ["x", "y", "z"]})
    result = (await run.go()).result
    assert (result.status, result.output) == ("done", "x")
    assert (await told(run, "tally"))[-1].data["red_flagged"] == 1, "the last ranked only one"
    seen = {tuple(task.inputs["options"]) for task, _ in crowd.heard}  # type: ignore[arg-type]
    assert len(seen) > 1, "each sees them in an order of its own"


async def test_without_options_peers_propose_and_then_rank_the_proposals(
    crowd: Crowd, everywhere: Saver
) -> None:
    def best(task: Task) -> object:
        options: Any = task.inputs["options"]
        return sorted(options, key=lambda letter: options[letter], reverse=True)

    run = await Run(
        vote(crowd.peers(("u", best), ("v", best), ("u", best)), Borda()), everywhere
    ).go()
    assert (run.result.output, len(crowd.asked)) == ("v", 6)
    assert all(task.inputs["options"] == {"A": "u", "B": "v"} for task, _ in crowd.heard[3:])


async def test_one_proposal_needs_no_ranking(crowd: Crowd) -> None:
    assert (await Run(vote(crowd.peers("u", "u"), Kemeny())).go()).result.output == "u"
    assert len(crowd.asked) == 2


async def test_a_judge_breaks_a_tie_of_rankings(crowd: Crowd) -> None:
    run = Run(vote(crowd.peers(["x", "y"], ["y", "x"]), Copeland(), judge=critic("x", "y")))
    run.task = Task(goal="choose", inputs={"options": ["x", "y"]})
    assert (await run.go()).result.output == "y"


async def test_kemeny_with_too_many_options_is_a_person_s_and_says_so(crowd: Crowd) -> None:
    run = Run(vote(crowd.peers(list("abcdefghi")), Kemeny()), InMemorySaver())
    run.task = Task(goal="choose", inputs={"options": list("abcdefghi")})
    await run.go()
    assert "exact up to 8 options, and there are 9" in run.asks["task"].value.reason


# ── building ──


@pytest.mark.parametrize(
    ("built", "said"),
    [
        (lambda c: vote([]), "no agent"),
        (lambda c: vote(c.peers("x"), Judged()), "no judge"),
        (lambda c: vote(c.peers("x"), LogOdds(accuracy={"p1": 0.9})), "none of .'p0'"),
        (lambda c: vote(c.peers("x"), rounds=-1), "-1 rounds"),
        (lambda c: vote([c.peer("tally", "x")]), "can't be called 'tally'"),
        (lambda c: vote(c.peers("x"), judge="me"), "is no agent"),
    ],
)
def test_what_cannot_work_is_said_when_it_is_built(
    crowd: Crowd, built: Callable[[Crowd], object], said: str
) -> None:
    with pytest.raises(Misbuilt, match=said):
        built(crowd)
