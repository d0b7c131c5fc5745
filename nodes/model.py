"""A chat model as an agent: structured output, tools, and the tokens it really used."""

import asyncio
import json
import re
from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ValidationError

from kapelle.nodes.agent import Unusable, Where
from kapelle.nodes.chat_model import chat_model, in_this_loop
from kapelle.nodes.failing import worth_retrying
from kapelle.nodes.limiting import another_request
from kapelle.nodes.pricing import cost, name_of
from kapelle.nodes.prompt import messages
from kapelle.nodes.tiers import Models, Standby, Tiers, several
from kapelle.nodes.toolbox import Tool, Toolbox
from kapelle.state.budget import Usage
from kapelle.state.context import Claim
from kapelle.state.errors import Misbuilt
from kapelle.state.ladder import tier_of
from kapelle.state.message import Message
from kapelle.state.policy import Policy
from kapelle.state.price import Price
from kapelle.state.skills import AgentCard
from kapelle.state.task import TIERS, Brief, Plan, Reply, Task, Tier
from kapelle.state.verdict import Verdict

N = TypeVar("N", Claim, Message)

Bound = Runnable[LanguageModelInput, BaseMessage]

_ROLES: dict[type[BaseModel] | None, str] = {Plan: "planning", Verdict: "judging"}
"""What kind of work gives these outputs."""

_CUT_OFF = ("length", "max_tokens", "MAX_TOKENS")
"""How OpenAI, Anthropic and Google say that the limit of tokens was reached."""


