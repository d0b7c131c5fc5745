"""LangGraph graphs on the saver: interrupted, resumed by another process's database object."""

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.errors import GraphInterrupt
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from kapelle.checkpoints import Database
from kapelle.state.approval import Approval, Ask, Escalation

pytestmark = pytest.mark.anyio


class State(TypedDict, total=False):
    """What happened, and what was answered."""

    log: Annotated[list[str], operator.add]
    answers: Annotated[list[Any], operator.add]


def first(state: State) -> State:
    return {"log": ["first"]}


def gate(state: State) -> State:
    return {"answers": [interrupt(Escalation(question="Pay 100 EUR to Ann?", task="pay"))]}


def last(state: State) -> State:
    return {"log": ["last"]}


def graph() -> StateGraph[State]:
    built = StateGraph(State)
    built.add_sequence([first, gate, last])
    built.add_edge(START, "first")
    return built


def config(thread: str = "t1") -> Any:
    return {"configurable": {"thread_id": thread}}


async def test_an_interrupted_run_is_resumed_from_another_database_object(url: str) -> None:
    async with Database(url) as before:
        await graph().compile(checkpointer=before.saver).ainvoke({"log": []}, config())
        assert [ask.question for ask in await before.inbox.pending()] == ["Pay 100 EUR to Ann?"]
    async with Database(url) as after:
        (ask,) = await after.inbox.pending("t1")
        assert (ask.task, ask.thread, ask.answer) == ("pay", "t1", None)
        claimed = await after.inbox.claim(ask.id, Approval(decision="approve", by="ann"))
        assert await after.inbox.claimed("t1") == [claimed]
        command = Command(resume={claimed.interrupt: claimed.answer})
        done = await graph().compile(checkpointer=after.saver).ainvoke(command, config())
        assert done == {
            "log": ["first", "last"],
            "answers": [Approval(decision="approve", by="ann")],
        }
        assert await after.inbox.pending() == []
        assert await after.inbox.claimed("t1") == []
        assert (await after.inbox.get(ask.id)).answer == claimed.answer


def test_the_same_through_the_sync_methods(url: str) -> None:
    with Database(url) as before:
        graph().compile(checkpointer=before.saver).invoke({"log": []}, config())
    with Database(url) as after:
        compiled = graph().compile(checkpointer=after.saver)
        state = compiled.get_state(config())
        assert state.next == ("gate",)
        done = compiled.invoke(Command(resume={state.interrupts[0].id: "yes"}), config())
        assert done == {"log": ["first", "last"], "answers": ["yes"]}
        assert [s.next for s in compiled.get_state_history(config())] == [
            (),
            ("last",),
            ("gate",),
            ("first",),
            ("__start__",),
        ]


async def test_asks_of_a_nested_graph_are_listed_once(database: Database) -> None:
    outer = StateGraph(State)
    outer.add_node("inner", graph().compile())
    outer.add_edge(START, "inner")
    compiled = outer.compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config())
    (ask,) = await database.inbox.pending()
    await database.inbox.claim(ask.id, Approval(decision="approve", by="ann"))
    done = await compiled.ainvoke(Command(resume={ask.interrupt: "yes"}), config())
    assert done["answers"] == ["yes"]
    assert await database.inbox.claimed("t1") == []


def several() -> StateGraph[State]:
    def ask(state: dict[str, str]) -> State:
        return {"answers": [f"{state['what']}: {interrupt(state['what'])}"]}

    def to_asks(state: State) -> list[Send]:
        return [Send("ask", {"what": what}) for what in ("a", "b", "c")]

    built = StateGraph(State)
    node: Any = ask
    built.add_node("ask", node)
    built.add_conditional_edges(START, to_asks, ["ask"])
    built.add_edge("ask", END)
    return built


