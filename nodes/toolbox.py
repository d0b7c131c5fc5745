"""A chat model's tools: what it is told of them, and what happens when it calls some."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.errors import GraphBubbleUp

from kapelle.nodes.prompt import readable
from kapelle.state.errors import Misbuilt

Tool = BaseTool | Callable[..., Any]

MOST_CALLS = 32
"""Tool calls of one answer that are carried out."""
MOST_CHARS = 50_000
"""Characters of what a tool returns that the model is shown."""


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

    async def carry_out(self, answer: AIMessage) -> list[ToolMessage]:
        """What the tools called say, in the order of the calls; they work at the same time."""
        calls, too_many = answer.tool_calls[:MOST_CALLS], answer.tool_calls[MOST_CALLS:]
        done = await asyncio.gather(*(self._use(call) for call in calls))
        left = [
            _error(c["id"], f"not done: the limit is {MOST_CALLS} calls at once") for c in too_many
        ]
        broken = [_error(c["id"], f"not done: {c['error']}") for c in answer.invalid_tool_calls]
        return [*done, *left, *broken]

    async def _use(self, call: ToolCall) -> ToolMessage:
        chosen = self._tools.get(call["name"])
        if chosen is None:
            known = ", ".join(self._tools)
            return _error(call["id"], f"there is no tool {call['name']!r}; there are: {known}")
        try:
            said = await chosen.ainvoke(cast(dict[str, Any], {**call, "type": "tool_call"}))
        except GraphBubbleUp:  # an interrupt is no failure of the tool
            raise
        except Exception as error:  # noqa: BLE001 - the model is told, and can do better
            return _error(call["id"], f"{type(error).__name__}: {error}")
        if isinstance(said, ToolMessage):
            return _message(call["id"], said.text, said.status)
        return _message(call["id"], str(said), "success")


def _made(given: Tool) -> BaseTool:
    if isinstance(given, BaseTool):
        return given
    try:
        return tool(given)
    except (TypeError, ValueError) as error:
        raise Misbuilt(f"{given!r} can't be a tool: {error}") from error


def _error(call: str | None, why: str) -> ToolMessage:
    return _message(call, why, "error")


def _message(call: str | None, text: str, status: Any) -> ToolMessage:
    if len(text) > MOST_CHARS:
        text = f"{text[:MOST_CHARS]}… (cut: {len(text)} characters)"
    return ToolMessage(readable(text), tool_call_id=call or "", status=status)
