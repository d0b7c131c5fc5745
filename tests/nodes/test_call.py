"""The one door to agents: whatever an agent does, `call` gives back a result."""

import asyncio
import itertools
import sys
import threading
from typing import Any

import pytest
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from pydantic import BaseModel, Field

from kapelle.drills import VirtualClock
from kapelle.nodes.agent import Unusable, Where, agent
from kapelle.nodes.call import call
from kapelle.nodes.failing import MESSAGE
from kapelle.nodes.here import Here
from kapelle.nodes.patience import GRACE, OutOfTime, within
from kapelle.nodes.turns import Turns
from kapelle.state.approval import Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.context import Claim
from kapelle.state.event import Event
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Failure, Reply, Result, Task
from tests.nodes.conftest import Calls

HOUR = 3600.0

ONCE = Policy(attempts=1)


class Report(BaseModel):
    """A report."""

    title: str = Field(min_length=1)
    pages: int = 1


# ── what an agent may give back ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        (None, None),
        ("text", "text"),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (Report(title="Night"), {"title": "Night", "pages": 1}),
        ([Report(title="Night")], [{"title": "Night", "pages": 1}]),
        ("\x00 \U0001f600", "\x00 \U0001f600"),
    ],
)
def test_anything_json_able_is_kept_as_plain_json(
    called: Calls, output: object, kept: object
) -> None:
    @agent
    async def worker(task: Task) -> object:
        return output

    result = called(worker)
    assert (result.status, result.output, result.agent) == ("done", kept, "worker")


def test_a_reply_carries_confidence_usage_and_claims_stamped_by_the_orchestrator(
    called: Calls,
) -> None:
    @agent
    async def worker(task: Task) -> Reply:
        forged = Claim(key="db", value="SQLite", by="the manager", task="another")
        usage = Usage(input_tokens=7, output_tokens=5, calls=2)
        return Reply(output=1, confidence=0.5, usage=usage, claims=(forged,))

    result = called(worker)
    assert (result.output, result.confidence) == (1, 0.5)
    assert result.usage == Usage(input_tokens=7, output_tokens=5, calls=2)
    (claim,) = result.claims
    assert (claim.by, claim.task) == ("worker", "a")