async def test_several_asks_are_answered_in_any_order(database: Database) -> None:
    compiled = several().compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config())
    by_question = {ask.question: ask for ask in await database.inbox.pending()}
    assert sorted(by_question) == ["a", "b", "c"]
    for question in ("b", "c", "a"):
        ask = by_question.pop(question)
        await database.inbox.claim(ask.id, Approval(decision="approve", by="ann"))
        done = await compiled.ainvoke(Command(resume={ask.interrupt: "yes"}), config())
        assert {a.question for a in await database.inbox.pending()} == set(by_question)
        assert await database.inbox.claimed("t1") == []
    assert sorted(done["answers"]) == ["a: yes", "b: yes", "c: yes"]


async def test_a_question_after_a_question_of_the_same_task_is_another_ask(
    database: Database,
) -> None:
    def twice(state: State) -> State:
        return {"answers": [interrupt("one?"), interrupt("two?")]}

    built = StateGraph(State)
    built.add_node("twice", twice)
    built.add_edge(START, "twice")
    compiled = built.compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config())
    (one,) = await database.inbox.pending()
    await database.inbox.claim(one.id, Approval(decision="approve", by="ann"))
    await compiled.ainvoke(Command(resume={one.interrupt: 1}), config())
    (two,) = await database.inbox.pending()
    assert (one.question, two.question) == ("one?", "two?")
    assert await database.inbox.claimed("t1") == []


async def test_an_unanswered_ask_is_superseded_when_the_state_is_edited(database: Database) -> None:
    compiled = graph().compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config())
    (ask,) = await database.inbox.pending()
    await compiled.aupdate_state(config(), {"answers": ["by hand"]}, as_node="gate")
    assert await database.inbox.pending() == []
    assert (await database.inbox.get(ask.id)).answer is None


async def test_an_empty_interrupt_parks_a_task_and_lists_nothing(database: Database) -> None:
    open_now = False

    def parked(state: State) -> State:
        if not open_now:
            raise GraphInterrupt
        return {"log": ["parked"]}

    built = StateGraph(State)
    built.add_node("parked", parked)
    built.add_node("gate", gate)
    built.add_edge(START, "parked")
    built.add_edge(START, "gate")
    compiled = built.compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config())
    (ask,) = await database.inbox.pending()
    open_now = True
    done = await compiled.ainvoke(Command(resume={ask.interrupt: "yes"}), config())
    assert done == {"log": ["parked"], "answers": ["yes"]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_asks_are_listed_whatever_the_durability(database: Database, durability: Any) -> None:
    compiled = graph().compile(checkpointer=database.saver)
    await compiled.ainvoke({"log": []}, config(), durability=durability)
    (ask,) = await database.inbox.pending()
    done = await compiled.ainvoke(
        Command(resume={ask.interrupt: "yes"}), config(), durability=durability
    )
    assert done["answers"] == ["yes"]
    assert await database.inbox.pending() == []


async def test_foreign_values_are_shown_as_they_are(database: Database) -> None:
    def ask(state: State) -> State:
        return {"answers": [interrupt({"action": "pay", "amount": 100, "to": {"ann"}})]}

    built = StateGraph(State)
    built.add_node("ask", ask)
    built.add_edge(START, "ask")
    await built.compile(checkpointer=database.saver).ainvoke({"log": []}, config())
    (shown,) = await database.inbox.pending()
    assert shown.evidence == {"action": "pay", "amount": 100, "to": ["ann"]}
    assert shown.question == '{"action": "pay", "amount": 100, "to": ["ann"]}'
    assert isinstance(shown, Ask)


async def test_what_a_task_within_a_task_asks_is_one_ask(database: Database) -> None:
    @task
    async def inner(what: str) -> str:
        return f"{what}: {interrupt(what)}"

    @entrypoint(checkpointer=database.saver)
    async def outer(whats: list[str]) -> list[str]:
        return [await inner(what) for what in whats]

    await outer.ainvoke(["a", "b"], config())
    for expected in ("a", "b"):
        (ask,) = await database.inbox.pending()
        assert ask.question == expected
        await database.inbox.claim(ask.id, Approval(decision="approve", by="ann"))
        done = await outer.ainvoke(Command(resume={ask.interrupt: "yes"}), config())
        assert await database.inbox.claimed("t1") == []
    assert done == ["a: yes", "b: yes"]
    assert await database.inbox.pending() == []
