"""What a scripted model may be told to say, and what it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call. Arguments given as a string are sent as they are, be they JSON or not."""

    tool: str
    args: Mapping[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True)
class NoUsage:
    """The answer, without the token count."""

    answer: "Answer"


@dataclass(frozen=True)
class Truncated:
    """The answer, with finish reason `length`: as if the limit of tokens was reached."""

    answer: "Answer"


@dataclass(frozen=True)
class Slow:
    """The answer after some seconds; after None of them never, until the server closes."""

    seconds: float | None = None
    answer: "Answer" = ""


@dataclass(frozen=True)
class ServerError:
    """An HTTP error."""

    status: int = 500
    message: str = "the loopback model was told to fail"


@dataclass(frozen=True)
class RateLimited:
    """HTTP 429."""

    retry_after: float = 1.0
    """Seconds, sent as Retry-After."""


@dataclass(frozen=True)
class Garbage:
    """HTTP 200 whose body is not what the header says."""

    body: bytes = b"<html>not JSON</html>"


@dataclass(frozen=True)
class Cut:
    """Half of the answer, then the connection is cut."""

    answer: "Answer" = "an answer of which only half arrives"


Said = str | Mapping[str, Any] | BaseModel | Call | Sequence[Call]
Answer = Said | NoUsage | Truncated | Slow | ServerError | RateLimited | Garbage | Cut


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    body: Json
    headers: Mapping[str, str]
    """Their names in lower case."""
    number: int
    """From 1, in order of arrival."""

    @property
    def messages(self) -> list[Json]:
        """The conversation so far."""
        return list(self.body.get("messages", []))

    @property
    def system(self) -> str:
        """The system prompt."""
        return self._said_by("system")

    @property
    def prompt(self) -> str:
        """What the user said."""
        return self._said_by("user")

    @property
    def tool_results(self) -> list[str]:
        """What tools gave back, in order."""
        return [text_of(m) for m in self.messages if m["role"] == "tool"]

    @property
    def tools(self) -> dict[str, Json]:
        """The parameters' schema of each tool the model may call, by name."""
        functions = [tool["function"] for tool in self.body.get("tools", [])]
        return {f["name"]: f.get("parameters", {}) for f in functions}

    @property
    def streaming(self) -> bool:
        """Whether the answer is to come in pieces."""
        return bool(self.body.get("stream"))

    def _said_by(self, role: str) -> str:
        return "\n".join(text_of(m) for m in self.messages if m["role"] == role)


def text_of(message: Json) -> str:
    """What a message says, be it one text or parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