class ModelAgent:
    """A chat model that does tasks.

    Args:
        name: Its name in the graph.
        model: `"openai:NAME"` (needs OPENAI_API_KEY, honours OPENAI_BASE_URL), `"provider:NAME"`
            (needs the package `langchain` and the provider's), or any LangChain chat model. A list
            of them: the first is asked, the next where it is down. `Tiers`: what its tier has.
        skills: Like `research.web`.
        output: What it answers with; None: text. A field `confidence` (a float), `claims` (of
            `Claim`) or `messages` (of `Message`) in it counts as the reply's own too.
        tools: LangChain tools, or functions with annotations and a docstring.
        prompt: Its role, for the system prompt.
        description: What it is good for; in the system prompt and on its card.
        tier: What class of model it is; of `Tiers`, by default what its role needs. With `Tiers`
            and none chosen, it goes up a tier where `Policy(min_confidence=…)` wants it surer.
        max_tokens: The most tokens of one answer, if the model has no such limit already.
        max_steps: The most answers of one try: calls of tools, and the answer proper.
        price: What it costs; by default what genai-prices lists. Where nobody knows, it is
            unpriced, and refused where money is limited.

    Raises:
        NoModel: when there is no model, or its key or package is missing; says what to do.
        Misbuilt: when the model can't call tools, or two tools have one name.
    """

    where: Where = "loop"

    def __init__(  # noqa: PLR0913 - each is a setting with a default
        self,
        name: str,
        model: Models | Tiers | None,
        *,
        skills: Sequence[str] = (),
        output: type[BaseModel] | None = None,
        tools: Sequence[Tool] = (),
        prompt: str = "",
        description: str = "",
        tier: Tier | None = None,
        max_tokens: int = 4096,
        max_steps: int = 8,
        price: Price | None = None,
    ) -> None:
        if isinstance(skills, str):
            raise Misbuilt(f"skills of {name} must be a list, like [{skills!r}]")
        roles = [*skills, *([_ROLES[output]] if output in _ROLES else [])]
        own = tier or (tier_of(roles) if isinstance(model, Tiers) else "standard")
        self.card = AgentCard(
            name=name, skills=tuple(skills), description=description, tier=own, output=output
        )
        self._tiers = model if isinstance(model, Tiers) else None
        self._climbs = tier is None and "confidence" in getattr(output, "model_fields", ())
        self._elsewhere: dict[Tier, ModelAgent] = {}
        self.prompt = prompt
        models = model.at(own) if isinstance(model, Tiers) else model
        self.standby = Standby([chat_model(each, max_tokens) for each in several(models)])
        self.model = self.standby.models[0]
        self.max_tokens: int = getattr(self.model, "max_tokens", None) or max_tokens
        self.max_steps = max_steps if tools else 1
        self.price = price
        self.meter = name_of(self.model)
        self.toolbox = Toolbox(tools)
        self._answering = _answering(output, self.toolbox)
        self._schemas = [*self.toolbox.schemas, *([self._answering] if self._answering else [])]
        self._form = self._asked_form()

    def __repr__(self) -> str:
        return f"<agent {self.card.name}, a chat model>"

    def at(self, tier: Tier | None) -> "ModelAgent":
        """The agent with the model of another tier, if it has `Tiers` to choose from."""
        if tier in (None, self.card.tier) or self._tiers is None:
            return self
        if tier not in self._elsewhere:
            models = several(self._tiers.at(tier))
            other = copy(self)
            other.card = self.card.model_copy(update={"tier": tier})
            other.standby = Standby([chat_model(each, self.max_tokens) for each in models])
            other.model = other.standby.models[0]
            other.max_tokens = getattr(other.model, "max_tokens", None) or self.max_tokens
            other.meter = name_of(other.model)
            self._elsewhere[tier] = other
        return self._elsewhere[tier]

    def rungs(self, policy: Policy) -> "list[ModelAgent]":
        """The agent at each tier it goes up, the cheapest first: all that have a model.

        It goes up none where its `tier` was chosen for it, or its output has no `confidence`.
        """
        found: list[ModelAgent] = [self]
        if self._tiers is not None and self._climbs and policy.min_confidence:
            for tier in TIERS[TIERS.index(self.card.tier) + 1 :]:
                known = [self._tiers.at(each.card.tier) for each in found]
                if getattr(self._tiers, tier) is not None and self._tiers.at(tier) not in known:
                    found.append(self.at(tier))
        return found

    def estimate(self, task: Task, brief: Brief) -> Usage:
        """The prompt and the longest answer, as often as there are steps. Fetches nothing.

        Tokens of the prompt are its bytes / 3: more than English or code has, but no strict limit.
        """
        prompt = self._size(self.messages(task, brief))
        return self.usage(self.max_steps * prompt, self.max_steps * self.max_tokens)

    async def act(self, task: Task, brief: Brief) -> Reply:
        """Ask the model, carry out the tools it calls, until it answers.

        Raises:
            Unusable: when the answer can't be used; says why.
            Exception: the provider's own error as it is; its `usage` is what earlier steps used.
        """
        said = self.messages(task, brief)
        most = self.estimate(task, brief).tokens
        spent = Usage(calls=1)
        for _ in range(self.max_steps):
            if spent.tokens and spent.tokens + self._size(said) + self.max_tokens > most:
                raise Unusable(f"no answer within the {most} tokens reserved for one try", spent)
            if spent.tokens:
                another_request()
            answer = await self._ask(said, spent)
            spent = _sum(spent, self._usage(said, answer))
            self._refuse_unfinished(answer, spent)
            if self._is_final(answer):
                return self.reply(answer, spent)
            said = [*said, answer, *await self.toolbox.carry_out(answer)]
        raise Unusable(f"no answer within {self.max_steps} steps", spent)

    def messages(self, task: Task, brief: Brief) -> list[BaseMessage]:
        """What the model is told."""
        return messages(self.card, self.prompt, task, brief, self._form)

    def _asked_form(self) -> str:
        """How the model is told to answer. One that can't call tools is shown the schema."""
        try:
            self._bind(self.model)
        except NotImplementedError:
            if self.toolbox or self._answering is None:
                raise Misbuilt(f"the model of {self.card.name} can't call tools") from None
            schema = json.dumps(self._answering["function"]["parameters"])
            self._schemas = []
            return f"Answer with nothing but one JSON object of this schema: {schema}"
        return f"Give your answer by calling `{_name(self._answering)}`." if self._answering else ""

    def _bind(self, model: BaseChatModel) -> Bound:
        if not self._schemas:
            return model
        return model.bind_tools(self._schemas, tool_choice="any" if self._answering else None)

    async def step(self, said: list[BaseMessage]) -> tuple[AIMessage, Usage, bool]:
        """One answer: what the model says, what that used, and whether it is the answer proper.

        Raises:
            Unusable: when it can't be used; says why.
            Exception: the provider's own error as it is.
        """
        answer = await self._ask(said, Usage())
        spent = self._usage(said, answer)
        self._refuse_unfinished(answer, spent)
        return answer, spent, self._is_final(answer)

    def most(self, said: Sequence[BaseMessage]) -> Usage:
        """The most one answer to this may use."""
        return self.usage(self._size(said), self.max_tokens)

    def needs_gate(self, policy: Policy) -> bool:
        """Whether it has tools that change the world, or that a person must approve."""
        return self.toolbox.guarded(policy.approve_tools)

    async def _ask(self, said: list[BaseMessage], spent: Usage) -> AIMessage:
        """One answer, of the first model that is not down."""
        models = list(self.standby.in_turn())
        for place, model in models:
            bound = self._bind(await in_this_loop(model))
            try:
                return cast(AIMessage, await bound.ainvoke(said))
            except asyncio.CancelledError:
                self.standby.failed(place)  # it took too long: the next try asks another
                raise
            except Exception as error:
                self.standby.failed(place)
                if place == models[-1][0] or not worth_retrying(error):
                    error.usage = spent  # type: ignore[attr-defined]  # earlier steps were paid for
                    raise
        raise AssertionError("there is always a model")

    def _refuse_unfinished(self, answer: AIMessage, spent: Usage) -> None:
        told = answer.response_metadata
        if (told.get("finish_reason") or told.get("stop_reason")) in _CUT_OFF:
            why = f"the answer was cut off at {self.max_tokens} tokens; be brief"
            raise Unusable(why, spent, model_of(answer))
        if refusal := answer.additional_kwargs.get("refusal"):
            raise Unusable(f"the model refused: {refusal}", spent, model_of(answer))

    def _is_final(self, answer: AIMessage) -> bool:
        called = [call["name"] for call in (*answer.tool_calls, *answer.invalid_tool_calls)]
        return not called or (self._answering is not None and _name(self._answering) in called)

    def reply(self, answer: AIMessage, spent: Usage) -> Reply:
        """What an answer proper gives back; `Unusable` if it is not what was asked for."""
        if self.card.output is None:
            if not answer.text.strip():
                raise Unusable("the answer was empty", spent, model_of(answer))
            return Reply(output=answer.text, usage=spent, model=model_of(answer))
        try:
            output = self.card.output.model_validate_json(self._json(answer))
        except ValidationError as error:
            why = _why(error, answer, self.card.output)
            raise Unusable(why, spent, model_of(answer)) from error
        return Reply(
            output=output,
            confidence=_confidence(output),
            claims=_said(output, "claims", Claim),
            messages=_said(output, "messages", Message),
            usage=spent,
            model=model_of(answer),
        )

    def _json(self, answer: AIMessage) -> str:
        """The arguments of the call that answers; else the text, which may be JSON."""
        for call in answer.tool_calls:
            if self._answering and call["name"] == _name(self._answering):
                return json.dumps(call["args"])
        for broken in answer.invalid_tool_calls:
            return broken["args"] or ""
        return _unfenced(answer.text)

    def _size(self, said: Sequence[BaseMessage]) -> int:
        calls = [m.tool_calls for m in said if isinstance(m, AIMessage)]
        return _tokens("".join(m.text for m in said) + json.dumps([self._schemas, calls]))

    def _usage(self, said: Sequence[BaseMessage], answer: AIMessage) -> Usage:
        """As the provider reports it; estimated where it does not, so that a budget holds."""
        told = answer.usage_metadata
        if told is None:
            wrote = _tokens(answer.text + json.dumps(answer.tool_calls))
            return self.usage(self._size(said), wrote, by=model_of(answer))
        read, wrote = told["input_tokens"], told["output_tokens"]
        return self.usage(read, wrote, told, by=model_of(answer))

    def usage(self, read: int, wrote: int, told: Any = None, by: str = "") -> Usage:
        """One call of an agent, however many steps it takes.

        `told` as LangChain tells usage. `by`: the model that answered; else the dearest counts.
        """
        told = told or {"input_tokens": read, "output_tokens": wrote}
        names = [name_of(model) for model in self.standby.models]
        names = [name for name in names if by and name.endswith(f":{by}")] or names
        each = [cost(name, self.price, told) for name in names]
        money = None if None in each else max(filter(None, each), default=0)
        return Usage(input_tokens=read, output_tokens=wrote, calls=1, micro_usd=money)


