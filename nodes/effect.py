"""What agents and tools do to the world: each effect once, however often the code is run.

    receipt = await effect("mail:42").once(send, to, text)

It is written down before and after. Met again, by a retry, another agent or after a crash, what is
recorded is given back; what was begun and never finished is asked of a person.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Self, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from kapelle.nodes.here import Here
from kapelle.nodes.prompt import readable
from kapelle.nodes.turns import Turns
from kapelle.state.effect import Effect, EffectStatus, meet
from kapelle.state.errors import Misbuilt

Flaws = Callable[[JsonValue], list[str]]
"""What is wrong with an output, each flaw a sentence."""

P = ParamSpec("P")
T = TypeVar("T")


class NotDone(Exception):
    """Raised by what an effect calls: nothing happened, so that it may be tried again."""


class Unsure(Exception):
    """An effect was begun and nobody knows whether it happened. Let it through."""

    def __init__(self, effect: Effect) -> None:
        super().__init__(f"nobody knows whether {effect.name!r} happened; a person is asked")
        self.effect = effect


@dataclass(frozen=True)
class Doing:
    """The call that is being carried out: whose effects these are."""

    here: Here
    task: str
    agent: str
    scope: str
    """Names the task in its run: the same for every agent and every try at it."""
    check: Flaws | None = None
    """What an output must pass."""
    limit: Turns | None = None
    """On how many work at once: what a graph that is one agent has its own calls wait for."""
    unsure: list[Effect] = field(default_factory=list)
    """Met on the way, whatever the agent made of it."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @classmethod
    def of(cls, here: Here, task: str, agent: str) -> Self:
        """One call of an agent at a place."""
        return cls(here, task, agent, f"{here.run}/{here.place}/{task}")


doing: ContextVar[Doing | None] = ContextVar("kapelle_doing", default=None)


@dataclass(frozen=True)
class OneEffect:
    """An effect by its key; `once` in async code, `once_sync` in sync functions and tools."""

    key: str
    name: str
    idempotent: bool
    told: JsonValue = None

    async def once(self, act: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> JsonValue:
        """Call `act` unless that was done before; what it returned, as plain JSON.

        What it raises goes through. The effect counts as not done only where that is sure:
        `NotDone`, a refused connection, an answer 4xx. Anything else leaves it in doubt.

        Raises:
            Unsure: nobody knows whether it happened; let it through, and a person is asked.
            Misbuilt: this is no agent's or tool's code at work in a run, or `act` can't be called
                like that.
        """
        turn = _Turn(self, _doing(self.name), _told(self, act, args, kwargs))
        async with turn.alone:
            if await turn.begin():
                try:
                    turn.ended(await _awaited(act(*args, **kwargs)))
                except Exception as error:
                    await turn.failed(error)
                    raise
                await turn.keep()
        return turn.output

    def once_sync(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JsonValue:
        """`once` for functions that Kapelle or LangChain runs in a thread."""
        now = _doing(self.name)
        turn = _Turn(self, now, _told(self, act, args, kwargs))
        _wait(now, turn.alone.acquire())
        try:
            if _wait(now, turn.begin()):
                try:
                    turn.ended(act(*args, **kwargs))
                except Exception as error:
                    _wait(now, turn.failed(error))
                    raise
                _wait(now, turn.keep())
        finally:
            now.loop.call_soon_threadsafe(turn.alone.release)
        return turn.output


def effect(key: str, *, idempotent: bool = False) -> OneEffect:
    """Something that is to happen once in a run, whoever does it and however often it is tried.

    Args:
        key: Names it in the run, like `mail:42`.
        idempotent: The other side knows the key and ignores repetition: in doubt it is done again
            and nobody is asked.
    """
    key, now = readable(key), doing.get()
    return OneEffect(f"{now.here.run if now else ''}/{key}", key, idempotent)


def surely_not_done(error: Exception) -> bool:
    """Whether an error says that nothing happened on the other side."""
    told = getattr(error, "status_code", None)
    status = told or getattr(getattr(error, "response", None), "status_code", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409)
    return refused or isinstance(error, NotDone | ConnectionRefusedError)


@dataclass
class _Turn:
    """One execution that meets an effect."""

    effect: OneEffect
    now: Doing
    told: JsonValue
    holder: str = field(default_factory=lambda: uuid4().hex)
    output: JsonValue = None

    def __post_init__(self) -> None:
        self.alone = _lock(self.now, self.effect.key)

    async def begin(self) -> bool:
        """Whether it is to be done now."""
        here = self.now.here
        wanted = Effect(
            key=self.effect.key,
            name=self.effect.name,
            holder=self.holder,
            told=self.told,
            task=self.now.task,
            agent=self.now.agent,
            at=here.services.clock.now(),
        )
        known = await here.services.effects.begin(here.thread, wanted)
        how = meet(known, self.holder, idempotent=self.effect.idempotent)
        if how == "unsure":
            self.now.unsure.append(known)
            raise Unsure(known)
        self.output = known.output
        self.tell("begun" if how == "act" else "known")
        return how == "act"

    def ended(self, output: object) -> None:
        """Take what it returned, as plain JSON."""
        self.output = from_json(to_json(output, inf_nan_mode="constants", fallback=str))

    async def keep(self) -> None:
        """Write down that it is done."""
        await self._settle("done")

    async def failed(self, error: Exception) -> None:
        """Write down that it is not done, if that is sure."""
        if surely_not_done(error):
            await self._settle("undone")

    async def _settle(self, status: EffectStatus) -> None:
        here, key = self.now.here, self.effect.key
        await here.services.effects.settle(here.thread, key, self.holder, status, self.output)
        self.tell(status)

    def tell(self, what: str) -> None:
        """Journal it."""
        about = {"task": self.now.task, "agent": self.now.agent, "why": self.effect.name}
        self.now.here.tell("effect", what, mark=f"{self.effect.key}/{self.holder}", **about)


def _doing(name: str) -> Doing:
    now = doing.get()
    if now is None:
        raise Misbuilt(f"effect {name!r} is met outside of a run: only agents and tools have some")
    return now


def _told(
    effect: OneEffect, act: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> JsonValue:
    """What a person is shown of a call; it is one that `act` can take."""
    try:
        inspect.signature(act).bind(*args, **kwargs)
    except TypeError as error:
        raise Misbuilt(f"effect {effect.name!r} can't be called like that: {error}") from None
    except ValueError:
        pass  # a function of C's tells nothing of itself
    if effect.told is not None:
        return effect.told
    name = getattr(act, "__name__", type(act).__name__)
    shown = {"function": name, "args": args, "kwargs": kwargs}
    told: JsonValue = from_json(to_json(shown, inf_nan_mode="constants", fallback=repr))
    return told


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _wait(now: Doing, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, now.loop).result()


_locks: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[tuple[int, str, str], asyncio.Lock]
] = WeakKeyDictionary()


def _lock(now: Doing, key: str) -> asyncio.Lock:
    """Whoever meets the same effect in this process meanwhile waits."""
    locks = _locks.setdefault(now.loop, WeakValueDictionary())
    place = id(now.here.services.effects), now.here.thread, key
    lock = locks.get(place) or asyncio.Lock()
    return locks.setdefault(place, lock)
