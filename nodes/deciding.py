"""Decide what holds where claims can't all hold: by rule, by a judge; else a person is asked."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from langgraph.runtime import Runtime
from pydantic import JsonValue

from kapelle.nodes.agent import Agent
from kapelle.nodes.call import call
from kapelle.nodes.here import Here, here
from kapelle.nodes.judging import verdict_flaws
from kapelle.nodes.services import Services
from kapelle.state.approval import CHOICES, Choice, Escalation
from kapelle.state.context import (
    Claim,
    Contradiction,
    MasterContext,
    left_out,
    with_decisions,
    with_questions,
    without,
)
from kapelle.state.policy import Policy
from kapelle.state.reputation import UNSURE
from kapelle.state.resolving import decisions, question, typed_by, undisputed
from kapelle.state.review import (
    Found,
    ask_about,
    reviewed,
    ruled,
    stands_in,
    still_open,
    still_settled,
)
from kapelle.state.sayings import Said, sayings
from kapelle.state.task import Brief, Task
from kapelle.state.verdict import Verdict


class Arbiter(Protocol):
    """The node that has a judge choose."""

    async def __call__(self, state: Any, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What was found, with what the judge said of it, as an update."""
        ...


def arbitrate(judge: Agent, policy: Policy, parts: Callable[[Any], Iterable[Task]]) -> Arbiter:
    """The node that has the judge choose between sides; it can't bring in a value of its own.

    It does nothing else: once the judge has answered, that is kept, and no crash asks it again.
    """

    async def arbitrate(state: Any, runtime: Runtime[Services]) -> dict[str, Any]:
        place, task, found, left = here(runtime), state["task"], state["found"], state["result"]
        held = await held_by(place)
        brief = Brief(
            results=state["results"],
            goals={part.id: part.goal for part in parts(state)},
            context=await place.context(task, policy),
            disputes=still_open(found),
        )
        name = judge.card.name
        made = await call(
            judge, task, brief, here=place, policy=policy, check=partial(verdict_flaws, known=())
        )
        rulings = Verdict.model_validate(made.output).rulings if made.status == "done" else {}
        found = ruled(found, rulings, held, name)
        update: dict[str, Any] = {"found": found, "spent": state["spent"] + made.usage}
        if left is not None:
            update["result"] = left.model_copy(update={"usage": left.usage + made.usage})
        return update

    return arbitrate


async def held_by(place: Here) -> MasterContext:
    """The context, without what this very node had decided before a crash."""
    return without(await place.services.memory.context(place.thread), place.step)


@dataclass
class Case:
    """What is to be reconciled, and where."""

    claims: Sequence[Claim]
    promises: Mapping[str, Sequence[str]]
    """Keys that were to be claimed, with the tasks that promised them."""
    task: str
    """Id of the whole."""
    place: Here
    policy: Policy
    _said: tuple[MasterContext, Mapping[str, Said]] | None = None

    async def found(self, held: MasterContext) -> Found:
        """All that can't hold, settled as far as rules go: by reputation as a market reckons it."""
        agents = sorted({claim.by for claim in self.claims})
        known = await self.place.services.memory.records(agents, self.policy.decay)
        trust = self.policy.trust
        trusted = {name: r.overall.weighed(UNSURE, trust) for name, r in known.items()}
        with _unswept():
            return reviewed(self.said(held), self.promises, held, trusted)

    def said(self, held: MasterContext) -> Mapping[str, Said]:
        """What is claimed and decided, by key; of one context it is read once."""
        if self._said is None or self._said[0] is not held:
            self._said = held, sayings(self.claims, held)
        return self._said[1]

    async def asked(self, found: Found, offers: tuple[Choice, ...] = CHOICES) -> Escalation | None:
        """What a person is asked about what is open, if any is; the context holds it as open."""
        doubts = still_open(found)
        if not doubts or self.policy.on_contradiction != "ask":
            return None
        questions, most = [question(c) for c in doubts], self.policy.max_decisions
        law = partial(with_questions, questions=questions, most=most)
        await self.place.services.memory.change(self.place.thread, law)
        ask = ask_about(found, self.task, offers)
        self.place.tell("escalation", "asked", task=self.task, why=ask.reason)
        return ask

    async def decided(self, found: Found, held: MasterContext) -> Found:
        """Write down what is decided. Where another was faster, that is seen before going on."""
        place, memory, most = self.place, self.place.services.memory, self.policy.max_decisions
        while True:
            said = self.said(held)
            made = (*decisions(found), *undisputed(said, found))
            stamped = [d.model_copy(update={"step": place.step}) for d in made]
            keys, seen = typed_by(said), held.version
            law = partial(with_decisions, decisions=stamped, seen=seen, keys=keys, most=most)
            now = await memory.change(place.thread, law)
            if stands_in(now, stamped):
                break
            held, found = now, still_settled(await self.found(now), found)
        _tell_full(left_out(now, stamped), place, self.policy)
        for one in found:
            place.tell("choice", "decided", why=_why(one), mark=f"{one.kind}/{one.key}")
        return found


@contextmanager
def _unswept() -> Iterator[None]:
    """Without Python's search for circles of garbage, which is a third of the time of a large case.

    Every side that is made here stays; each search would go through all of them in vain.
    """
    sweeps = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if sweeps:
            gc.enable()


def tell_flagged(place: Here, found: Found) -> None:
    """Journal which work rests on what fell, and is not done again."""
    for one in found:
        if one.flagged:
            why = f"{one.key}: it rests on what does not stand"
            tasks: list[JsonValue] = [*one.flagged]
            mark = f"{one.kind}/{one.key}"
            place.tell("choice", "flagged", why=why, data={"tasks": tasks}, mark=mark)


def _tell_full(keys: Sequence[str], place: Here, policy: Policy) -> None:
    if keys:
        why = f"the master context holds {policy.max_decisions} decisions at most (max_decisions)"
        place.tell("choice", "left out", why=why, data={"keys": list(keys)})


def _why(found: Contradiction) -> str:
    if found.rule is None:
        return f"{found.key}: {found.why}; open"
    held = f" = {found.decision.value!r}" if found.decision else ""
    who = f" ({found.decision.who})" if found.decision and found.decision.who else ""
    return f"{found.key}{held}: by {found.rule}{who}; {found.why}"
