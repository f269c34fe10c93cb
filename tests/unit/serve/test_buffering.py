"""The middleware that reads request bodies: with ASGI messages, and once over real sockets."""

import asyncio
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config, replica_runtime, serve

from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.buffering import UNMETERED_BYTES, Buffering
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.routes import ROUTES

MAX_BYTES = 100
BUDGET_BYTES = 1000


class Recorder:
    """An application that records the messages that it receives: the whole body, and the next message."""

    def __init__(self, *, reads_on: bool = False) -> None:
        self.reads_on = reads_on
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Receive one message, or two; then respond."""
        for _ in range(1 + self.reads_on):
            self.received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


class Client:
    """A client that sends these messages, and then nothing more."""

    def __init__(self, *messages: Message) -> None:
        self.pending = list(messages)

    async def receive(self) -> Message:
        """Return the next message."""
        if not self.pending:
            await asyncio.Event().wait()
        return self.pending.pop(0)


def piece(body: bytes, *, more: bool = False) -> Message:
    """A part of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


def buffering(
    app: ASGIApp, budget: MemoryBudget | None = None, *, max_bytes: int = MAX_BYTES, seconds: float = 60.0
) -> ASGIApp:
    """The application behind the middleware, with these limits."""
    settings = config(max_body_bytes=max_bytes, body_timeout_seconds=seconds)
    budget = budget or MemoryBudget(BUDGET_BYTES)
    bypass = Middleware(ServeBypass, runtime=replica_runtime())
    return behind(app, Middleware(Buffering, config=settings, budget=budget), bypass)


def send_request(
    app: Recorder, client: Client, *, path: str = "/v1/completions", seconds: float = 60.0, **headers: str
) -> tuple[int | None, dict[str, str]]:
    """Send a request; returns status and headers of the response, or None and no headers if there was none."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": ROUTES[path].method,
        "path": path,
        "headers": raw,
    }
    asyncio.run(asyncio.wait_for(serve(buffering(app, seconds=seconds), scope, client.receive, send), 10))
    if not messages:
        return None, {}
    return messages[0]["status"], {name.decode(): value.decode() for name, value in messages[0]["headers"]}


def test_a_body_in_pieces_arrives_as_one_message() -> None:
    """After it, the application sees the client's disconnect."""
    app = Recorder(reads_on=True)
    client = Client(piece(b"a" * 50, more=True), piece(b"", more=True), piece(b"b" * 50), GONE)
    assert send_request(app, client, content_length="100")[0] == 200
    assert app.received == [piece(b"a" * 50 + b"b" * 50), GONE]


@pytest.mark.parametrize("content_length", ["101", "9" * 30], ids=["a little", "absurd"])
def test_a_body_that_announces_too_many_bytes_is_refused(content_length: str) -> None:
    """The rest is read and dropped, so that the response is not lost."""
    app, client = Recorder(), Client(piece(b"a" * 50, more=True), piece(b"a" * 51), GONE)
    status, headers = send_request(app, client, content_length=content_length)
    assert (status, headers["connection"]) == (413, "close")
    assert (app.received, client.pending) == ([], [GONE])


def test_a_client_that_expects_100_continue_need_not_send() -> None:
    """It gets the refusal before it sends anything."""
    client = Client(GONE)
    assert send_request(Recorder(), client, content_length="101", expect="100-continue")[0] == 413
    assert client.pending == [GONE]


@pytest.mark.parametrize("content_length", ["", "10", "-1", "abc", "1e9", "²"])
def test_the_bytes_that_arrive_count(content_length: str) -> None:
    """Whatever length the client announces, one byte above the limit is refused."""
    length = {"content_length": content_length} if content_length else {}
    parts = (piece(b"a" * 50, more=True), piece(b"a" * 50, more=True))
    assert send_request(Recorder(), Client(*parts, piece(b"")), **length)[0] == 200  # type: ignore[arg-type]
    over = Client(*parts, piece(b"a"))
    assert send_request(Recorder(), over, **length)[0] == 413  # type: ignore[arg-type]
    long = Client(*parts, piece(b"a", more=True), piece(b"a"), GONE)
    assert send_request(Recorder(), long, **length)[0] == 413  # type: ignore[arg-type]
    assert long.pending == [GONE]


def test_a_slow_body_times_out() -> None:
    """The application never sees the request, and the connection is closed."""
    app = Recorder()
    status, headers = send_request(app, Client(piece(b"a", more=True)), seconds=0.02)
    assert (status, headers["connection"], app.received) == (408, "close", [])


