"""Every error Kapelle raises, in one tree.

    KapelleError
    ├── Misbuilt              the programmer's: raised when a graph or an agent is built
    ├── Refused               our rule said no
    │   ├── EmptyTask
    │   ├── BadTask
    │   ├── UnknownThread
    │   ├── UnknownAsk
    │   ├── UnknownTarget
    │   ├── AlreadyAnswered   who answered, and when
    │   ├── NotAllowed        an answer the ask does not offer
    │   ├── Outdated          an answer to an ask the run went on without
    │   ├── Unfinished        new input for a thread whose run stopped in the middle
    │   ├── StillWaiting      new input for a thread with open asks
    │   ├── ThreadBusy        another process advances the thread
    │   ├── Renamed           a run stopped in a stage its pipeline no longer has
    │   ├── NoModel           which variables to set
    │   ├── PayloadTooLarge
    │   ├── Unstorable        a value that would not come back as it is
    │   ├── BadId             an identifier no table may hold
    │   ├── VotingHurts       voters that are wrong as often as right
    │   └── TooManyOptions    for an exact order
    └── Failed                the world did
        ├── DatabaseMissing
        ├── DatabaseNewer
        ├── DatabaseUnsafe    what is unsafe and how to mend it
        ├── DatabaseFailed    the driver's error is the cause
        └── Unreadable        a stored row that is damaged, foreign or of a type not allowed

The class docstring is the default message; what an error knows is in its fields. What an *agent*
does wrong is never raised: it is a `Failure` in a `Result`.
"""

from datetime import UTC, datetime
from typing import Any


class KapelleError(Exception):
    """Something went wrong in Kapelle."""

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        self.fields = fields
        text = message or (type(self).__doc__ or "").strip().format_map(fields)
        super().__init__(text)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None


class Misbuilt(KapelleError):
    """The graph or agent cannot work as it is built."""


class Refused(KapelleError):
    """A rule of Kapelle's said no."""


class EmptyTask(Refused):
    """The task is empty: say in `goal` (or --task) what is to be done."""


class BadTask(Refused):
    """The task can't be used: {why}."""


class UnknownThread(Refused):
    """There is no run on thread {thread!r}; `kapelle runs` lists the threads there are."""


class UnknownAsk(Refused):
    """There is no ask {ask!r}; `kapelle inbox` lists the open ones."""


class UnknownTarget(Refused):
    """There is no graph {target!r}."""


class AlreadyAnswered(Refused):
    """Ask {ask} was already answered: {decision} by {by} at {when}."""

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        when = datetime.fromtimestamp(float(fields.get("at") or 0), tz=UTC)
        super().__init__(message, when=f"{when:%Y-%m-%d %H:%M:%S} UTC", **fields)


class NotAllowed(Refused):
    """Ask {ask} does not offer {decision!r}; it offers {offered}."""


class Outdated(Refused):
    """Ask {ask} no longer stands: the run went on without an answer."""


class Unfinished(Refused):
    """Thread {thread!r} has a run that stopped half-way; `kapelle resume {thread}` goes on."""


class StillWaiting(Refused):
    """Thread {thread!r} still waits for {asks}; answer first, or use another thread."""


class ThreadBusy(Refused):
    """Thread {thread!r} is being advanced by {holder}; try again when it is done."""


class Renamed(Refused):
    """The run stopped at stage {stage!r}, where the pipeline now has {now}.

    Give the stages their old names and order again ({was}) and resume, or start the task anew.
    """

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        doc = " ".join((type(self).__doc__ or "").split())
        super().__init__(message or doc.format_map(fields), **fields)


class NoModel(Refused):
    """No chat model is named: pass --model openai:NAME and set OPENAI_API_KEY."""


class PayloadTooLarge(Refused):
    """{what} has {size} bytes; the limit is {limit}."""


class Unstorable(Refused):
    """A value of type {what} cannot be stored: {why}."""


class BadId(Refused):
    """{what} {value!r} cannot be an identifier: {why}."""


class VotingHurts(Refused):
    """Votes that are right with p = {p:g} are worse together than alone: p must be above .5."""


class TooManyOptions(Refused):
    """Kemeny's order is exact up to {most} options, and there are {options}: use Copeland."""


class Failed(KapelleError):
    """Something outside Kapelle failed."""


class DatabaseMissing(Failed):
    """There is no database at {url}; `kapelle run` makes one."""


class DatabaseNewer(Failed):
    """The database at {url} has schema {found}, this Kapelle knows {known}: upgrade Kapelle."""


class DatabaseUnsafe(Failed):
    """The database is not safe to use: {why}. To mend it: {mend}."""


class DatabaseFailed(Failed):
    """The database at {url} failed: {why}."""


class Unreadable(Failed):
    """A stored value of thread {thread!r} cannot be read: {why}."""
