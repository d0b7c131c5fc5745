"""How a run stands: its status, what left it, what it asks and the ways to answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import JsonValue

from kapelle.nodes.door import wait
from kapelle.state.approval import Approval, Ask, Choice
from kapelle.state.budget import Usage
from kapelle.state.task import Result, Task

Answer = Callable[[str, Approval], Awaitable["Run"]]
"""Answers an ask, by its id; how its run then stands."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution: how it stands, what left it, what it asks."""

    thread: str
    graph: str
    status: str
    """`running`, `waiting`, `done`, `partial`, `failed` or `refused`."""
    task: Task
    result: Result | None = None
    """What left the run; None while it runs or waits."""
    asks: tuple["OpenAsk", ...] = ()
    """What waits for a person, oldest first."""
    approvals: tuple[Approval, ...] = ()
    """What people answered, oldest first."""

    @property
    def usage(self) -> Usage:
        """What the run used, as far as its result says."""
        return self.result.usage if self.result else Usage()

    def document(self) -> dict[str, JsonValue]:
        """The run as plain JSON that every reader takes: NaN and infinity stand in it as text."""
        return {
            "thread": self.thread,
            "graph": self.graph,
            "status": self.status,
            "task": self.task.document(),
            "result": self.result.document() if self.result else None,
            "asks": [each.ask.document() for each in self.asks],
            "approvals": [approval.document() for approval in self.approvals],
        }


@dataclass(frozen=True)
class OpenAsk:
    """An ask of a run, with the ways to answer it; each returns the run as it then stands."""

    ask: Ask
    answer: Answer = field(repr=False)
    """Gives it an answer and drives its run on."""

    @property
    def id(self) -> str:
        """What the command line and `Runs.answer` know it by."""
        return self.ask.id

    @property
    def question(self) -> str:
        """What a person is to decide."""
        return self.ask.question

    @property
    def reason(self) -> str:
        """Why nobody else could decide it."""
        return self.ask.reason

    @property
    def evidence(self) -> JsonValue:
        """What is shown; approved, it becomes the output."""
        return self.ask.evidence

    @property
    def offers(self) -> tuple[Choice, ...]:
        """The answers that make sense."""
        return self.ask.offers

    def approve(self, *, by: str) -> Run:
        """Accept what is shown."""
        return wait(self.aapprove(by=by))

    def edit(self, value: JsonValue, *, by: str) -> Run:
        """Replace what is shown."""
        return wait(self.aedit(value, by=by))

    def reject(self, reason: str = "", *, by: str) -> Run:
        """Refuse it."""
        return wait(self.areject(reason, by=by))

    def respond(self, value: JsonValue, *, by: str) -> Run:
        """Say something and have it done again."""
        return wait(self.arespond(value, by=by))

    async def aapprove(self, *, by: str) -> Run:
        """`approve`, to be awaited."""
        return await self._answer("approve", by)

    async def aedit(self, value: JsonValue, *, by: str) -> Run:
        """`edit`, to be awaited."""
        return await self._answer("edit", by, value=value)

    async def areject(self, reason: str = "", *, by: str) -> Run:
        """`reject`, to be awaited."""
        return await self._answer("reject", by, reason=reason)

    async def arespond(self, value: JsonValue, *, by: str) -> Run:
        """`respond`, to be awaited."""
        return await self._answer("respond", by, value=value)

    async def _answer(
        self, decision: Choice, by: str, value: JsonValue = None, reason: str = ""
    ) -> Run:
        answer = Approval(decision=decision, by=by, value=value, reason=reason)
        return await self.answer(self.ask.id, answer)
