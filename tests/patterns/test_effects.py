"""What has consequences happens once: through retries, failures, answers and other agents."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kapelle.checkpoints import Database
from kapelle.graphs import manager_worker, pipeline
from kapelle.nodes.agent import Agent, agent, as_agent
from kapelle.nodes.effect import NotDone, Unsure, effect
from kapelle.state.errors import Misbuilt
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Task
from tests.patterns.conftest import Saver
from tests.patterns.simulated import QUICK, Crew, Run, task

pytestmark = pytest.mark.anyio

TWICE = Policy(timeout=60, backoff=0, attempts=2, agents_per_task=2)


class Post:
    """What was sent; the n-th sending may go wrong."""

    def __init__(self, *wrong: BaseException | None) -> None:
        self.sent: list[str] = []
        self._wrong = list(wrong)

    async def send(self, to: str) -> dict[str, str]:
        """Send a mail."""
        self.sent.append(to)
        wrong = self._wrong.pop(0) if self._wrong else None
        if wrong is not None:
            raise wrong
        return {"receipt": f"#{len(self.sent)}"}

    def send_sync(self, to: str) -> dict[str, str]:
        """Send a mail, from a thread."""
        return asyncio.run(self.send(to))


def clerk(post: Post, *, fails: int = 0, name: str = "clerk") -> Agent:
    """Sends a mail; then fails so many times."""
    tries = 0

    @agent(name=name)
    async def work(task: Task) -> Any:
        nonlocal tries
        tries += 1
        receipt = await effect("mail:42").once(post.send, "ann@example.org")
        if tries <= fails:
            raise RuntimeError("afterwards, something broke")
        return receipt

    return work


def team(crew: Crew, *workers: Agent, policy: Policy = QUICK) -> Any:
    """A team with one part."""
    return manager_worker(plan=crew.planner([task("a")]), workers=workers, policy=policy)


async def test_a_retry_does_not_repeat_it(crew: Crew, saver: Saver) -> None:
    post = Post()
    run = await Run(team(crew, clerk(post, fails=1), policy=TWICE), saver).go()
    assert run.result.output == {"receipt": "#1"}
    assert post.sent == ["ann@example.org"]


async def test_another_agent_does_not_repeat_it(crew: Crew, memory: Saver) -> None:
    post = Post()
    both = clerk(post, fails=9, name="bad"), clerk(post, name="good")
    run = await Run(team(crew, *both, policy=TWICE), memory).go()
    assert run.result.output == {"receipt": "#1"}
    assert len(post.sent) == 1


async def test_siblings_with_one_key_do_it_once(crew: Crew, memory: Saver) -> None:
    post = Post()
    parts = crew.planner([task("a"), task("b"), task("c")])
    run = await Run(manager_worker(plan=parts, workers=[clerk(post)], policy=QUICK), memory).go()
    assert run.result.output == {part: {"receipt": "#1"} for part in "abc"}
    assert len(post.sent) == 1


async def test_sync_agents_do_it_once_as_well(crew: Crew, memory: Saver) -> None:
    post = Post()

    @agent
    def work(task: Task, brief: Brief) -> Any:
        receipt = effect("mail:42").once_sync(post.send_sync, to="ann@example.org")
        if brief.attempt == 1:
            raise RuntimeError("afterwards, something broke")
        return receipt

    run = await Run(team(crew, work, policy=TWICE), memory).go()
    assert run.result.output == {"receipt": "#1"}
    assert len(post.sent) == 1


async def test_what_surely_did_not_happen_is_tried_again(crew: Crew, memory: Saver) -> None:
    post = Post(NotDone("the mail server is closed"), ConnectionRefusedError())
    policy = TWICE.model_copy(update={"attempts": 3})
    run = await Run(team(crew, clerk(post), policy=policy), memory).go()
    assert run.result.output == {"receipt": "#3"}


DOUBTS = [
    ("approve", {}, None, 1),
    ("edit", {"value": {"receipt": "by phone"}}, {"receipt": "by phone"}, 1),
    ("reject", {}, {"receipt": "#2"}, 2),
]


@pytest.mark.parametrize(("decision", "more", "output", "sent"), DOUBTS)
async def test_in_doubt_a_person_is_asked(
    crew: Crew, saver: Saver, decision: Any, more: dict[str, Any], output: object, sent: int
) -> None:
    post = Post(TimeoutError("no answer from the mail server"))
    run = await Run(team(crew, clerk(post), policy=TWICE), saver).go()
    ask = run.asks["a"].value
    assert ask.question == "Did 'mail:42' happen?"
    assert ask.evidence["call"]["args"] == ["ann@example.org"]
    assert "respond" not in ask.offers
    await run.answer(decision=decision, **more)
    assert run.result.output == output
    assert len(post.sent) == sent


async def test_in_doubt_what_is_idempotent_is_done_again_unasked(crew: Crew, memory: Saver) -> None:
    post = Post(TimeoutError("no answer from the mail server"))

    @agent
    async def work(task: Task) -> Any:
        return await effect("mail:42", idempotent=True).once(post.send, "ann")

    run = await Run(team(crew, work, policy=TWICE), memory).go()
    assert run.result.output == {"receipt": "#2"}


async def test_a_doubt_cannot_be_swallowed(crew: Crew, memory: Saver) -> None:
    post = Post(TimeoutError("no answer from the mail server"))

    @agent
    async def careless(task: Task) -> Any:
        for _ in range(2):
            try:
                return await effect("mail:42").once(post.send, "ann")
            except Exception:  # noqa: BLE001, S112
                continue
        return "I could not send it"

    run = await Run(team(crew, careless), memory).go()
    assert list(run.asks) == ["a"]


async def test_a_pipeline_and_a_team_within_ask_in_the_same_way(crew: Crew, saver: Saver) -> None:
    post = Post(TimeoutError("no answer"), None, TimeoutError("no answer"))
    inner = as_agent(team(crew, clerk(post), policy=TWICE), name="inner")
    line = pipeline([clerk(post), inner, crew.worker("last")], policy=TWICE)
    run = await Run(line, saver).go()
    await run.answer(decision="reject")
    assert run.result.status == "done"
    assert len(post.sent) == 2, "the team within meant the same mail"


async def test_two_runs_on_a_thread_are_two(crew: Crew, memory: Saver) -> None:
    post = Post()
    for name in ("one", "two"):
        run = Run(team(crew, clerk(post)), memory)
        run.config["metadata"] = {"run_id": name}
        await run.go()
    assert len(post.sent) == 2


async def test_a_run_tells_of_its_effects(crew: Crew, memory: Saver) -> None:
    run = await Run(team(crew, clerk(Post(), fails=1), policy=TWICE), memory).go()
    told = [(e.what, e.why) for e in await run.events() if e.kind == "effect"]
    assert told == [("begun", "mail:42"), ("done", "mail:42"), ("known", "mail:42")]


async def test_what_can_t_be_called_like_that_is_not_begun(crew: Crew, memory: Saver) -> None:
    @agent
    async def work(task: Task) -> Any:
        wrong: Any = Post().send
        return await effect("mail:42").once(wrong, "ann", "bob")

    run = await Run(team(crew, work), memory).go()
    assert "too many positional arguments" in (run.result.failure or run).message  # type: ignore[union-attr]


async def test_outside_of_a_run_there_are_no_effects() -> None:
    with pytest.raises(Misbuilt, match="outside of a run"):
        await effect("mail:42").once(Post().send, "ann")


async def test_an_effect_outlives_its_database_s_process(crew: Crew, tmp_path: Path) -> None:
    post, seen = Post(TimeoutError("no answer")), []
    for _ in "ab":
        async with Database(str(tmp_path / "runs.db")) as db:
            run = Run(team(crew, clerk(post)), db.saver)
            run.services = db.services()
            await run.go()
            seen += [effect.name for _, effect in await db.effects.in_doubt()]
    assert (seen, len(post.sent)) == (["mail:42", "mail:42"], 1)
    assert issubclass(Unsure, Exception)
