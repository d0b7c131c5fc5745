"""What comes of an error: a failure by its kind, and whether another try can help, and when."""

import random
from datetime import UTC
from email.utils import parsedate_to_datetime

from kapelle.nodes.agent import Unusable
from kapelle.nodes.attempt import NOTHING, Outcome, Try, counted
from kapelle.nodes.limiting import Turn
from kapelle.nodes.patience import OutOfTime
from kapelle.nodes.validating import Invalid
from kapelle.state.budget import Usage
from kapelle.state.policy import backoff
from kapelle.state.task import Failure, FailureKind

MESSAGE = 4_000
"""Characters of a failure's message that are kept."""

PAUSE = 60.0
"""Seconds a provider may ask to wait at most."""

_BUGS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, SyntaxError)


def failure(mine: Try, kind: FailureKind, why: str) -> Failure:
    """Why a try gave nothing."""
    return Failure(kind=kind, message=legible(why), agent=mine.name)


def failed(
    mine: Try,
    why: Failure,
    *,
    started: float | None = None,
    usage: Usage = NOTHING,
    model: str = "",
    again: bool = False,
) -> Outcome:
    """A try that gave nothing; before it had begun, unless it says when."""
    began = mine.now() if started is None else started
    return Outcome(mine.attempt(began, usage, why, model), again=again)


def after(
    mine: Try,
    error: Exception,
    turn: Turn,
    *,
    started: float,
    wanted: Usage,
    spent: Usage,
    model: str,
) -> Outcome:
    """A try that an error ended, when by what is known it had `spent` that much of the `wanted`."""
    kind: FailureKind = "raised"
    if isinstance(error, Unusable):
        kind, why, again = "invalid", said(error), True
        spent, model = counted(error.usage), error.model
    elif isinstance(error, Invalid):
        kind, why, again = error.kind, said(error), error.kind == "invalid"
    elif isinstance(error, OutOfTime):
        kind, why, again = "timeout", f"{mine.name} gave {said(error)}", True
        spent = wanted  # it may have used all
    else:
        why, again = raised(mine, error), worth_retrying(error)
        told = getattr(error, "usage", None)
        spent = counted(told) if isinstance(told, Usage) else spent
        model = str(getattr(error, "model", "") or "")
    lost = failure(mine, kind, why)
    outcome = failed(mine, lost, started=started, usage=spent, model=model, again=again)
    return _paused(mine, outcome, error, turn)


def _paused(mine: Try, outcome: Outcome, error: Exception, turn: Turn) -> Outcome:
    """The same, with who waits how long before the next try: one, or all who use the model."""
    asked = retry_after(error, mine.now())
    if not at_limit(error):
        return outcome._replace(pause=asked)
    number = mine.brief.attempt
    lot = random.Random(f"{mine.policy.seed}/{mine.brief.key}/{number}/429").random()
    pause = asked or backoff(mine.policy, number, lot)
    shared = turn.slow_down(pause, asked=bool(asked))
    return outcome._replace(pause=pause, all_pause=shared)


def raised(mine: Try, error: Exception) -> str:
    """What is said of an agent that raised."""
    return f"{mine.name} raised {type(error).__name__}: {said(error)}"


def retry_after(error: Exception, now: float) -> float:
    """Seconds a provider asks to wait (HTTP's Retry-After), at most a minute; 0 if it does not.

    `now`: Unix time in seconds, for those that name a moment (RFC 9110, section 10.2.3).
    """
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    said = str(headers.get("retry-after", "")).strip()
    try:
        seconds = float(said)
    except ValueError:
        seconds = _until(said, now)
    return min(PAUSE, max(0.0, seconds)) if seconds == seconds else 0.0  # noqa: PLR0124  NaN


def _until(said: str, now: float) -> float:
    try:
        moment = parsedate_to_datetime(said)
    except (TypeError, ValueError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


def at_limit(error: Exception) -> bool:
    """Whether a provider says that there are too many requests."""
    return getattr(error, "status_code", None) == 429


def worth_retrying(error: Exception) -> bool:
    """Whether trying again can help: not for a bug, nor for a request the provider rejects."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 409, 429) or status >= 500
    return not isinstance(error, _BUGS)


def said(error: Exception) -> str:
    """An error's message."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its __str__ may raise anything
        return "(its message can't be read)"


def legible(why: str) -> str:
    """What can be stored and read: no lone surrogates, no more than a page."""
    text = why if len(why) <= MESSAGE else f"{why[:MESSAGE]} … ({len(why)} characters)"
    return text.encode(errors="replace").decode()
