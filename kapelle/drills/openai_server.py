"""A loopback model: a real HTTP server on 127.0.0.1 that speaks chat completions, by a script.

    with LoopbackModel(["prose", {"title": "A report"}, RateLimited(retry_after=2)]) as server:
        writer = ModelAgent("writer", server.model(), output=Report)

An answer is what the model shall say (a list of them, or a function of the `Request`):

    "text"                        that text; prose, where JSON was asked for
    {"a": 1} or a pydantic model  structured: a call of the tool that asks for it, else JSON as text
    Call("search", {"q": "x"})    a tool call; several of them in a list
    NoUsage(answer)               the answer, without the token count
    Truncated(answer)             the answer, with finish reason `length`
    Slow(seconds, answer)         the answer, later; without seconds never (until the server closes)
    RateLimited(retry_after)      HTTP 429 with Retry-After
    ServerError(status)           HTTP 500
    Garbage()                     HTTP 200 with a body that is not JSON
    Cut(answer)                   half of the answer, then the connection is cut

Streaming (SSE) is served where a request asks for it. All requests are kept in `requests`. Tokens
are counted as words, so that usage is the same on every run.
"""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from kapelle.drills.answers import (
    Answer,
    Cut,
    Garbage,
    Json,
    RateLimited,
    Request,
    ServerError,
    Slow,
)
from kapelle.drills.openai_wire import chunks, completion, event
from kapelle.nodes.chat_model import trusted

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

MOST_BYTES = 16_000_000
"""Bytes of one request body."""

_CLOSE = {"Connection": "close"}


class LoopbackModel:
    """A scripted chat model behind a real socket; a context manager.

    `answers` is a list, handed out in order of arrival, or a function of the `Request`, which suits
    agents that work in parallel. A list that has run out, and a function that raises, answer with
    HTTP 400, which says so. At most `most` requests are served, then HTTP 400 again. Connections
    are closed after each answer unless `keep_alive`; kept ones fail in a client's next event loop.
    """

    def __init__(
        self,
        answers: Sequence[Answer] | Callable[[Request], Answer],
        *,
        most: int = 10_000,
        keep_alive: bool = False,
    ) -> None:
        self.keep_alive = keep_alive
        self.requests: list[Request] = []
        self._answers = answers
        self._most = most
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"<loopback model at {self.url}, {len(self.requests)} requests>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL would be."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def model(self, **settings: Any) -> "ChatOpenAI":
        """A ChatOpenAI that talks to this server; `settings` go to its constructor."""
        from langchain_openai import ChatOpenAI  # noqa: PLC0415 - heavy; not needed to serve

        given = {
            "model": "loopback",
            "api_key": "loopback",
            "base_url": self.url,
            "max_retries": 0,
            "stream_usage": True,
            "http_client": _sync_client(),
        }
        return ChatOpenAI(**{**given, **settings})

    def close(self) -> None:
        """Stop: whoever still waits for an answer gets none."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_connections()
        self._thread.join()

    def answer(self, body: Json, headers: Mapping[str, str]) -> tuple[Request, Answer]:
        """What the script says to a request."""
        with self._lock:
            request = Request(body=body, headers=headers, number=len(self.requests) + 1)
            if request.number > self._most:
                return request, ServerError(400, f"the loopback model serves {self._most} requests")
            self.requests.append(request)
            return request, self._scripted(request)

    def wait(self, seconds: float | None) -> bool:
        """Let time pass; False if the server was closed meanwhile."""
        return not self._closed.wait(seconds)

    def _scripted(self, request: Request) -> Answer:
        if callable(self._answers):
            try:
                return self._answers(request)
            except Exception as error:  # noqa: BLE001 - whatever the script raises is told
                return ServerError(400, f"the answering function raised {error!r}")
        if request.number > len(self._answers):
            return ServerError(
                400, f"the script has {len(self._answers)} answers, this is one more"
            )
        return self._answers[request.number - 1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    owner: LoopbackModel

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; all else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        for connection in list(self._open):
            _cut(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _owner(self) -> LoopbackModel:
        return cast("_Server", self.server).owner

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Be quiet."""

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > MOST_BYTES:
            self._fail(ServerError(413, f"the body has {size} bytes, the most is {MOST_BYTES}"))
            return
        content = self.rfile.read(size)
        if not self.path.endswith("/chat/completions"):
            self._fail(ServerError(404, f"nothing is served at {self.path}"))
            return
        try:
            body = json.loads(content)
        except ValueError as error:
            self._fail(ServerError(400, f"the body is no JSON: {error}"))
            return
        self._deliver(*self._owner.answer(body, {k.lower(): v for k, v in self.headers.items()}))

    def do_GET(self) -> None:
        self._fail(ServerError(404, f"nothing is served at {self.path}"))

    def _deliver(self, request: Request, answer: Answer) -> None:
        match answer:
            case Slow(seconds, later):
                if self._owner.wait(seconds):
                    self._deliver(request, later)
                else:
                    self.close_connection = True
            case RateLimited(seconds):
                fault = ServerError(429, "the loopback model was told to limit the rate")
                self._fail(fault, {"Retry-After": f"{seconds:g}"})
            case ServerError():
                self._fail(answer)
            case Garbage(body):
                self._send(200, body)
            case Cut(said):
                self._complete(request, said, cut=True)
            case _:
                self._complete(request, answer)

    def _complete(self, request: Request, answer: Answer, *, cut: bool = False) -> None:
        try:
            whole = completion(request, answer)
        except TypeError as error:
            self._fail(ServerError(400, str(error)))
            return
        if request.streaming:
            self._stream([event(chunk) for chunk in chunks(request, whole)], cut=cut)
        else:
            self._send(200, json.dumps(whole).encode(), cut=cut)

    def _fail(self, fault: ServerError, headers: Mapping[str, str] | None = None) -> None:
        error = {"message": fault.message, "type": "loopback", "code": fault.status}
        self._send(fault.status, json.dumps({"error": error}).encode(), headers)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        cut: bool = False,
    ) -> None:
        length = {"Content-Length": str(len(body))}
        self._begin(status, {"Content-Type": "application/json", **length, **(headers or {})})
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            _cut(self.connection)

    def _stream(self, events: Sequence[bytes], *, cut: bool) -> None:
        kind = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
        self._begin(200, kind)
        for piece in events[: len(events) // 2] if cut else [*events, b"data: [DONE]\n\n", b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if cut:
            _cut(self.connection)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **({} if self._owner.keep_alive else _CLOSE)}.items():
            self.send_header(name, value)
        self.end_headers()


@cache
def _sync_client() -> Any:
    """One for all: its certificates, needless here, are not read for each server."""
    import httpx  # noqa: PLC0415 - loaded already, by the model

    return httpx.Client(verify=trusted())


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