def cascade(name: str, tiers: Tiers, **settings: Any) -> list[ModelAgent]:
    """An agent for each tier that has a model, the cheapest first: `NAME-economy` and so on.

    As workers of a team under `Policy(min_confidence=…)`, or in one slot as a `ladder`, they are a
    cascade: the cheapest works, and what it is not sure of goes to the next. `settings` are those
    of `ModelAgent`.
    """
    there: list[Tier] = [tier for tier in TIERS if getattr(tiers, tier) is not None]
    return [ModelAgent(f"{name}-{tier}", tiers, tier=tier, **settings) for tier in there]


def _answering(output: type[BaseModel] | None, toolbox: Toolbox) -> dict[str, Any] | None:
    """The tool by which the model gives its answer, in OpenAI's format.

    Not strict: OpenAI's strict mode refuses free-form objects, which plans and verdicts have.
    """
    if output is None:
        return None
    name = re.sub(r"[^A-Za-z0-9_-]", "_", output.__name__)[:64]
    if name in toolbox:
        raise Misbuilt(f"a tool can't be called {name!r}, as the output is")
    schema = output.model_json_schema()
    told = {
        "name": name,
        "description": schema.pop("description", "The answer."),
        "parameters": schema,
    }
    return {"type": "function", "function": told}


def _name(schema: dict[str, Any] | None) -> str:
    return str(schema["function"]["name"]) if schema else ""


