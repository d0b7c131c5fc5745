"""What pays for a try: reserved before it in every envelope around it, settled after it."""

import itertools
import os
from collections.abc import Awaitable, Callable
from uuid import uuid4

from langgraph.errors import GraphBubbleUp

from kapelle.nodes.answering import doubtful
from kapelle.nodes.attempt import NOTHING, ONE, Outcome, Try
from kapelle.nodes.effect import Unsure
from kapelle.nodes.failing import failed, failure
from kapelle.nodes.reserving import reserve, settle
from kapelle.nodes.telling import tell_overrun
from kapelle.state.budget import Room, Usage

Act = Callable[[float, float], Awaitable[Outcome]]
"""Act and say what came of it, begun then, for so many seconds at most."""

_PROCESS = uuid4().hex[:12]
_numbers = itertools.count()


async def paid(mine: Try, wanted: Usage, act: Act) -> Outcome:
    """Act within the envelopes, if they have room for as much as that."""
    here = mine.here
    key = f"{mine.brief.key}/{mine.brief.attempt}/{_PROCESS}-{os.getpid()}-{next(_numbers)}"
    room = await reserve(
        here, key, wanted, mine.envelopes, policy=mine.policy, priority=mine.task.priority
    )
    started = mine.now()
    if room.fit != "fits":
        return _no_room(mine, started, wanted, room)
    used = wanted  # if nobody can tell: all of it
    try:
        outcome = await act(started, _seconds(mine, started, room))
        used = outcome.attempt.usage
    except GraphBubbleUp:
        used = NOTHING  # it will be entered again, and then pays
        raise
    except Unsure as error:
        used = ONE
        attempt = mine.attempt(started, used)
        outcome = Outcome(attempt, doubtful(mine, error.effect, attempt))
    finally:
        await settle(here, key, used, mine.envelopes)
        tell_overrun(mine, wanted, used, started)
    return outcome


def _seconds(mine: Try, now: float, room: Room) -> float:
    """How long the try may take."""
    policy, most = mine.policy, mine.policy.timeout
    if room.seconds is not None:
        most = min(most, room.seconds)
    if mine.end is not None:
        return min(most, max(0.0, mine.end - now))
    return most if policy.task_timeout is None else min(most, policy.task_timeout)


def _no_room(mine: Try, started: float, wanted: Usage, room: Room) -> Outcome:
    """The budget ends it, before it has begun."""
    if room.fit == "unpriced":
        why = (
            f"{mine.name} is refused: money is limited and nobody knows what it costs; give its "
            "price, like ModelAgent(…, price=Price(input=0.5, output=2.0)), or lift the limit"
        )
    else:
        why = f"the budget leaves no room for another call of {mine.name} ({room.why})"
    lacking = {"wanted": wanted, "accounts": room.accounts}
    return failed(mine, failure(mine, "budget", why).model_copy(update=lacking), started=started)
