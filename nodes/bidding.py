"""Bid: what an agent offers to do a task for, until the deadline."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypedDict, cast

from langgraph.runtime import Runtime
from pydantic import JsonValue, ValidationError

from kapelle.nodes.agent import Agent, FunctionAgent
from kapelle.nodes.board import board
from kapelle.nodes.call import call
from kapelle.nodes.estimating import guess
from kapelle.nodes.here import Here, here
from kapelle.nodes.latecomers import leave_at_work
from kapelle.nodes.services import Services
from kapelle.nodes.turns import Turns
from kapelle.state.budget import Usage
from kapelle.state.errors import DatabaseFailed, Misbuilt
from kapelle.state.offer import Bid, Offer, card_offer, standing_of
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Result, Task

Bidder = Offer | Agent | Callable[..., Any]
"""How bids are made: always the same offer; by a function of the task; by an agent, like a model
whose output is an `Offer`. None, or an offer that declines, is no bid."""


_NOTHING = Usage()


class Invitation(TypedDict):
    """What a bidder reads: the call, its own name, and the tasks that fit it."""

    call: int
    agent: str
    tasks: tuple[Task, ...]


class Bidding(Protocol):
    """The node that bids for one agent."""

    async def __call__(self, state: Invitation, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """Its bids, as an update."""
        ...


def bid(
    agents: Mapping[str, Agent], bids: Mapping[str, Offer | Agent], deadline: float, policy: Policy
) -> Bidding:
    """The node where an agent answers a call: at once by its card, or as `bids` says.

    It ends with its last answer, or `deadline` seconds after it began. Who is still thinking then
    has made no bid; should it come to one while the market is at work, that is rejected. After a
    crash, agents that had not answered have the whole time again.
    """

    async def bid(state: Invitation, runtime: Runtime[Services]) -> dict[str, Any]:
        place, name = here(runtime), state["agent"]
        how = bids.get(name) or _by_card(place, agents.get(name), name)
        desk = await board(runtime, policy.parallel)
        called = _Called(state["call"], name, deadline, policy, place, desk.limit, runtime.control)
        made = await asyncio.gather(*(called.answer(how, task) for task in state["tasks"]))
        for one in made:
            _tell(place, one)
        return {"bids": {one.key: one for one in made}}

    return bid


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class _Called:
    """One agent that was called for proposals."""

    call: int
    agent: str
    deadline: float
    policy: Policy
    place: Here
    limit: Turns
    control: object
    """Tells apart invocations."""
    began: float = field(default_factory=_now)

    async def answer(self, how: Offer | Agent, task: Task) -> Bid:
        """What it bids for a task, by the deadline."""
        if isinstance(how, Offer):
            return self._stood(task, how)
        brief = Brief(context=await self.place.context(task, self.policy))
        begun = asyncio.Event()
        bidding = asyncio.ensure_future(self._bidding(how, task, brief, begun))
        try:
            await asyncio.wait({bidding}, timeout=self.deadline)
        except asyncio.CancelledError:
            bidding.cancel()
            raise
        if bidding.done():
            return self._stood(task, _said(bidding.result()), bidding.result().usage)
        if begun.is_set():
            bidding.add_done_callback(partial(self._late, task))
            leave_at_work(self.control, bidding)
        else:
            bidding.cancel()
        return self._stood(task, None, guess(how, task, brief) or Usage())  # it may have used all

    async def _bidding(
        self, bidder: Agent, task: Task, brief: Brief, begun: asyncio.Event
    ) -> Result:
        async with self.limit.at(task.priority):
            begun.set()
            return await call(
                bidder, task, brief, here=self.place, policy=self.policy, check=offer_flaws
            )

    def _late(self, task: Task, bidding: "asyncio.Future[Result]") -> None:
        """It came to an answer after all; nothing depends on it any more."""
        if bidding.cancelled() or bidding.exception() or bidding.result().status != "done":
            return
        made = bidding.result()
        one = self._stood(task, _said(made), made.usage, late=True)
        with suppress(DatabaseFailed):
            _tell(self.place, one)
            if one.status == "late":
                reject(self.place, one)

    def _stood(
        self, task: Task, offer: Offer | None, used: Usage = _NOTHING, *, late: bool = False
    ) -> Bid:
        after = _now() - self.began
        status, why = standing_of(offer, after, self.deadline, self.policy, late=late)
        return Bid(
            call=self.call,
            task=task.id,
            agent=self.agent,
            status=status,
            offer=offer,
            after=after,
            why=why,
            usage=used,
        )


def reject(place: Here, bid: Bid) -> None:
    """Tell who proposed and does not get it, and why."""
    place.tell(
        "message",
        "reject-proposal",
        task=bid.task,
        agent="manager",
        why=bid.why,
        data={"to": bid.agent},
        mark=bid.agent,
    )


def as_bidder(name: str, bidder: Bidder) -> Offer | Agent:
    """What makes bids for an agent of that name.

    Raises:
        Misbuilt: when it is no way to bid; a graph is none, for a bid takes one call.
    """
    if isinstance(bidder, Offer):
        return bidder
    if getattr(bidder, "card", None) is None:
        if callable(bidder):
            return FunctionAgent(bidder, AgentCard(name=name))
    elif cast(Agent, bidder).where != "graph":
        return cast(Agent, bidder)
    raise Misbuilt(f"{bidder!r} can't bid for {name}; give an Offer, a function or an agent")


def offer_flaws(output: JsonValue) -> list[str]:
    """What keeps an output from being an offer; none is one as well."""
    try:
        Offer.model_validate(output or {})
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
    return []


def _by_card(place: Here, agent: Agent | None, name: str) -> Offer:
    found = [agent] if agent else place.services.registry.find(Task(goal="be found", agent=name))
    return card_offer(found[0].card) if found else Offer(decline="it is in the registry no more")


def _said(made: Result) -> Offer:
    """The offer in what a bidder answered. Whoever fails to make one declines."""
    if made.status == "done" and made.output is not None:
        return Offer.model_validate(made.output)
    return Offer(decline=made.failure.message if made.failure else "it makes no offer")


def _tell(place: Here, one: Bid) -> None:
    """Only what was said is a message: who is silent says nothing."""
    if one.status == "silent":
        return
    act = "refuse" if one.status == "declined" else "propose"
    offer = one.offer.model_dump(mode="json") if one.offer else None
    place.tell(
        "message",
        act,
        task=one.task,
        agent=one.agent,
        why=one.why,
        usage=one.usage,
        data={"to": "manager", "offer": offer, "call": one.call},
    )
