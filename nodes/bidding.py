"""Bid: what an agent offers to do a task for, until the deadline."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict, cast

from langgraph.runtime import Runtime
from pydantic import JsonValue, ValidationError

from kapelle.nodes.agent import Agent, FunctionAgent
from kapelle.nodes.board import board
from kapelle.nodes.call import call
from kapelle.nodes.estimating import guess
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.nodes.trying import OutOfTime, within
from kapelle.state.budget import Usage
from kapelle.state.errors import Misbuilt
from kapelle.state.market import Bid, Offer, card_offer, standing_of
from kapelle.state.policy import Policy
from kapelle.state.skills import AgentCard
from kapelle.state.task import Brief, Result, Task

Bidder = Offer | Agent | Callable[..., Any]
"""How bids are made: always the same offer; by a function of the task; by an agent, like a model
whose output is an `Offer`. None, or an offer that declines, is no bid."""


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

    It ends with its last answer, or `deadline` seconds after it began. After a crash, agents that
    had not answered have the whole time again.
    """

    async def bid(state: Invitation, runtime: Runtime[Services]) -> dict[str, Any]:
        place, name = here(runtime), state["agent"]
        desk = await board(runtime, policy.parallel)
        clock = asyncio.get_running_loop().time
        began = clock()
        how = bids.get(name) or _by_card(place, agents.get(name), name)

        async def answer(task: Task) -> Bid:
            offer, used = (how, Usage()) if isinstance(how, Offer) else await asked(how, task)
            after = clock() - began
            status, why = standing_of(offer, after, deadline, policy)
            return Bid(
                call=state["call"],
                task=task.id,
                agent=name,
                status=status,
                offer=offer,
                after=after,
                why=why,
                usage=used,
            )

        async def asked(bidder: Agent, task: Task) -> tuple[Offer | None, Usage]:
            brief = Brief(context=await place.context(task, policy))
            work = call(
                bidder,
                task,
                brief,
                here=place,
                policy=policy,
                limit=desk.limit,
                check=offer_flaws,
            )
            try:
                made = cast(Result, await within(deadline, work))
            except OutOfTime:
                return None, guess(bidder, task, brief) or Usage()  # it may have used all
            return _said(made), made.usage

        made = await asyncio.gather(*map(answer, state["tasks"]))
        for one in made:
            _tell(place, one)
        return {"bids": {one.key: one for one in made}}

    return bid


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