def test_an_escalation_waits_and_is_stamped_by_the_orchestrator(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> Escalation:
        return Escalation(question="Pay?", evidence=3, about="plan", by="the manager", task="b")

    result = called(worker)
    assert (result.status, result.output) == ("waiting", 3)
    assert result.escalation is not None
    stamped = result.escalation
    assert (stamped.about, stamped.by, stamped.task) == ("task", "worker", "a")


def test_an_output_is_conformed_to_the_card_s_schema(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task) -> dict[str, str]:
        return {"title": "Night"}

    assert called(worker).read(Report) == Report(title="Night", pages=1)


def test_a_proposal_for_a_person_need_not_have_the_schema(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task) -> Escalation:
        return Escalation(question="Which title?", evidence=["Night", "Day"])

    assert called(worker).status == "waiting"


def test_a_result_of_an_agent_s_own_is_its_own_with_task_and_agent_stamped(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> Result:
        return Result(task="another", agent="manager", status="partial", output=1, missing=("x",))

    result = called(worker)
    assert (result.task, result.agent) == ("a", "worker")
    assert (result.status, result.output, result.missing) == ("partial", 1, ("x",))


def test_a_result_of_an_agent_s_own_is_held_to_the_schema(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task) -> Result:
        return Result(task="a", status="done", output="prose")

    result = called(worker, ONCE)
    assert result.failure is not None
    assert result.failure.kind == "invalid"


def test_a_result_of_an_agent_s_own_counts_as_a_call(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> Result:
        return Result(task="a", status="done", usage=Usage(input_tokens=9))

    assert called(worker).usage == Usage(input_tokens=9, calls=1)


def test_who_waits_for_a_person_must_say_what_for(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> Result:
        return Result(task="a", status="waiting")

    result = called(worker, ONCE)
    assert result.status == "failed"
    assert result.failure is not None
    assert "does not say what for" in result.failure.message


# ── what an agent may do instead ──────────────────────────────────────────────────────────────


def failing(called: Calls, raises: BaseException, policy: Policy = ONCE) -> Failure:
    """The failure that comes of raising."""

    @agent
    async def worker(task: Task) -> None:
        raise raises

    result = called(worker, policy)
    assert result.status == "failed"
    assert result.output is None
    assert result.failure is not None
    return result.failure


class Mute(Exception):
    """An error that can't even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("raises", "message"),
    [
        (ValueError("no such table"), "worker raised ValueError: no such table"),
        (TimeoutError("connect"), "worker raised TimeoutError: connect"),
        (StopAsyncIteration(), "worker raised StopAsyncIteration: "),
        (ExceptionGroup("two", [ValueError("a")]), "worker raised ExceptionGroup: two (1 sub"),
        (asyncio.CancelledError(), "worker raised RuntimeError: it was cancelled from within"),
        (SystemExit(3), "worker raised RuntimeError: it called exit(3)"),
        (Mute(), "worker raised Mute: (its message can't be read)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_agent_raises_is_a_failure(
    called: Calls, raises: BaseException, message: str
) -> None:
    failure = failing(called, raises)
    assert failure.kind == "raised"
    assert failure.message.startswith(message)
    assert failure.agent == "worker"


def test_a_failure_s_message_can_be_stored(called: Calls) -> None:
    failure = failing(called, ValueError("half a pair: \ud800"))
    assert failure.model_dump_json()
    assert failure.message.endswith("half a pair: ?")


def test_a_failure_s_message_is_no_longer_than_a_page(called: Calls) -> None:
    failure = failing(called, ValueError("x" * 10_000_000))
    assert len(failure.message) < MESSAGE + 100
    assert failure.message.endswith("… (10000026 characters)")


def test_a_sync_agent_that_exits_ends_nothing_but_its_try(called: Calls) -> None:
    @agent
    def worker(task: Task) -> None:
        sys.exit("no license")

    result = called(worker, ONCE)
    assert result.failure is not None
    assert result.failure.message == "worker raised RuntimeError: it called exit('no license')"


class Unwritable:
    """Nothing JSON knows."""


def test_what_is_no_json_is_invalid(called: Calls) -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    endless: list[Any] = []
    endless.append(endless)
    for output in (Unwritable(), {"a": Unwritable()}, nested, endless, "\ud800", {1, "\ud800"}):

        @agent
        async def worker(task: Task, output: object = output) -> object:
            return output

        result = called(worker, ONCE)
        assert result.failure is not None
        assert result.failure.kind == "invalid"
        assert "can't be written as JSON" in result.failure.message


def test_claims_and_escalations_must_be_json_as_well(called: Calls) -> None:
    @agent
    async def claims(task: Task) -> Reply:
        return Reply(output=1, claims=(Claim(key="k", value="\ud800"),))

    @agent
    async def escalates(task: Task) -> Escalation:
        return Escalation(question="\ud800?")

    for worker in (claims, escalates):
        failure = called(worker, ONCE).failure
        assert failure is not None
        assert failure.kind == "invalid"


def test_what_is_too_large_names_both_sizes_and_is_not_tried_again(called: Calls) -> None:
    tries = 0

    @agent
    async def worker(task: Task) -> str:
        nonlocal tries
        tries += 1
        return "x" * 99

    result = called(worker, Policy(max_bytes=100))
    assert result.failure is not None
    assert result.failure.kind == "too_large"
    assert result.failure.message == "the output has 101 bytes; the limit is 100"
    assert tries == 1
    assert called(worker, Policy(max_bytes=101)).status == "done"


def test_the_wrong_shape_is_named_field_by_field(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task) -> dict[str, object]:
        return {"title": "", "pages": "many"}

    failure = called(worker, ONCE).failure
    assert failure is not None
    assert failure.kind == "invalid"
    assert failure.message.startswith("the output is no Report: title: ")
    assert "pages: " in failure.message


def test_prose_instead_of_a_model_is_the_wrong_shape(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task) -> str:
        return "Here is your report!"

    failure = called(worker, ONCE).failure
    assert failure is not None
    assert "the whole: " in failure.message


def test_the_caller_s_own_check_is_one_more_shape(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> int:
        return 3

    assert called(worker, check=lambda output: []).status == "done"
    failure = called(worker, ONCE, check=lambda output: [f"{output} is odd", "too small"]).failure
    assert failure is not None
    assert failure.message == "3 is odd; too small"


def test_an_agent_whose_estimate_fails_is_not_called(called: Calls) -> None:
    class Broken:
        card = AgentCard(name="broken")
        where: Where = "loop"

        def estimate(self, task: Task, brief: Brief) -> Usage:
            raise KeyError("price")

        async def act(self, task: Task, brief: Brief) -> object:
            raise AssertionError("it was called")

    failure = called(Broken()).failure
    assert failure is not None
    assert failure.message == "broken raised KeyError: 'price'"


def test_control_flow_of_a_nested_graph_goes_through(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise GraphInterrupt

    with pytest.raises(GraphBubbleUp):
        called(worker)


def test_a_cancelled_run_is_cancelled_and_takes_its_agent_with_it(
    clock: VirtualClock, here: Here
) -> None:
    stopped: list[str] = []

    @agent
    async def worker(task: Task) -> None:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            stopped.append("agent")
            raise

    async def main() -> None:
        work = call(worker, Task(goal="work"), Brief(), here=here, policy=Policy(timeout=9 * HOUR))
        doing = asyncio.create_task(work)
        await asyncio.sleep(1)
        doing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing
        await asyncio.sleep(0)

    clock.run(main())
    assert stopped == ["agent"]


# ── time ──────────────────────────────────────────────────────────────────────────────────────


def test_an_async_agent_that_never_returns_times_out(called: Calls, clock: VirtualClock) -> None:
    @agent
    async def worker(task: Task) -> None:
        await asyncio.Event().wait()

    result = called(worker, Policy(attempts=1, timeout=HOUR))
    assert result.failure == Failure(
        kind="timeout", message="worker gave no answer within 3600 s", agent="worker"
    )
    assert clock.passed == HOUR


def test_a_sync_agent_that_never_returns_times_out(called: Calls) -> None:
    let_go = threading.Event()

    @agent
    def worker(task: Task) -> None:
        let_go.wait()

    try:
        result = called(worker, Policy(attempts=1, timeout=0.05))
    finally:
        let_go.set()
    assert result.failure is not None
    assert result.failure.kind == "timeout"


def test_an_agent_that_swallows_its_cancellation_is_left_behind(
    called: Calls, clock: VirtualClock
) -> None:
    @agent
    async def worker(task: Task) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(9 * HOUR)
            except asyncio.CancelledError:
                continue

    result = called(worker, Policy(attempts=1, timeout=HOUR))
    assert result.failure is not None
    assert result.failure.kind == "timeout"
    assert result.attempts[0].seconds == HOUR + GRACE


def test_an_agent_that_answers_its_cancellation_is_too_late(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> str:
        try:
            await asyncio.sleep(9 * HOUR)
        except asyncio.CancelledError:
            return "just in time"
        return "never"

    assert called(worker, Policy(attempts=1, timeout=HOUR)).status == "failed"


def test_an_agent_s_own_timeout_is_not_the_policy_s(called: Calls) -> None:
    failure = failing(called, TimeoutError("the database did not answer"))
    assert failure.kind == "raised"
    assert "the database did not answer" in failure.message


def test_within_gives_what_was_done_in_time(clock: VirtualClock) -> None:
    async def work(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert clock.run(within(HOUR, work(HOUR - 1))) == HOUR - 1
    with pytest.raises(OutOfTime):
        clock.run(within(HOUR, work(HOUR + 1)))


def test_waiting_for_a_turn_is_outside_the_timeout(clock: VirtualClock, here: Here) -> None:
    limit = Turns(1)

    @agent
    async def worker(task: Task) -> float:
        await asyncio.sleep(HOUR - 1)
        return clock.now()

    async def main() -> list[Result]:
        return await asyncio.gather(
            *(
                call(worker, Task(id=str(n), goal="work"), Brief(), here=here,
                     policy=Policy(timeout=HOUR, attempts=1), limit=limit)
                for n in range(3)
            )
        )  # fmt: skip

    assert [result.status for result in clock.run(main())] == ["done"] * 3
    assert clock.passed == 3 * (HOUR - 1)


# ── another try ───────────────────────────────────────────────────────────────────────────────


def test_each_try_is_told_what_was_wrong_with_those_before(called: Calls) -> None:
    briefs: list[Brief] = []

    @agent(output=Report)
    async def worker(task: Task, brief: Brief) -> dict[str, str]:
        briefs.append(brief)
        return [{}, {"title": ""}, {"title": "Night"}][brief.attempt - 1]

    result = called(worker, brief=Brief(feedback=("say more",)))
    assert result.status == "done"
    assert [brief.attempt for brief in briefs] == [1, 2, 3]
    assert briefs[0].feedback == ("say more",)
    assert briefs[1].feedback == ("say more", "the output is no Report: title: Field required")
    assert len(briefs[2].feedback) == 3
    assert "at least 1 character" in briefs[2].feedback[2]


def test_an_answer_that_can_t_be_used_is_tried_again_and_paid_for(called: Calls) -> None:
    @agent
    async def worker(task: Task, brief: Brief) -> Reply:
        if brief.attempt == 1:
            raise Unusable("no JSON in it", Usage(input_tokens=5))
        return Reply(output=brief.feedback[0], usage=Usage(input_tokens=7))

    result = called(worker)
    assert result.output == "no JSON in it"
    assert result.usage == Usage(input_tokens=12, calls=2)


def test_a_failure_of_the_world_is_tried_again_without_blaming_the_agent(called: Calls) -> None:
    @agent
    async def worker(task: Task, brief: Brief) -> list[str]:
        if brief.attempt < 3:
            raise ConnectionError("reset by peer")
        return list(brief.feedback)

    result = called(worker)
    assert (result.status, result.output) == ("done", [])
    assert [a.failure and a.failure.kind for a in result.attempts] == ["raised", "raised", None]


@pytest.mark.parametrize("bug", [TypeError, AttributeError, NameError, ImportError])
def test_a_bug_is_not_tried_again(called: Calls, bug: type[Exception]) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise bug("typo")

    assert len(called(worker).attempts) == 1


class HttpError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("status", "tries"),
    [(400, 1), (401, 1), (404, 1), (422, 1), (408, 3), (409, 3), (429, 3), (500, 3), (503, 3)],
)
def test_what_a_provider_rejects_is_not_tried_again_what_it_could_not_do_is(
    called: Calls, status: int, tries: int
) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise HttpError(status)

    assert len(called(worker).attempts) == tries


def test_pauses_grow_and_stay_below_their_bounds(called: Calls, clock: VirtualClock) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise ConnectionError

    result = called(worker, Policy(attempts=5, backoff=60, backoff_cap=300))
    starts = [attempt.started for attempt in result.attempts]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(0 <= p <= most for p, most in zip(pauses, [60, 120, 240, 300], strict=True))
    assert clock.passed == sum(pauses), "no pause after the last try"
    assert sum(pauses) > 0


def test_pauses_are_drawn_from_the_seed(here: Here) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise ConnectionError

    def pause(seed: int) -> float:
        clock = VirtualClock()
        place = Here(services=here.services, thread="t", place="", step="s", write=print)
        services = {**vars(place.services), "clock": clock}
        place = Here(services=type(place.services)(**services), thread="t", place="", step="s",
                     write=lambda event: None)  # fmt: skip
        policy = Policy(seed=seed, attempts=2)
        clock.run(call(worker, Task(goal="work"), Brief(), here=place, policy=policy))
        return clock.passed

    assert pause(1) == pause(1) != pause(2)


def test_a_graph_is_tried_once_in_one_node(called: Calls) -> None:
    class Graph:
        card = AgentCard(name="inner")
        where: Where = "graph"

        def estimate(self, task: Task, brief: Brief) -> Usage:
            return Usage()

        async def act(self, task: Task, brief: Brief) -> object:
            raise ConnectionError("reset")

    result = called(Graph())
    assert len(result.attempts) == 1
    assert result.usage == Usage(), "its agents keep their own books"


# ── budget ────────────────────────────────────────────────────────────────────────────────────


def test_usage_is_summed_over_all_attempts_failed_ones_too(called: Calls) -> None:
    @agent(output=Report)
    async def worker(task: Task, brief: Brief) -> Reply:
        good = brief.attempt == 3
        return Reply(output={"title": "x"} if good else {}, usage=Usage(output_tokens=10))

    result = called(worker)
    assert result.usage == Usage(output_tokens=30, calls=3)
    assert [a.usage.output_tokens for a in result.attempts] == [10, 10, 10]
    assert [a.number for a in result.attempts] == [1, 2, 3]


def test_a_call_the_budget_has_no_room_for_is_refused_before_it_is_made(called: Calls) -> None:
    calls = 0

    @agent
    async def worker(task: Task) -> None:
        nonlocal calls
        calls += 1

    result = called(worker, Policy(budget=Budget(calls=0)))
    assert (result.status, calls) == ("failed", 0)
    assert result.failure is not None
    assert result.failure.kind == "budget"
    assert result.usage == Usage()


def test_retries_stop_where_the_budget_ends(called: Calls) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise ConnectionError

    result = called(worker, Policy(attempts=9, budget=Budget(calls=2)))
    assert result.usage.calls == 2
    assert result.failure is not None
    assert result.failure.kind == "budget"


class Metered:
    """Reserves a hundred tokens, uses what it says."""

    card = AgentCard(name="metered")
    where: Where = "loop"

    def __init__(self, uses: int) -> None:
        self.uses = uses

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """More than it may use."""
        return Usage(output_tokens=100, calls=1)

    async def act(self, task: Task, brief: Brief) -> object:
        """Take a second."""
        await asyncio.sleep(1)
        return Reply(output=1, usage=Usage(output_tokens=self.uses))


def test_what_was_reserved_and_not_used_is_free_again(called: Calls) -> None:
    policy = Policy(attempts=1, budget=Budget(tokens=150))
    assert called(Metered(uses=50), policy).status == "done"


def test_a_limit_is_a_limit_for_all_at_once(clock: VirtualClock, here: Here) -> None:
    policy = Policy(attempts=1, budget=Budget(tokens=450))

    async def main() -> list[Result]:
        work = (
            call(Metered(uses=100), Task(id=str(n), goal="x"), Brief(), here=here, policy=policy)
            for n in range(20)
        )
        return await asyncio.gather(*work)

    done = [result.status for result in clock.run(main())]
    assert (done.count("done"), done.count("failed")) == (4, 16)


def test_an_agent_called_again_after_a_crash_is_paid_again(
    called: Calls, clock: VirtualClock, here: Here
) -> None:
    policy = Policy(attempts=1, budget=Budget(calls=2))

    @agent
    async def worker(task: Task) -> int:
        return 1

    done = [called(worker, policy).status for _ in range(3)]
    assert done == ["done", "done", "failed"], "the same step, task and attempt"
    assert clock.run(here.services.ledger.spent("t1")) == Usage(calls=2)


def test_an_interrupt_of_an_agent_s_own_costs_nothing(
    called: Calls, clock: VirtualClock, here: Here
) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise GraphInterrupt

    with pytest.raises(GraphBubbleUp):
        called(worker, Policy(budget=Budget(calls=1)))
    assert clock.run(here.services.ledger.spent("t1")) == Usage()


# ── what is told ──────────────────────────────────────────────────────────────────────────────


def test_each_attempt_is_told_once_with_what_it_used(called: Calls, told: list[Event]) -> None:
    @agent
    async def worker(task: Task, brief: Brief) -> Reply:
        if brief.attempt == 1:
            raise ConnectionError("reset")
        return Reply(output=1, usage=Usage(output_tokens=3))

    called(worker)
    attempts = [e for e in told if e.kind == "attempt"]
    assert [(e.what, e.task, e.agent) for e in attempts] == [
        ("raised", "a", "worker"),
        ("done", "a", "worker"),
    ]
    assert attempts[0].why == "worker raised ConnectionError: reset"
    assert len({e.key for e in told}) == len(told)
    (spend,) = [e for e in told if e.kind == "spend"]
    assert spend.usage == Usage(output_tokens=3, calls=1)


def test_a_refusal_by_the_budget_is_told(called: Calls, told: list[Event]) -> None:
    @agent
    async def worker(task: Task) -> None:
        return

    called(worker, Policy(budget=Budget(calls=0)))
    assert [(e.kind, e.what) for e in told] == [("attempt", "budget")]


# ── what a provider asks for ──────────────────────────────────────────────────────────────────


class Limited(HttpError):
    """A 429 that says how long to wait."""

    def __init__(self, after: str) -> None:
        super().__init__(429)
        self.response = type("Response", (), {"headers": {"retry-after": after}})


@pytest.mark.parametrize(
    ("after", "pause"),
    [
        ("20", 20),
        ("3600", 60),
        ("-5", 0),
        ("Thu, 01 Jan 1970 00:17:00 GMT", 20),
        ("soon", 0),
        ("nan", 0),
        ("", 0),
    ],
)
def test_the_pause_a_provider_asks_for_is_kept_up_to_a_minute(
    called: Calls, clock: VirtualClock, after: str, pause: int
) -> None:
    @agent
    async def worker(task: Task) -> None:
        raise Limited(after)

    called(worker, Policy(attempts=2, backoff=0))
    assert clock.passed == pause


# ── late, deep, large, nested ─────────────────────────────────────────────────────────────────


def test_the_late_answer_of_a_thread_is_ignored_and_counted(
    called: Calls, told: list[Event], here: Here
) -> None:
    let_go = threading.Event()

    @agent
    def worker(task: Task) -> str:
        let_go.wait(60)
        return "late"

    async def main() -> Result:
        policy = Policy(attempts=1, timeout=0.05)
        result = await call(worker, Task(id="a", goal="x"), Brief(), here=here, policy=policy)
        let_go.set()
        async with asyncio.timeout(60):
            while not [e for e in told if e.what == "late"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return result

    result = asyncio.run(main())
    assert (result.status, result.output) == ("failed", None)
    assert [(e.kind, e.what) for e in told if e.what == "late"] == [("attempt", "late")]


def test_an_answer_to_a_cancellation_is_late_too(
    called: Calls, told: list[Event], clock: VirtualClock
) -> None:
    @agent
    async def worker(task: Task) -> str:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    called(worker, Policy(attempts=1, timeout=1))
    assert [e.what for e in told if e.kind == "attempt"] == ["timeout", "late"]


def test_all_tries_of_a_task_together_have_a_timeout(called: Calls, clock: VirtualClock) -> None:
    @agent
    async def worker(task: Task) -> None:
        await asyncio.sleep(40)
        raise ConnectionError

    result = called(worker, Policy(attempts=9, timeout=60, task_timeout=100, backoff=0))
    kinds = [attempt.failure and attempt.failure.kind for attempt in result.attempts]
    assert kinds == ["raised", "raised", "timeout"]
    assert clock.passed == 100


def test_what_is_nested_too_deep_is_refused_coming_in_and_going_out(
    called: Calls, clock: VirtualClock, here: Here
) -> None:
    deep: Any = 1
    for _ in range(6):
        deep = [deep]

    @agent
    async def worker(task: Task) -> object:
        return deep

    policy = Policy(max_depth=5)
    out = called(worker, policy).failure
    assert out is not None
    assert (out.kind, out.message) == ("too_large", "the output is nested deeper than 5 levels")
    given = Task(id="a", goal="x", inputs={"deep": deep})
    result = clock.run(call(worker, given, Brief(), here=here, policy=policy))
    assert result.failure is not None
    assert "the input is nested deeper" in result.failure.message
    assert called(worker, Policy(max_depth=6)).status == "done"


def test_what_is_too_large_to_be_given_is_refused_before_the_call(
    clock: VirtualClock, here: Here
) -> None:
    @agent
    async def worker(task: Task) -> object:
        raise AssertionError("it was called")

    given = Task(id="a", goal="x", inputs={"text": "x" * 200})
    result = clock.run(call(worker, given, Brief(), here=here, policy=Policy(max_input_bytes=99)))
    assert result.failure is not None
    assert result.failure.kind == "too_large"
    assert result.usage == Usage()
