"""Shared memory: the master context of each run and project, kept in LangGraph's store."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4
from weakref import WeakKeyDictionary

from langgraph.store.base import BaseStore, GetOp, Item, Op, PutOp, SearchOp

from kapelle.nodes.measuring import is_shared, known_outcomes
from kapelle.state.context import Decision, MasterContext, with_decisions
from kapelle.state.reputation import Record, record_of

SHELF = ("kapelle", "contexts")
"""Where contexts lie in the store; each under a name of its own, its decisions below it."""

NEAREST = 200
"""Decisions that a search by meaning finds at most."""

_ALL = 1_000_000
_HEAD = "head"
_TRIES = 1_000

Law = Callable[[MasterContext], MasterContext]
"""What a context becomes: pure, since it is with_questions again when somebody else was faster."""


@runtime_checkable
class Swapping(Protocol):
    """A store that several processes may write to at once."""

    async def aswap(
        self,
        namespace: tuple[str, ...],
        key: str,
        expected: Mapping[str, Any] | None,
        puts: Sequence[PutOp],
    ) -> bool:
        """Do the puts if the item still has this value (None: is not there), in one transaction."""
        ...


@dataclass(frozen=True)
class _Read:
    """A context as it was read, with the head it was read from."""

    head: Mapping[str, Any] | None
    context: MasterContext


class StoreMemory:
    """Contexts in a store: one item for what is short, one for each decision.

    A reader sees one version of it. Whoever changes it says which version that was; if another was
    faster, the change is made again on what the other left. On `Database.store` that holds between
    processes; on other stores within one.
    """

    def __init__(self, store: BaseStore, most: int = 100) -> None:
        """At most `most` contexts are remembered, so that unchanged ones are not read again."""
        self._store = store
        self._most = most
        self._known: OrderedDict[str, _Read] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    async def open(
        self, thread: str, begun: MasterContext, project: str | None = None
    ) -> MasterContext:
        """Begin the context of a run; one of a project is gone on with, and `begun` added to it."""
        name = _name("run", thread) if project is None else _name("project", project)
        run = {"name": name, "goal": begun.goal, "thread": thread, "project": project}
        await self._store.aput((*SHELF, "runs"), thread, run, index=False)
        if project is None:
            await self._clear(name)
        return await self.change(thread, lambda held: _begun(held, begun))

    async def context(self, thread: str) -> MasterContext:
        """The document as it stands."""
        goal, _, read = await self._look(thread)
        return read.context.model_copy(update={"goal": goal}) if goal else read.context

    async def change(self, thread: str, law: Law) -> MasterContext:
        """Change the document by `law`; what it then is, with what others changed meanwhile."""
        for _ in range(_TRIES):
            goal, name, old = await self._look(thread)
            new = law(old.context.model_copy(update={"goal": goal}))
            if new.model_copy(update={"goal": old.context.goal}) == old.context:
                return new
            if await self._write(name, old, new):
                return new
        raise RuntimeError(f"the context of thread {thread!r} changes too fast")  # pragma: no cover

    async def near(self, thread: str, text: str) -> dict[str, float]:
        """Keys of the decisions nearest to a text, with their likeness; none without embeddings."""
        if not getattr(self._store, "index_config", None) or not text:
            return {}
        _, name, _ = await self._look(thread)
        found = await self._store.asearch(_decisions(name), query=text[:8_000], limit=NEAREST)
        return {item.key: item.score for item in found if item.score is not None}

    async def records(self, agents: Sequence[str], decay: float) -> dict[str, Record]:
        """What was measured of agents, by name; those nobody measured are left out.

        So are names that several cards have come under: whose it is, a name does not tell.
        """
        found = {
            agent: await known_outcomes(self._store, agent)
            for agent in agents
            if not await is_shared(self._store, agent)
        }
        return {agent: record_of(outcomes, decay) for agent, outcomes in found.items() if outcomes}

    async def forget(self, thread: str) -> None:
        """Forget a run's context; a project's stays."""
        _, name, _ = await self._look(thread)
        await self._store.adelete((*SHELF, "runs"), thread)
        if name == _name("run", thread):
            await self._clear(name)

    async def _look(self, thread: str) -> tuple[str, str, _Read]:
        """A run's goal, the name of its context, and that context. One look, if it is known."""
        guess = self._names.get(thread, _name("run", thread))
        wanted: list[Op] = [GetOp((*SHELF, "runs"), thread), GetOp((*SHELF, guess), _HEAD)]
        run, head = (_value(found) for found in await self._store.abatch(wanted))
        goal, name = (run["goal"], run["name"]) if run else ("", _name("run", thread))
        self._names[thread] = name
        while len(self._names) > 10 * self._most:
            self._names.popitem(last=False)
        known = self._known.get(name)
        if name == guess and known is not None and known.head == head:
            return goal, name, known
        return goal, name, await self._read(name)

    async def _read(self, name: str) -> _Read:
        wanted: list[Op] = [GetOp((*SHELF, name), _HEAD), SearchOp(_decisions(name), limit=_ALL)]
        head, found = await self._store.abatch(wanted)  # one snapshot
        assert isinstance(found, list)
        decided = [Decision.model_validate(i.value["decision"]) for i in found]  # type: ignore[union-attr]
        decided.sort(key=lambda d: d.key)
        value = _value(head)
        written = {k: v for k, v in (value or {}).items() if k != "mark"}
        context = MasterContext.model_validate({**written, "decisions": tuple(decided)})
        return self._keep(name, _Read(value, context))

    def _keep(self, name: str, read: _Read) -> _Read:
        self._known[name] = read
        self._known.move_to_end(name)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return read

    async def _write(self, name: str, old: _Read, new: MasterContext) -> bool:
        head = new.model_dump(mode="json", exclude={"decisions", "omitted"})
        head["mark"] = uuid4().hex
        puts = [PutOp((*SHELF, name), _HEAD, head, index=False)]
        before = {d.key: d for d in old.context.decisions}
        puts += [_put(name, d) for d in new.decisions if before.get(d.key) != d]
        gone = before.keys() - {d.key for d in new.decisions}
        puts += [PutOp(_decisions(name), key, None) for key in sorted(gone)]
        done = await self._swap(name, old.head, puts)
        if done:
            self._keep(name, _Read(head, new))
        return done

    async def _swap(
        self, name: str, expected: Mapping[str, Any] | None, puts: Sequence[PutOp]
    ) -> bool:
        if isinstance(self._store, Swapping):
            return await self._store.aswap((*SHELF, name), _HEAD, expected, puts)
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            item = await self._store.aget((*SHELF, name), _HEAD)
            if (item.value if item else None) != expected:
                return False
            await self._store.abatch(puts)
            return True

    async def _clear(self, name: str) -> None:
        found = await self._store.asearch(_decisions(name), limit=_ALL)
        gone: list[Op] = [PutOp(_decisions(name), item.key, None) for item in found]
        await self._store.abatch([PutOp((*SHELF, name), _HEAD, None), *gone])


