"""The inbox: one answer counts, it is bound to what was shown, and it is in the journal."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.types import Interrupt

from kapelle.checkpoints import Database
from kapelle.state.approval import Approval, Ask, Escalation
from kapelle.state.errors import AlreadyAnswered, NotAllowed, Outdated, UnknownAsk

pytestmark = pytest.mark.anyio

YES = Approval(decision="approve", by="ann")


def config(checkpoint: str = "c1", thread: str = "t1") -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint}}


async def ask(
    database: Database, *values: object, task: str = "task", thread: str = "t1"
) -> list[Ask]:
    interrupts = tuple(Interrupt(value=v, id=f"{i:032x}") for i, v in enumerate(values))
    await database.saver.aput_writes(config(thread=thread), [("__interrupt__", interrupts)], task)
    return await database.inbox.pending(thread)


async def test_a_second_answer_is_refused_with_who_and_when(database: Database) -> None:
    (open_,) = await ask(database, "Pay?")
    first = await database.inbox.claim(open_.id, YES)
    with pytest.raises(AlreadyAnswered) as refusal:
        await database.inbox.claim(open_.id, Approval(decision="reject", by="bob"))
    assert refusal.value.by == "ann"
    assert refusal.value.decision == "approve"
    assert refusal.value.at == first.answered_at
    assert (await database.inbox.get(open_.id)).answer == YES


async def test_of_many_who_answer_at_once_one_wins(url: str) -> None:
    with Database(url) as database:
        (open_,) = await ask(database, "Pay?")

    def answer(number: int) -> str:
        with Database(url) as own:
            try:
                asyncio.run(
                    own.inbox.claim(open_.id, Approval(decision="approve", by=f"p{number}"))
                )
            except AlreadyAnswered as refusal:
                return f"lost to {refusal.by}"
            return f"p{number}"

    with ThreadPoolExecutor(8) as people:
        outcomes = list(people.map(answer, range(8)))
    (winner,) = [o for o in outcomes if not o.startswith("lost")]
    assert sorted(outcomes) == sorted([winner] + [f"lost to {winner}"] * 7)


async def test_an_answer_that_is_not_offered_is_refused(database: Database) -> None:
    (open_,) = await ask(database, Escalation(question="Go on?", offers=("approve", "reject")))
    with pytest.raises(NotAllowed, match="approve, reject"):
        await database.inbox.claim(open_.id, Approval(decision="edit", by="ann"))
    assert [a.id for a in await database.inbox.pending()] == [open_.id]


async def test_an_ask_is_found_by_the_beginning_of_its_id(database: Database) -> None:
    (open_,) = await ask(database, "Pay?")
    assert len(open_.id) == 12
    assert await database.inbox.get(open_.id[:5]) == open_
    for unknown in ("", "zz", "%", "_", open_.id[:-1] + "g", "' OR 1=1 --"):
        with pytest.raises(UnknownAsk):
            await database.inbox.get(unknown)


async def test_another_question_under_the_same_interrupt_is_another_ask(database: Database) -> None:
    (old,) = await ask(database, "Pay 100 EUR to Ann?")
    (new,) = await ask(database, "Pay 99999 EUR to Mallory?")
    assert old.interrupt == new.interrupt
    with pytest.raises(Outdated):
        await database.inbox.claim(old.id, YES)


async def test_the_same_question_listed_again_is_the_same_ask(database: Database) -> None:
    (open_,) = await ask(database, "Pay?")
    assert await ask(database, "Pay?") == [open_]
    claimed = await database.inbox.claim(open_.id, YES)
    assert await ask(database, "Pay?") == []
    assert await database.inbox.claimed("t1") == [claimed]


async def test_an_answered_ask_that_is_no_longer_listed_is_applied(database: Database) -> None:
    one, two = await ask(database, "one?", "two?")
    await database.inbox.claim(one.id, YES)
    assert await ask(database, "three?") != []
    assert await database.inbox.claimed("t1") == []
    with pytest.raises(Outdated):
        await database.inbox.claim(two.id, YES)


async def test_when_the_task_goes_on_its_asks_are_settled(database: Database) -> None:
    (open_,) = await ask(database, "Pay?")
    other = [a for a in await ask(database, "Else?", task="other") if a.question == "Else?"]
    await database.inbox.claim(open_.id, YES)
    await database.saver.aput_writes(config(), [("channel", 1)], "task")
    assert await database.inbox.claimed("t1") == []
    assert await database.inbox.pending() == other


async def went_on(database: Database, *checkpoints: str) -> None:
    """Checkpoints of the thread, one after the other."""
    parent = config()
    del parent["configurable"]["checkpoint_id"]
    for name in checkpoints:
        parent = await database.saver.aput(parent, {**empty_checkpoint(), "id": name}, {}, {})


async def test_when_the_thread_goes_on_its_asks_are_settled(database: Database) -> None:
    await went_on(database, "c1")
    one, two = await ask(database, "one?", "two?")
    await database.inbox.claim(one.id, YES)
    assert [a.id for a in await database.inbox.claimed("t1")] == [one.id]
    await went_on(database, "c1", "c2")
    assert await database.inbox.pending() == await database.inbox.claimed() == []
    assert [a.id for a in await database.inbox.answered("t1")] == [one.id]
    with pytest.raises(AlreadyAnswered):
        await database.inbox.claim(one.id, YES)
    with pytest.raises(Outdated):
        await database.inbox.claim(two.id, YES)


async def test_a_settled_ask_stays_settled_when_its_checkpoint_is_forgotten(
    database: Database,
) -> None:
    await went_on(database, "c1")
    one, _ = await ask(database, "one?", "two?")
    await database.inbox.claim(one.id, YES)
    await went_on(database, "c1", "c2")
    await database.saver.aprune(["t1"])
    assert await database.inbox.pending() == await database.inbox.claimed() == []
    assert [a.id for a in await database.inbox.answered("t1")] == [one.id]


async def test_an_ask_that_is_there_before_its_checkpoint_waits(database: Database) -> None:
    await went_on(database, "c0")
    (open_,) = await ask(database, "Pay?")
    assert await database.inbox.pending() == [open_]
    await went_on(database, "c0", "c1")
    assert await database.inbox.pending() == [open_]


async def test_no_interrupt_and_nonsense_index_nothing(database: Database) -> None:
    for nothing in ((), [], None, {"a": 1}, "text"):
        await database.saver.aput_writes(config(), [("__interrupt__", nothing)], "task")
    assert await database.inbox.pending() == []


async def test_nested_interrupts_are_not_listed_twice(database: Database) -> None:
    nested = {**config()["configurable"], "checkpoint_ns": "inner:1"}
    interrupts = (Interrupt(value="Pay?", id="0" * 32),)
    await database.saver.aput_writes({"configurable": nested}, [("__interrupt__", interrupts)], "x")
    assert await database.inbox.pending() == []


async def test_a_claim_is_in_the_journal(database: Database) -> None:
    (open_,) = await ask(database, "Pay?")
    await database.inbox.claim(open_.id, Approval(decision="approve", by="ann", reason="it is due"))
    (event,) = await database.journal.read("t1")
    assert (event.kind, event.what, event.agent, event.why) == (
        "approval",
        "approve",
        "ann",
        "it is due",
    )
    assert event.data["ask"] == open_.id


async def test_tenants_do_not_see_each_others_asks(url: str) -> None:
    async with Database(url, tenant="one") as one, Database(url, tenant="two") as two:
        (open_,) = await ask(one, "Pay?")
        assert await two.inbox.pending() == []
        with pytest.raises(UnknownAsk):
            await two.inbox.claim(open_.id, YES)
