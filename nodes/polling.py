"""A vote that goes on within one step, because a person may hold it: each voice for itself.

Nobody is told what is next before all who can work have come back: so the vote takes the same
course as one that nobody holds. What a voice may be asked is in `kapelle.nodes.speaking`.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import reduce
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

from langgraph.errors import GraphInterrupt
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from kapelle.nodes.board import Board, board, close_boards, one_limit
from kapelle.nodes.gating import Asked, Gate, gate, park
from kapelle.nodes.here import Here, here, part_of
from kapelle.nodes.pattern import remembered
from kapelle.nodes.services import Services
from kapelle.nodes.tallying import tell
from kapelle.state.course import proceed
from kapelle.state.policy import Policy
from kapelle.state.swarm import Election, Slot, Swarm, merge_slots
from kapelle.state.task import Result, merge_results, merge_revisions


class Seat(TypedDict):
    """What the node of a voice reads; all else it finds in the swarm's state."""

    voice: int
    """Its place among the voices."""


class Speaking(Swarm, total=False):
    """What the graph of one voice remembers: the swarm as it knows it."""

    voice: int


class Speaker(Protocol):
    """The node of one voice."""

    async def __call__(self, state: Seat, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What the vote has come to, as an update."""
        ...


class Word(NamedTuple):
    """What a voice is told."""

    what: Literal["work", "ask", "park", "over"]
    """To fill a slot; to let the person be asked that it waits for; to wait until somebody is
    answered; to leave, for nobody within the step is wanted any more."""
    slot: str = ""


class Poll:
    """Who is at work, who waits for a person, and who listens."""

    def __init__(self, state: Swarm, election: Election, place: Here, finished: int) -> None:
        self._state = state
        self._election = replace(election, peers=tuple(state["order"]))
        self._place = place
        self._at_work = len(state["voices"]) - finished
        self._listening: dict[int, asyncio.Future[Word]] = {}
        self._away: dict[str, asyncio.Future[Word]] = {}
        self._last: Word | None = None

    @property
    def record(self) -> Swarm:
        """What is known of the vote by all together."""
        state = self._state
        known = {"asked": state["asked"], "results": state["results"]}
        return {**known, "revisions": state["revisions"]}  # type: ignore[typeddict-item]

    async def next(self, voice: int, known: Swarm) -> Word:
        """What a voice that has come back is to do."""
        self._state = _joined(self._state, known)
        return await self._told(self._listening, voice)

    async def without(self, slot: str, asked: list[Slot]) -> Word:
        """Whether the vote needs an agent that waits for a person."""
        self._state = _joined(self._state, {"asked": asked, "results": {}, "revisions": {}})
        return await self._told(self._away, slot)

    def leave(self, known: Swarm) -> None:
        """A voice is gone; before a crash it may have heard that the vote is over."""
        if self._last is None:
            self._state = _joined(self._state, known)
            self._at_work -= 1
            self._go_on()

    def stop(self) -> None:
        """Let everyone wait: the step ends, and is gone on with some time later."""
        if self._last is None:
            self._tell_all(Word("park"))

    async def _told(self, where: dict[Any, asyncio.Future[Word]], who: object) -> Word:
        if self._last is not None:
            return self._last
        mine: asyncio.Future[Word] = asyncio.get_running_loop().create_future()
        where[who] = mine
        self._at_work -= 1
        self._go_on()
        return await mine

    def _go_on(self) -> None:
        """What follows, once nobody is at work?"""
        if self._at_work:
            return
        step = proceed(self._as_it_stands(), self._election)
        if step.move != "work":
            self._tell_all(Word("over"))
            return
        before = self._state
        self._state = _joined(before, {"asked": list(step.new), "results": {}, "revisions": {}})
        begun = self._begin(step.due)
        if not begun and self._away.keys().isdisjoint(step.due):  # as those for a judge
            self._state = before
            self._tell_all(Word("over"))
            return
        key = f"{self._place.step}/{len(before['results'])}/{len(before['revisions'])}"
        tell(replace(self._place, step=f"{key}/{' '.join(step.due)}"), before, step)
        if not begun:
            self._tell_all(Word("park"), asked=step.due)

    def _as_it_stands(self) -> Swarm:
        """With those who wait for a person before they have an answer."""
        results = {slot: _waiting(slot, self._state) for slot in self._away}
        return {**self._state, "results": merge_results(self._state["results"], results)}

    def _begin(self, due: tuple[str, ...]) -> bool:
        """Whether anybody has something to do."""
        agents = {slot.id: slot.agent for slot in self._state["asked"]}
        begun = False
        for slot in due:
            able = [v for v in self._listening if self._agent(v) == agents[slot]]
            if able and slot not in self._away:
                self._at_work += 1
                self._listening.pop(min(able)).set_result(Word("work", slot))
                begun = True
        return begun

    def _agent(self, voice: int) -> str:
        return self._state["voices"][voice].agent

    def _tell_all(self, word: Word, asked: tuple[str, ...] = ()) -> None:
        self._last = word
        for voice in list(self._listening):
            self._listening.pop(voice).set_result(word)
        for slot in list(self._away):
            self._away.pop(slot).set_result(Word("ask") if slot in asked else word)


_poll: ContextVar[Poll | None] = ContextVar("_poll", default=None)
"""That of the step which a voice is part of."""


def voice(
    graph: CompiledStateGraph[Any, Any, Any, Any], election: Election, policy: Policy
) -> Speaker:
    """The node of one voice; it ends when nobody within the step is wanted any more."""

    async def voice(state: Seat, runtime: Runtime[Services]) -> dict[str, Any]:
        desk, place = await board(runtime, policy.parallel), here(runtime)
        info = runtime.execution_info
        assert info is not None, "a node has execution info"
        step = replace(place, step=f"{place.place}/{info.checkpoint_id}")
        poll = desk.shared(lambda: _opened(desk, election, step))
        slot = remembered("voices")[state["voice"]].slot
        given = {**_swarm(), **state, "due": [slot] if slot else []}
        try:
            with part_of(place), one_limit(desk), _part_of(poll):
                left: Any = await graph.ainvoke(given)
        except BaseException:
            poll.stop()
            raise
        poll.leave(left)
        return {channel: left[channel] for channel in ("asked", "results", "revisions")}

    return voice


async def listen(state: Speaking, runtime: Runtime[Services]) -> dict[str, Any]:
    """Wait until all are back; then hear what is next."""
    close_boards(runtime)
    poll = _poll.get()
    assert poll is not None, "a voice is part of a poll"
    word = await poll.next(state["voice"], state)
    if word.what == "park":
        raise park()
    return {**poll.record, "due": [word.slot] if word.slot else []}


async def unless_over(slot: Slot, work: Awaitable[Result]) -> Result:
    """What an agent makes of its slot; that it waits for a person, where nobody needs it."""
    poll, mine = _poll.get(), _poll.set(None)  # what is nested in it is a vote of its own
    try:
        return await work
    except GraphInterrupt:
        if poll is None or not await _is_over(poll, slot.id):
            raise
        return Result(task=slot.id, status="waiting")
    finally:
        _poll.reset(mine)


def gate_unless_over(policy: Policy) -> Gate:
    """The gate of a voice: it asks, unless nobody needs the answer any more."""
    ask = gate(policy)

    async def approve(state: Asked, runtime: Runtime[Services]) -> dict[str, Any]:
        poll, stopped = _poll.get(), state["stopped"]
        assert poll is not None, "a voice is part of a poll"
        assert stopped is not None, "a voice asks about its slot"
        try:
            return await ask(state, runtime=runtime)
        except GraphInterrupt:
            if not await _is_over(poll, stopped.task):
                raise
            return {}

    return approve


async def _is_over(poll: Poll, slot: str) -> bool:
    """Whether nobody needs whoever waits for a person; else it asks when its answer is wanted."""
    word = await poll.without(slot, remembered("asked"))
    if word.what == "park":
        raise park()
    return word.what == "over"


@contextmanager
def _part_of(poll: Poll) -> Iterator[None]:
    token = _poll.set(poll)
    try:
        yield
    finally:
        _poll.reset(token)


def _opened(desk: Board, election: Election, place: Here) -> Poll:
    """The poll of a step, with what was said in it before an interrupt or a crash."""
    finished = {node for node, channel, _ in desk.written if channel == "asked"}
    said: list[Swarm] = [
        {"asked": [], "results": {}, "revisions": {}, channel: value}  # type: ignore[misc]
        for _, channel, value in desk.written
        if channel in ("asked", "results", "revisions")
    ]
    return Poll(reduce(_joined, said, _swarm()), election, place, len(finished))


def _swarm() -> Swarm:
    state: Swarm = remembered(sorted(Swarm.__required_keys__ | Swarm.__optional_keys__))
    return state


def _joined(state: Swarm, known: Swarm) -> Swarm:
    return {
        **state,
        "asked": merge_slots(state["asked"], known["asked"]),
        "results": merge_results(state["results"], known["results"]),
        "revisions": merge_revisions(state["revisions"], known["revisions"]),
    }


def _waiting(slot: str, state: Swarm) -> Result:
    last = state["results"].get(slot)
    if last is not None and last.status == "waiting":
        return last
    return Result(task=slot, status="waiting", revision=last.revision + 1 if last else 1)
