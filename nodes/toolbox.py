"""A chat model's tools: what it is told of them, and what happens when it calls some."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, overload

from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, JsonValue, ValidationError

from kapelle.nodes.effect import OneEffect, Unsure, doing, surely_not_done
from kapelle.nodes.prompt import readable
from kapelle.state.approval import Escalation
from kapelle.state.errors import Misbuilt
from kapelle.state.proposal import Proposal, Ruling, needs_approval, request

Tool = BaseTool | Callable[..., Any]

MOST_CALLS = 32
"""Tool calls of one answer that are carried out."""
MOST_CHARS = 50_000
"""Characters of what a tool returns that the model is shown."""


_MARK = "kapelle"


@dataclass(frozen=True)
class Mark:
    """What is known of a tool beside what it says of itself."""

    once: bool = False
    """A call of it happens once, however often the code is run."""
    approve: bool = False
    """A person must approve each call."""
    idempotent: bool = False
    """Repetition does no harm: in doubt a call is done again."""


@overload
def consequential(tool: Tool, /) -> BaseTool: ...
@overload
def consequential(
    *, approve: bool = False, idempotent: bool = False
) -> Callable[[Tool], BaseTool]: ...
def consequential(
    tool: Tool | None = None, /, *, approve: bool = False, idempotent: bool = False
) -> Any:
    """Mark a tool as one with consequences, like sending a mail: each call of it happens once.

    Args:
        tool: A LangChain tool, or a function with annotations and a docstring.
        approve: A person must approve each call.
        idempotent: Repetition does no harm: a call in doubt is done again, nobody is asked.
    """

    def marked(given: Tool) -> BaseTool:
        made = _made(given)
        mark = Mark(once=True, approve=approve, idempotent=idempotent)
        return made.model_copy(update={"metadata": {**(made.metadata or {}), _MARK: mark}})

    return marked if tool is None else marked(tool)


class Toolbox:
    """Tools by name. What goes wrong in one is told to the model, not raised."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools: dict[str, BaseTool] = {}
        for given in tools:
            made = _made(given)
            if self._tools.setdefault(made.name, made) is not made:
                raise Misbuilt(f"two tools are called {made.name!r}; a name belongs to one")

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools as OpenAI's format describes them, which every LangChain model takes."""
        return [convert_to_openai_tool(each) for each in self._tools.values()]

    def mark(self, name: str, approve: Iterable[str] = ()) -> Mark:
        """What is known of a tool, where those in `approve` need approval as well."""
        chosen = self._tools.get(name)
        if chosen is None:
            return Mark()
        found = (chosen.metadata or {}).get(_MARK)
        mark = found if isinstance(found, Mark) else Mark()
        if needs_approval(name, approve):
            return replace(mark, once=True, approve=True)
        return mark

    def guarded(self, approve: Iterable[str]) -> bool:
        """Whether any tool has consequences, or needs approval."""
        return any(self.mark(name, tuple(approve)).once for name in self._tools)

    def request(self, proposal: Proposal) -> Escalation:
        """What a person is asked about a proposed call."""
        told = convert_to_openai_tool(self._tools[proposal.tool])["function"]
        return request(proposal, told.get("description", ""), told.get("parameters"))

    async def carry_out(self, answer: AIMessage) -> list[ToolMessage]:
        """What the tools called say, in the order of the calls; they work at the same time.

        Tools that need approval are not used: there is nobody to ask here.
        """
        done = await asyncio.gather(*(self._use(call) for call in answer.tool_calls[:MOST_CALLS]))
        return [*done, *self.left_out(answer)]

    def left_out(self, answer: AIMessage) -> list[ToolMessage]:
        """What the model is told of calls that can't be carried out at all."""
        too_many = answer.tool_calls[MOST_CALLS:]
        left = [
            _error(c["id"], f"not done: the limit is {MOST_CALLS} calls at once") for c in too_many
        ]
        return left + [
            _error(c["id"], f"not done: {c['error']}") for c in answer.invalid_tool_calls
        ]

    async def use(self, proposal: Proposal, ruling: Ruling, mark: Mark) -> ToolMessage:
        """Carry out one proposed call as ruled; if it has consequences, once.

        Raises:
            Unsure: it was begun before, or failed, and nobody knows whether it happened.
        """
        if not ruling.use:
            return message(proposal.call, ruling.say, "error" if ruling.refused else "success")
        call = ToolCall(name=proposal.tool, args=ruling.args, id=proposal.call, type="tool_call")
        said = await (self._once(proposal, call, mark) if mark.once else self._use(call))
        if not ruling.say:
            return said
        return message(proposal.call, f"{ruling.say} {said.text}", said.status)

    async def _once(self, proposal: Proposal, call: ToolCall, mark: Mark) -> ToolMessage:
        flaw = self._flaw(call)
        if flaw is not None:
            return flaw
        now = doing.get()
        key = f"{now.scope if now else ''}/{proposal.tool}/{proposal.digest}/{proposal.nth}"
        told: JsonValue = {"tool": proposal.tool, "args": call["args"]}
        single = OneEffect(readable(key), proposal.tool, mark.idempotent, told)
        try:
            said: Any = await single.once(self._said, call)
        except (GraphBubbleUp, Unsure):
            raise
        except Exception as error:  # noqa: BLE001 - the model is told, if nothing happened
            if surely_not_done(error):
                return _error(call["id"], f"{type(error).__name__}: {error}")
            said = await single.once(self._said, call)  # raises `Unsure`, unless it is idempotent
        if said is None:
            return message(call["id"], "It was done.", "success")
        if isinstance(said, dict) and set(said) == {"text", "status"}:
            return message(call["id"], str(said["text"]), said["status"])
        return message(call["id"], said if isinstance(said, str) else json.dumps(said), "success")

    def _flaw(self, call: ToolCall) -> ToolMessage | None:
        """What keeps a call from being begun."""
        chosen = self._tools.get(call["name"])
        if chosen is None:
            known = ", ".join(self._tools)
            return _error(call["id"], f"there is no tool {call['name']!r}; there are: {known}")
        try:
            cast(type[BaseModel], chosen.get_input_schema()).model_validate(call["args"])
        except ValidationError as error:
            return _error(call["id"], f"ValidationError: {error}")
        return None

    async def _said(self, call: ToolCall) -> dict[str, JsonValue]:
        said = await self._tools[call["name"]].ainvoke(cast(dict[str, Any], call))
        if isinstance(said, ToolMessage):
            return {"text": said.text, "status": said.status}
        return {"text": str(said), "status": "success"}

    async def _use(self, call: ToolCall) -> ToolMessage:
        chosen = self._tools.get(call["name"])
        if chosen is None:
            known = ", ".join(self._tools)
            return _error(call["id"], f"there is no tool {call['name']!r}; there are: {known}")
        if self.mark(call["name"]).approve:
            return _error(call["id"], "not done: a person must approve it, and none can be asked")
        try:
            said = await self._said(cast(ToolCall, {**call, "type": "tool_call"}))
        except (GraphBubbleUp, Unsure):  # an interrupt is no failure of the tool
            raise
        except Exception as error:  # noqa: BLE001 - the model is told, and can do better
            return _error(call["id"], f"{type(error).__name__}: {error}")
        return message(call["id"], str(said["text"]), said["status"])


def _made(given: Tool) -> BaseTool:
    if isinstance(given, BaseTool):
        return given
    try:
        return tool(given)
    except (TypeError, ValueError) as error:
        raise Misbuilt(f"{given!r} can't be a tool: {error}") from error


def _error(call: str | None, why: str) -> ToolMessage:
    return message(call, why, "error")


def message(call: str | None, text: str, status: Any) -> ToolMessage:
    """What a model is told of one of its calls."""
    if len(text) > MOST_CHARS:
        text = f"{text[:MOST_CHARS]}… (cut: {len(text)} characters)"
    return ToolMessage(readable(text), tool_call_id=call or "", status=status)
