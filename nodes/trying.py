"""One try: an agent that is well, in its turn, paid for, in time, and its answer valid.

a slot ─ a turn ─ its breaker ─ its input ─ its model's limits ─ reserve ─ act ─ settle
"""

from functools import partial

from langgraph.errors import GraphBubbleUp

from kapelle.nodes.answering import answered, booked, taken, valid
from kapelle.nodes.attempt import NOTHING, ONE, Outcome, Try, counted
from kapelle.nodes.breaking import admission, observe
from kapelle.nodes.effect import Unsure, doing
from kapelle.nodes.envelopes import around
from kapelle.nodes.failing import after, failed, failure, raised, said
from kapelle.nodes.limiting import NO_TURN, Turn, turn
from kapelle.nodes.patience import Patience, contained, patience, within
from kapelle.nodes.paying import paid
from kapelle.nodes.telling import tell_attempt, tell_late
from kapelle.nodes.validating import Invalid, check_input, reply_of
from kapelle.state.budget import Usage
from kapelle.state.task import Result


async def take(mine: Try) -> Outcome:
    """Try once, and tell the journal what came of it."""
    async with mine.here.services.engine.slot(mine.agent, mine.task.priority), mine.turn:
        outcome = await (_inside(mine) if mine.nested else _outside(mine))
    tell_attempt(mine, outcome.attempt)
    return outcome


async def _inside(mine: Try) -> Outcome:
    """A nested graph: its own agents pay for themselves, out of the envelopes around it too."""
    if mine.here.depth >= mine.policy.max_nesting:
        why = f"graphs are nested deeper than {mine.policy.max_nesting} levels"
        return failed(mine, failure(mine, "refused", why))
    with around(mine.here, mine.envelopes):
        return await _act(mine, NOTHING, NO_TURN, mine.now(), None)


async def _outside(mine: Try) -> Outcome:
    """An agent proper."""
    way = await admission(mine.here, mine.agent, mine.policy)
    if way == "open":
        why = f"{mine.name} failed too often lately and is left alone for a while"
        return failed(mine, failure(mine, "unavailable", why))
    try:
        check_input(mine.task, mine.brief, mine.policy)
        wanted = mine.agent.estimate(mine.task, mine.brief)
    except Invalid as error:
        return failed(mine, failure(mine, error.kind, said(error)))
    except Exception as error:  # noqa: BLE001  an agent's estimate may raise anything
        return failed(mine, failure(mine, "raised", raised(mine, error)))
    if getattr(mine.agent, "meter", None) is None:
        outcome = await paid(mine, wanted, partial(_act, mine, wanted, NO_TURN))
    else:
        outcome = await _metered(mine, wanted)
    if not outcome.all_pause:  # a limit of its model is no sickness of the agent
        await observe(mine.here, mine.agent, mine.policy, outcome.attempt, way)
    return outcome


async def _metered(mine: Try, wanted: Usage) -> Outcome:
    """Within the limits of its model."""
    clock, priority = mine.here.services.clock, mine.task.priority
    async with turn(
        mine.agent, mine.policy, clock, tokens=wanted.tokens, priority=priority
    ) as admitted:
        outcome = await paid(mine, wanted, partial(_act, mine, wanted, admitted))
        admitted.used(outcome.attempt.usage.tokens)
    return outcome


async def _act(
    mine: Try, wanted: Usage, turn: Turn, started: float, seconds: float | None
) -> Outcome:
    """Have the agent act, and take what it gives: whatever it does, an outcome comes of it."""
    spent, model = NOTHING if mine.nested else ONE, ""
    try:
        raw = await _performed(mine, seconds)
        if isinstance(raw, Result):
            spent = NOTHING if mine.nested else counted(raw.usage)
            made, attempt = taken(mine, raw), mine.attempt(started, spent)
            return Outcome(attempt, booked(mine, made, attempt))
        reply = reply_of(raw)
        spent, model = counted(reply.usage), reply.model
        output = valid(mine, reply)
    except (GraphBubbleUp, Unsure):
        raise
    except Exception as error:  # noqa: BLE001  the one door: whatever an agent raises
        return after(mine, error, turn, started=started, wanted=wanted, spent=spent, model=model)
    attempt = mine.attempt(started, spent, model=model)
    return Outcome(attempt, answered(mine, reply, output, attempt))


async def _performed(mine: Try, seconds: float | None) -> object:
    """What the agent gives; an effect of which nobody knows whether it happened goes before.

    A nested graph's agents have limits of their own, and a person may take their time.

    Raises:
        OutOfTime: when the time is up.
    """
    now = mine.doing
    waits = None if seconds is None else Patience(partial(tell_late, mine))
    tokens = doing.set(now), patience.set(waits)
    try:
        work = contained(mine.here.services.engine.perform(mine.agent, mine.task, mine.brief))
        made = await (work if seconds is None else within(seconds, work, waits))
    except Exception as error:
        if now.unsure and not isinstance(error, Unsure):  # whatever the agent made of it
            raise Unsure(now.unsure[0]) from error
        raise
    finally:
        doing.reset(tokens[0])
        patience.reset(tokens[1])
    if now.unsure:
        raise Unsure(now.unsure[0])
    return made