def model_of(answer: AIMessage) -> str:
    """What the provider says it answered with."""
    told = answer.response_metadata
    return str(told.get("model_name") or told.get("model") or "")


def _why(error: ValidationError, answer: AIMessage, output: type[BaseModel]) -> str:
    flaws = "; ".join(
        f"{'.'.join(map(str, flaw['loc'])) or 'the whole'}: {flaw['msg']}"
        for flaw in error.errors(include_url=False)[:5]
    )
    said = (
        f"; it was the text {answer.text[:200]!r}" if answer.text and not answer.tool_calls else ""
    )
    return f"the answer is no {output.__name__}: {flaws}{said}"


def _unfenced(text: str) -> str:
    r"""What stands in a Markdown fence, or the text itself.

    >>> _unfenced('Here you are:\n```json\n{"a": 1}\n```')
    '{"a": 1}\n'
    """
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", text, re.DOTALL)
    return fenced[1] if fenced else text


def _confidence(output: BaseModel) -> float | None:
    said = getattr(output, "confidence", None)
    return float(said) if isinstance(said, int | float) and 0 <= said <= 1 else None


def _said(output: BaseModel, field: str, noun: type[N]) -> tuple[N, ...]:
    """What a field of this name holds of such nouns."""
    said = getattr(output, field, ())
    return tuple(s for s in said if isinstance(s, noun)) if isinstance(said, list | tuple) else ()


def _tokens(text: str) -> int:
    return len(text.encode("utf-8", "replace")) // 3 + 1


def _sum(one: Usage, other: Usage) -> Usage:
    return (one + other).model_copy(update={"calls": 1})
