"""The loopback server is a chat model to whoever talks to it over HTTP."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.error import HTTPError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import openai
import pytest
from langchain_core.messages.ai import add_ai_message_chunks

from kapelle.drills import (
    Call,
    Cut,
    Garbage,
    LoopbackModel,
    NoUsage,
    RateLimited,
    Request,
    ServerError,
    Slow,
    Truncated,
)

pytestmark = pytest.mark.anyio


async def test_a_text_comes_as_text_and_tokens_are_words(scripted: Callable) -> None:
    server = scripted(["four words of text"])
    answer = await server.model().ainvoke("two words")
    assert answer.text == "four words of text"
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (2, 4)


async def test_streaming_gives_the_same_text_in_pieces_and_the_same_usage(
    scripted: Callable,
) -> None:
    server = scripted(lambda _: "one two  three")
    whole = await server.model().ainvoke("x")
    pieces = [piece async for piece in server.model().astream("x")]
    assert "".join(p.text for p in pieces) == whole.text
    assert len([p for p in pieces if p.text]) > 2
    assert [p.usage_metadata for p in pieces if p.usage_metadata] == [whole.usage_metadata]
    assert server.requests[1].streaming


async def test_tool_calls_are_streamed_as_well(scripted: Callable) -> None:
    server = scripted([[Call("search", {"q": "a"}), Call("search", {"q": "b"})]])
    whole = add_ai_message_chunks(*[piece async for piece in server.model().astream("x")])
    assert [call["args"] for call in whole.tool_calls] == [{"q": "a"}, {"q": "b"}]


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
async def test_structured_output_is_delivered_in_the_way_asked_for(
    scripted: Callable, report: type, method: str
) -> None:
    server = scripted([report(title="A"), {"title": "B", "pages": 2}])
    model = server.model().with_structured_output(report, method=method)
    assert await model.ainvoke("as JSON, please") == report(title="A")
    assert await model.ainvoke("as JSON, please") == report(title="B", pages=2)


async def test_requests_are_kept_as_they_came(scripted: Callable) -> None:
    server = scripted(["ok"])
    await server.model(model="some-name").ainvoke([("system", "be brief"), ("user", "hello")])
    (request,) = server.requests
    assert (request.system, request.prompt, request.number) == ("be brief", "hello", 1)
    assert request.body["model"] == "some-name"
    assert request.headers["authorization"] == "Bearer loopback"


async def test_the_usage_can_be_missing(scripted: Callable) -> None:
    server = scripted(lambda _: NoUsage("text"))
    assert (await server.model().ainvoke("x")).usage_metadata is None
    assert not [p async for p in server.model().astream("x") if p.usage_metadata]


async def test_an_answer_can_be_truncated(scripted: Callable) -> None:
    answer = await scripted([Truncated("half a")]).model().ainvoke("x")
    assert answer.response_metadata["finish_reason"] == "length"


async def test_a_limited_rate_is_a_429_with_retry_after(scripted: Callable) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await scripted([RateLimited(retry_after=7)]).model().ainvoke("x")
    assert caught.value.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"


async def test_a_server_error_has_its_status(scripted: Callable) -> None:
    with pytest.raises(openai.InternalServerError, match="told to fail") as caught:
        await scripted([ServerError(503)]).model().ainvoke("x")
    assert caught.value.status_code == 503


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cut_connection_is_an_error_of_the_connection(
    scripted: Callable, *, streaming: bool
) -> None:
    server = scripted([Cut()])
    with pytest.raises(Exception, match=r"(?i)connection error|incomplete|peer closed"):
        await server.model(streaming=streaming).ainvoke("x")


async def test_garbage_is_an_error_and_no_answer(scripted: Callable) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        await scripted([Garbage()]).model().ainvoke("x")


async def test_an_answer_can_come_later(scripted: Callable) -> None:
    assert (await scripted([Slow(0.01, "at last")]).model().ainvoke("x")).text == "at last"


async def test_a_silent_model_is_given_up_by_the_clients_timeout(scripted: Callable) -> None:
    with pytest.raises(openai.APITimeoutError):
        await scripted([Slow()]).model(timeout=0.05).ainvoke("x")


async def test_a_script_that_ran_out_says_so(scripted: Callable) -> None:
    server = scripted(["only one"])
    await server.model().ainvoke("x")
    with pytest.raises(openai.BadRequestError, match="the script has 1 answers"):
        await server.model().ainvoke("x")


async def test_an_answering_function_that_raises_says_so(scripted: Callable) -> None:
    with pytest.raises(openai.BadRequestError, match="ZeroDivisionError"):
        await scripted(lambda _: 1 // 0).model().ainvoke("x")


async def test_what_is_no_answer_is_said_to_be_none(scripted: Callable) -> None:
    with pytest.raises(openai.BadRequestError, match="can't say 5"):
        await scripted([5]).model().ainvoke("x")


async def test_the_number_of_requests_is_limited() -> None:
    with LoopbackModel(lambda _: "ok", most=1) as server:
        await server.model().ainvoke("x")
        with pytest.raises(openai.BadRequestError, match="serves 1 requests"):
            await server.model().ainvoke("x")
    assert len(server.requests) == 1


def test_closing_lets_whoever_waits_go() -> None:
    asked = Event()

    def silent(_: Request) -> Slow:
        asked.set()
        return Slow()

    with ThreadPoolExecutor(1) as pool, LoopbackModel(silent) as server:
        waiting = pool.submit(server.model(timeout=300).invoke, "x")
        assert asked.wait(60)
        server.close()
        assert isinstance(waiting.exception(60), openai.APIConnectionError)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/embeddings", b"{}", 404), ("/v1/chat/completions", b"{", 400)],
)
def test_what_it_does_not_serve_is_refused(
    scripted: Callable, path: str, body: bytes, status: int
) -> None:
    url = scripted([]).url.removesuffix("/v1") + path
    with pytest.raises(HTTPError) as caught:
        urlopen(HttpRequest(url, data=body))  # noqa: S310 - our own server
    with caught.value as error:
        assert (error.code, "error" in json.load(error)) == (status, True)
