"""A chat model as an agent: structured output, tools, and the tokens it really used."""

import asyncio
import importlib
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, ValidationError

from kapelle.nodes.agent import Unusable, Where
from kapelle.nodes.prompt import messages, readable
from kapelle.state.budget import Usage
from kapelle.state.context import Claim
from kapelle.state.errors import Misbuilt, NoModel
from kapelle.state.skills import AgentCard, Tier
from kapelle.state.task import Brief, Reply, Task

Tool = BaseTool | Callable[..., Any]

MOST_CALLS = 32
"""Tool calls of one answer that are carried out."""
MOST_CHARS = 50_000
"""Characters of what a tool returns that the model is shown."""

_HOW = (
    "set OPENAI_API_KEY (any value, if your server needs none), "
    "and OPENAI_BASE_URL for a server other than OpenAI's"
)
_CUT_OFF = ("length", "max_tokens", "MAX_TOKENS")


class ModelAgent:
    """A chat model that does tasks.

    Args:
        name: Its name in the graph.
        model: `"openai:NAME"` (needs OPENAI_API_KEY, honours OPENAI_BASE_URL), `"provider:NAME"`
            (needs the package `langchain` and the provider's), or any LangChain chat model.
        skills: Like `research.web`.
        output: What it answers with. A field `confidence` (a float) or `claims` (of `Claim`)
            in it counts as the reply's own too. None: text.
        tools: LangChain tools, or functions with annotations and a docstring.
        prompt: Its role, in the system prompt.
        description: What it is good for; in the system prompt and on its card.
        tier: What class of model it is.
        max_tokens: The most tokens of one answer, unless the model has a limit already.
        max_steps: The most answers of one try: calls of tools, then the answer proper.

    Raises:
        NoModel: when there is no model, or its key or package is missing; says what to do.
        Misbuilt: when the model can't call tools, or two tools have one name.
    """

    where: Where = "loop"

    def __init__(
        self,
        name: str,
        model: str | BaseChatModel | None,
        *,
        skills: Sequence[str] = (),
        output: type[BaseModel] | None = None,
        tools: Sequence[Tool] = (),
        prompt: str = "",
        description: str = "",
        tier: Tier = "standard",
        max_tokens: int = 4096,
        max_steps: int = 8,
    ) -> None:
        if isinstance(skills, str):
            raise Misbuilt(f"skills of {name} must be a list, like [{skills!r}]")
        self.card = AgentCard(
            name=name, skills=tuple(skills), description=description, tier=tier, output=output
        )
        self.model = chat_model(model, max_tokens)
        self.prompt = prompt
        self._tools = _by_name(tools)
        self._answer = _answer_tool(output) if output else None
        self._max_tokens = getattr(self.model, "max_tokens", None) or max_tokens
        self._max_steps = max_steps if tools else 1
        self._bound, self._form = self._bind()

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, a chat model>"

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """The prompt, at three bytes a token, and the longest answer, for each step there may be."""
        prompt = self._size(self._messages(task, brief))
        steps = self._max_steps
        return _used(steps * prompt, steps * self._max_tokens)

    async def act(self, task: Task, brief: Brief) -> Reply:
        """Ask the model, run the tools it calls, until it answers.

        Raises:
            Unusable: when the answer can't be used; it says why.
            Exception: the provider's own errors, as they are; `usage` on them is what earlier
                steps of the same try used.
        """
        said = self._messages(task, brief)
        most = self.estimate(task, brief).tokens
        spent = _used(0, 0)
        for _ in range(self._max_steps):
            if spent.tokens and spent.tokens + self._size(said) + self._max_tokens > most:
                raise Unusable(f"no answer within the {most} tokens of one try", spent)
            answer = await self._ask(said, spent)
            spent = _sum(spent, self._usage(said, answer))
            self._refuse_broken(answer, spent)
            if self._is_final(answer):
                return self._reply(answer, spent)
            said = [*said, answer, *await self._carry_out(answer)]
        raise Unusable(f"no answer within {self._max_steps} steps", spent)

    def _bind(self) -> tuple[Runnable[LanguageModelInput, BaseMessage], str]:
        """The model with its tools, and how it is told to answer."""
        schemas: list[Any] = [*self._tools.values(), *([self._answer] if self._answer else [])]
        if not schemas:
            return self.model, ""
        try:
            bound = self.model.bind_tools(schemas, tool_choice="any" if self._answer else None)
        except NotImplementedError:
            if self._tools or self._answer is None:
                raise Misbuilt(f"the model of {self.card.name} can't call tools") from None
            schema = json.dumps(self._answer["function"]["parameters"])
            return (
                self.model,
                f"Answer with one JSON object of this schema, and nothing else: {schema}",
            )
        return bound, f"Answer by calling `{_name(self._answer)}`." if self._answer else ""

    def _messages(self, task: Task, brief: Brief) -> list[BaseMessage]:
        return messages(self.card, self.prompt, task, brief, self._form)

    async def _ask(self, said: list[BaseMessage], spent: Usage) -> AIMessage:
        try:
            return cast(AIMessage, await self._bound.ainvoke(said))
        except Exception as error:
            error.usage = spent  # type: ignore[attr-defined]  # else what was paid for is not booked
            raise

    def _refuse_broken(self, answer: AIMessage, spent: Usage) -> None:
        metadata = answer.response_metadata
        if (metadata.get("finish_reason") or metadata.get("stop_reason")) in _CUT_OFF:
            why = f"the answer was cut off at {self._max_tokens} tokens; be brief"
            raise Unusable(why, spent)
        if refusal := answer.additional_kwargs.get("refusal"):
            raise Unusable(f"the model refused: {refusal}", spent)

    def _is_final(self, answer: AIMessage) -> bool:
        called = [call["name"] for call in [*answer.tool_calls, *answer.invalid_tool_calls]]
        return not called or (self._answer is not None and _name(self._answer) in called)

    def _reply(self, answer: AIMessage, spent: Usage) -> Reply:
        if self.card.output is None:
            text = answer.text.strip()
            if not text:
                raise Unusable("the answer was empty", spent)
            return Reply(output=text, usage=spent)
        try:
            output = self._structured(answer, self.card.output)
        except (ValidationError, ValueError) as error:
            raise Unusable(_why(error, answer, self.card.output), spent) from error
        return Reply(
            output=output, confidence=_confidence(output), claims=_claims(output), usage=spent
        )

    def _structured(self, answer: AIMessage, schema: type[BaseModel]) -> BaseModel:
        for call in answer.tool_calls:
            if call["name"] == _name(self._answer):
                return schema.model_validate_json(json.dumps(call["args"]))
        for broken in answer.invalid_tool_calls:
            raise ValueError(f"the arguments of {broken['name']} are not JSON: {broken['error']}")
        return schema.model_validate_json(_unfenced(answer.text))

    async def _carry_out(self, answer: AIMessage) -> list[ToolMessage]:
        """What the tools say, in the order of the calls; they work at the same time."""
        calls, too_many = answer.tool_calls[:MOST_CALLS], answer.tool_calls[MOST_CALLS:]
        results = await asyncio.gather(*(self._use(call) for call in calls))
        limit = f"not done: at most {MOST_CALLS} calls at once"
        broken = [(c["id"], f"not done: {c['error']}") for c in answer.invalid_tool_calls]
        refused = [(call["id"], limit) for call in too_many] + broken
        return [*results, *(_error(call_id, why) for call_id, why in refused)]

    async def _use(self, call: ToolCall) -> ToolMessage:
        chosen = self._tools.get(call["name"])
        if chosen is None:
            there_are = ", ".join(self._tools)
            return _error(call["id"], f"there is no tool {call['name']!r}; there are: {there_are}")
        try:
            result = await chosen.ainvoke(cast(Any, {**call, "type": "tool_call"}))
        except GraphBubbleUp:
            raise
        except Exception as error:
            return _error(call["id"], f"{type(error).__name__}: {error}")
        if isinstance(result, ToolMessage):
            return _shown(call["id"], result.text, result.status)
        return _shown(call["id"], str(result))

    def _size(self, said: Sequence[BaseMessage]) -> int:
        """Tokens of a prompt, at three bytes each: more than English or code has as a rule."""
        schemas = [t.tool_call_schema for t in self._tools.values()]
        ...

    def _usage(self, said: Sequence[BaseMessage], answer: AIMessage) -> Usage:
        """As the provider reports it; estimated if it does not."""
        if answer.usage_metadata is not None:
            return _used(
                answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]
            )
        return _used(self._size(said), _tokens(answer.text + json.dumps(answer.tool_calls)))