def _value(found: object) -> Mapping[str, Any] | None:
    return found.value if isinstance(found, Item) else None


def _name(kind: str, of: str) -> str:
    """A label that no thread and no project can forge: labels may not hold every character."""
    return f"{kind}-{sha256(of.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def _decisions(name: str) -> tuple[str, ...]:
    return (*SHELF, name, "decisions")


def _put(name: str, decision: Decision) -> PutOp:
    value = {
        "decision": decision.model_dump(mode="json"),
        "text": f"{decision.key}: {decision.value}",
    }
    return PutOp(_decisions(name), decision.key, value, index=["text"])


def _begun(held: MasterContext, begun: MasterContext) -> MasterContext:
    """What is held, with what a run begins with added to it."""
    constraints = {c.text: c for c in (*held.constraints, *begun.constraints)}
    keys = {k.name: k for k in (*held.keys, *begun.keys)}
    questions = {q.text: q for q in (*held.questions, *begun.questions)}
    new = held.model_copy(
        update={
            "goal": begun.goal,
            "constraints": tuple(constraints.values()),
            "keys": tuple(keys.values()),
            "questions": tuple(questions.values()),
        }
    )
    if new.model_copy(update={"goal": held.goal}) != held:
        new = new.model_copy(update={"version": held.version + 1})
    return with_decisions(new, begun.decisions, seen=new.version)
