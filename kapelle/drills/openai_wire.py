"""OpenAI's chat completions on the wire: an answer as a completion, whole or in chunks. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from kapelle.drills.answers import Answer, Call, Json, NoUsage, Request, Truncated, text_of


def completion(request: Request, answer: Answer) -> Json:
    """The body of a `chat.completion` that says the answer."""
    if isinstance(answer, NoUsage):
        return completion(request, answer.answer) | {"usage": None}
    if isinstance(answer, Truncated):
        whole = completion(request, answer.answer)
        return whole | {"choices": [whole["choices"][0] | {"finish_reason": "length"}]}
    message = _message(request, answer)
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": f"loopback-{request.number}",
        "object": "chat.completion",
        "created": 0,
        "model": request.body.get("model", "loopback"),
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _usage(request, message),
    }


def _message(request: Request, said: Any) -> Json:
    match said:
        case str():
            return {"role": "assistant", "content": said}
        case Call():
            return _calling(request, [said])
        case list() | tuple():
            return _calling(request, said)
        case BaseModel():
            return _structured(request, type(said).__name__, said.model_dump(mode="json"))
        case Mapping():
            return _structured(request, "", dict(said))
    raise TypeError(f"the loopback model can't say {said!r}")


def _structured(request: Request, name: str, value: Json) -> Json:
    tool = _tool_for(request, name, value)
    if tool is None:
        return {"role": "assistant", "content": json.dumps(value)}
    return _calling(request, [Call(tool, value)])


def _tool_for(request: Request, name: str, value: Json) -> str | None:
    """The tool that takes such a value: the forced one, its namesake, one with all its fields."""
    choice = request.body.get("tool_choice")
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    if name in request.tools:
        return name
    if choice != "required":
        return None
    takes = (
        t for t, schema in request.tools.items() if set(value) <= set(schema.get("properties", ()))
    )
    return next(takes, list(request.tools)[-1] if request.tools else None)


def _calling(request: Request, calls: Sequence[Call]) -> Json:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call-{request.number}-{i}",
                "type": "function",
                "function": {"name": call.tool, "arguments": _arguments(call)},
            }
            for i, call in enumerate(calls)
        ],
    }


def _arguments(call: Call) -> str:
    return call.args if isinstance(call.args, str) else json.dumps(dict(call.args))


def _usage(request: Request, message: Json) -> Json:
    calls = [c["function"] for c in message.get("tool_calls", [])]
    said = " ".join([message["content"] or "", *(f"{c['name']} {c['arguments']}" for c in calls)])
    read = sum(count_tokens(text_of(m)) for m in request.messages)
    wrote = count_tokens(said)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def chunks(request: Request, completion: Json) -> Iterator[Json]:
    """The same answer as `chat.completion.chunk`s: a word a chunk, each tool call in one."""
    choice = completion["choices"][0]
    message = choice["message"]
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in _words(message["content"] or "")]
    calls = enumerate(message.get("tool_calls", []))
    deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in calls]
    head = {**completion, "object": "chat.completion.chunk", "usage": None}
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield {**head, "choices": [end]}
    if (request.body.get("stream_options") or {}).get("include_usage") and completion["usage"]:
        yield {**head, "choices": [], "usage": completion["usage"]}


def _words(text: str) -> list[str]:
    """Pieces that make the text again when put together.

    >>> _words("a b  c")
    ['a ', 'b ', ' ', 'c']
    """
    *pieces, last = text.split(" ")
    return [f"{piece} " for piece in pieces] + ([last] if last else [])


def event(chunk: Json) -> bytes:
    """A chunk as a server-sent event."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def count_tokens(text: str) -> int:
    """Words: what the loopback model counts as tokens."""
    return len(text.split())