def test_an_endless_body_times_out() -> None:
    """A body that is too large and never ends is refused after the same time."""
    assert send_request(Recorder(), Client(piece(b"a", more=True)), seconds=0.02, content_length="101")[0] == 413


@pytest.mark.parametrize("before", [[], [piece(b"a", more=True)]], ids=["at once", "midway"])
def test_a_client_that_leaves_during_its_body_gets_no_response(before: list[Message]) -> None:
    """The application never sees the request."""
    app = Recorder()
    assert send_request(app, Client(*before, GONE)) == (None, {})
    assert app.received == []


def test_a_get_passes_unread() -> None:
    """Its body is not waited for."""
    app = Recorder()
    assert send_request(app, Client(piece(b"a" * 200)), path="/v1/models")[0] == 200
    assert app.received == [piece(b"a" * 200)]


def test_a_timeout_error_of_the_application_is_not_a_slow_body() -> None:
    """It reaches the caller as it is."""

    async def broken(*_: Any) -> None:
        raise TimeoutError("its own")

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(serve(buffering(broken), scope, Client(piece(b"")).receive, broken))


def test_bodies_share_a_memory_budget() -> None:
    """A body beyond it gets a 429, whether it was read to its end or not; a short one always passes."""
    budget = MemoryBudget(BUDGET_BYTES)

    async def status(middleware: ASGIApp, *sent: Message) -> tuple[int, list[tuple[bytes, bytes]]]:
        received: list[Message] = []

        async def send(message: Message) -> None:
            received.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        await middleware(scope, Client(*sent).receive, send)
        return received[0]["status"], received[0]["headers"]

    def middleware(app: ASGIApp) -> ASGIApp:
        return buffering(app, budget, max_bytes=2**20)

    async def during_response(scope: Scope, receive: Receive, send: Send) -> None:
        """Send other requests before this one gets its response."""
        fits = UNMETERED_BYTES + BUDGET_BYTES - 600
        assert (await status(middleware(Recorder()), piece(b"a" * fits)))[0] == 200
        code, headers = await status(middleware(Recorder()), piece(b"a" * fits, more=True), piece(b"a"))
        assert (code, (b"retry-after", b"1") in headers, (b"connection", b"close") in headers) == (429, True, True)
        assert (await status(middleware(Recorder()), piece(b"a" * UNMETERED_BYTES)))[0] == 200
        await Recorder()(scope, receive, send)

    async def both() -> None:
        assert (await status(middleware(during_response), piece(b"a" * (UNMETERED_BYTES + 600))))[0] == 200

    asyncio.run(both())
    assert budget.free == BUDGET_BYTES


def test_a_refused_body_takes_no_memory_while_its_rest_arrives() -> None:
    """Nor does its lease; the refusal follows when the client has sent everything."""
    pieces, budget = 8, MemoryBudget(2**21)
    held: list[tuple[int, int]] = []

    async def receive() -> Message:
        held.append((tracemalloc.get_traced_memory()[0], budget.free))
        return piece(b"a" * 2**20, more=len(held) < pieces)

    async def send(message: Message) -> None:
        held.append((tracemalloc.get_traced_memory()[0], budget.free))
        assert message.get("status", 413) == 413

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    tracemalloc.start()
    try:
        asyncio.run(serve(buffering(Recorder(), budget, max_bytes=2**21), scope, receive, send))
    finally:
        tracemalloc.stop()
    assert len(held) == pieces + 2
    assert max(size for size, _ in held[3:]) < 2**20
    assert {free for _, free in held[3:]} == {2**21}


@contextmanager
def http_server() -> Iterator[int]:
    """Serve the middleware with a real server; yields its port."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            buffering(Recorder(), seconds=0.5),
            log_level="critical",
            lifespan="off",
            http="httptools",
        )
        server = uvicorn.Server(config)
        thread = Thread(target=lambda: asyncio.run(server.serve([listener])))
        listener.listen()
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def test_responses_arrive_over_real_sockets() -> None:
    """A client that sends 8 MiB before it reads gets its 413; one that never completes its body, a 408."""
    with http_server() as port, closing(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)) as client:
        assert client.post("/v1/completions", content=b"a" * 100).status_code == 200
        assert [client.post("/v1/completions", content=b"a" * 2**23).status_code for _ in range(4)] == [413] * 4
        assert client.post("/v1/completions", content=iter([b"a" * 2**20] * 8)).status_code == 413
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            response = b"".join(iter(lambda: slow.recv(4096), b""))  # until it is closed
        assert response.startswith(b"HTTP/1.1 408 ")
