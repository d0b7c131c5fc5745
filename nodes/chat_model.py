"""Which chat model an agent talks to: named or given, limited, safe in every event loop."""

import asyncio
import importlib
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import Any, Generic, TypeVar

from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from kapelle.state.errors import NoModel

T = TypeVar("T")

_HOW = (
    "set OPENAI_API_KEY (any value, if your server needs none), "
    "and OPENAI_BASE_URL for a server other than OpenAI's"
)


def chat_model(model: str | BaseChatModel | None, max_tokens: int) -> BaseChatModel:
    """The model meant, with a limit of tokens in an answer if it has none.

    Raises:
        NoModel: when there is none, or its key or package is missing; says what to do.
    """
    if isinstance(model, BaseChatModel):
        return _limited(model, max_tokens)
    if not model:
        raise NoModel(f"no chat model is named: name one, like openai:NAME (--model), and {_HOW}")
    provider, _, name = model.partition(":")
    if not provider or not name:
        raise NoModel(
            f"{model!r} is no chat model: write provider:name, like openai:{model.strip(':')}"
        )
    if provider == "openai":
        return _openai(name, max_tokens)
    return _of_provider(model, provider, max_tokens)


def _openai(name: str, max_tokens: int) -> BaseChatModel:
    if not os.environ.get("OPENAI_API_KEY"):
        raise NoModel(f"openai:{name} has no key: {_HOW}")
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - takes a second; not needed to draw a graph

    settings: dict[str, Any] = {"model": name, "max_tokens": max_tokens, "max_retries": 0}
    base = os.environ.get("OPENAI_BASE_URL") or None
    return ChatOpenAI(**settings, base_url=base, timeout=None, stream_usage=True)


def _of_provider(model: str, provider: str, max_tokens: int) -> BaseChatModel:
    try:
        init = importlib.import_module("langchain.chat_models").init_chat_model
    except ImportError:
        packages = f"langchain langchain-{provider}"
        raise NoModel(f"{model} needs further packages: pip install {packages}") from None
    try:
        made: BaseChatModel = init(model, max_tokens=max_tokens, max_retries=0)
    except Exception as error:  # no package, no such provider, no key: each has errors of its own
        raise NoModel(f"{model} can't be used: {_lacking(error)}") from error
    return made


def _lacking(error: Exception) -> str:
    """The first line; of a validation error without the values, which may be keys."""
    if isinstance(error, ValidationError):
        return "; ".join(flaw["msg"] for flaw in error.errors(include_input=False))
    return next(iter(str(error).splitlines()), type(error).__name__)


def _limited(model: BaseChatModel, max_tokens: int) -> BaseChatModel:
    if "max_tokens" in type(model).model_fields and getattr(model, "max_tokens", None) is None:
        return model.model_copy(update={"max_tokens": max_tokens})
    return model


class PerLoop(Generic[T]):
    """One of something for each event loop: made when first asked for, closed with the loop.

    `lifetime` yields it once and then lets go of it. Event loops close their async generators when
    they end, as `asyncio.run` does; that is when.
    """

    def __init__(self, lifetime: Callable[[], AsyncGenerator[T]]) -> None:
        self._lifetime = lifetime
        self._alive: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T]]] = {}

    async def get(self) -> T:
        """The running loop's own."""
        loop = asyncio.get_running_loop()
        if loop not in self._alive:
            self._alive = {old: kept for old, kept in self._alive.items() if not old.is_closed()}
            lifetime = self._lifetime()
            self._alive[loop] = await anext(lifetime), lifetime
        return self._alive[loop][0]


@cache
def trusted() -> ssl.SSLContext:
    """Whom connections trust, read once: for each client anew it takes longer than a short call."""
    import httpx  # noqa: PLC0415 - loaded already, by the model

    return httpx.create_ssl_context()


async def _connections() -> AsyncGenerator[Any]:
    from openai import DefaultAsyncHttpxClient  # noqa: PLC0415 - loaded already, by the model

    client = DefaultAsyncHttpxClient(verify=trusted())
    try:
        yield client
    finally:
        await client.aclose()


_connections_of_loop: PerLoop[Any] = PerLoop(_connections)


async def in_this_loop(model: BaseChatModel) -> BaseChatModel:
    """A copy of an OpenAI model that uses the running loop's connections; others as they are.

    langchain-openai keeps one pool of connections in the whole process, and a connection works only
    in the event loop it was opened in ("Event loop is closed" in the second `asyncio.run`).
    """
    root: Any = getattr(model, "root_async_client", None)
    if root is None or getattr(model, "http_async_client", None) is not None:
        return model
    own = root.with_options(http_client=await _connections_of_loop.get())
    return model.model_copy(update={"root_async_client": own, "async_client": own.chat.completions})
