"""Fallback to an upstream, which is a real HTTP server here; the engine is an application that the test controls."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, replica_runtime, serve

from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.fallback import Fallback
from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.upstream import KEY_VARIABLE, MAX_FAILURES, SERVED_BY_HEADER, Upstream
from headway.serve.openai_error import ApiError
from headway.serve.request_context import context_of
from headway.serve.runtime import ReplicaRuntime

BODY = {"model": "coder", "prompt": "a"}


class UpstreamServer:
    """The upstream, a real HTTP server."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.breaks_off = False
        routes = [Route("/v1/models", self.models), Route("/v1/completions", self.respond, methods=["POST"])]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    async def models(self, _: Request) -> Response:
        """List its models."""
        return JSONResponse({"data": [{"id": "small"}]})

    async def respond(self, request: Request) -> Response:
        """Return what it received, as a stream or at once."""
        body = await request.json() | {"headers": dict(request.headers)}
        self.requests.append(body)
        if self.status != 200:
            return JSONResponse({"error": {"message": "no"}}, self.status, headers={"Retry-After": "7"})

        async def pieces() -> Any:
            yield b"data: 1\n\n"
            if self.breaks_off:
                raise RuntimeError("in the middle")
            yield b"data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    def close(self) -> None:
        """Stop the server."""
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def upstream() -> Iterator[UpstreamServer]:
    """An upstream that works."""
    server = UpstreamServer()
    yield server
    server.close()


class Engine:
    """Stands for the application around the engine: responds with a status, or raises."""

    def __init__(self) -> None:
        self.healthy, self.status, self.raises, self.request_count = True, 200, False, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        if scope["type"] == "lifespan":  # the test client runs it once for all requests of a session
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        self.request_count += 1
        assert (await receive())["body"] == json.dumps(BODY, separators=(",", ":")).encode()
        if self.raises:
            raise RuntimeError("broken")
        await JSONResponse({"by": "engine"}, self.status)(scope, receive, send)


@pytest.fixture
def engine() -> Engine:
    """An engine that works."""
    return Engine()


def runtime_of(engine: Engine) -> ReplicaRuntime:
    """The runtime of a replica with this engine."""
    runtime = replica_runtime()
    runtime.engine = engine
    return runtime


def stack(engine: Engine, url: str, *outer: Middleware) -> ASGIApp:
    """The engine behind the fallback, and other middleware around it."""
    runtime = runtime_of(engine)
    return behind(
        engine,
        *outer,
        Middleware(Buffering, config=runtime.config, budget=MemoryBudget(2**20)),
        Middleware(Fallback, runtime=runtime, url=url),
        Middleware(ServeBypass, runtime=runtime),
    )


def client(engine: Engine, upstream: UpstreamServer) -> TestClient:
    """A client of the fallback around both."""
    return TestClient(stack(engine, upstream.url))


def test_the_upstream_gets_no_request_while_the_engine_works(engine: Engine, upstream: UpstreamServer) -> None:
    """A refusal of the engine is a response too."""
    session = client(engine, upstream)
    for engine.status in (200, 400, 404, 429):
        assert session.post("/v1/completions", json=BODY).status_code == engine.status
    assert not upstream.requests


def test_the_upstream_gets_its_own_model_name_and_key(
    engine: Engine, upstream: UpstreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request keeps its id, and the response names the model that gave it."""
    monkeypatch.setenv(KEY_VARIABLE, "hw-other")
    engine.healthy = False
    headers = {"Authorization": "Bearer hw-mine", "X-Request-ID": "abc"}
    response = client(engine, upstream).post("/v1/completions", json=BODY, headers=headers)
    assert (response.status_code, response.text) == (200, "data: 1\n\ndata: [DONE]\n\n")
    assert (response.headers[SERVED_BY_HEADER], response.headers["content-type"][:17]) == ("small", "text/event-stream")
    [received] = upstream.requests
    assert (received["model"], received["prompt"]) == ("small", "a")
    assert received["headers"]["authorization"] == "Bearer hw-other"
    assert received["headers"]["x-request-id"] == "abc"
    assert engine.request_count == 0


@pytest.mark.parametrize("raises", [False, True])
def test_the_upstream_gets_what_the_engine_fails(engine: Engine, upstream: UpstreamServer, raises: bool) -> None:  # noqa: FBT001
    """After failures in a row, the engine gets no more requests."""
    engine.status, engine.raises = 500, raises
    with client(engine, upstream) as session:
        for _ in range(MAX_FAILURES + 2):
            assert session.post("/v1/completions", json=BODY).headers[SERVED_BY_HEADER] == "small"
    assert engine.request_count == MAX_FAILURES


def test_one_request_probes_a_failed_engine(
    engine: Engine, upstream: UpstreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rest one request passes; if it succeeds, all requests pass again."""
    now = [0.0]
    monkeypatch.setattr("headway.objectstore.breaker.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine.status = 500
    fallback = Fallback(engine, runtime_of(engine), upstream.url)
    for _ in range(MAX_FAILURES):
        fallback.engine_breaker.record(RuntimeError())
    assert not fallback.engine_breaker.allow()
    now[0] += 60
    assert [fallback.engine_breaker.allow() for _ in range(3)] == [True, False, False]
    fallback.engine_breaker.record(None)
    assert [fallback.engine_breaker.allow() for _ in range(3)] == [True, True, True]


def test_a_refusal_is_no_failure_of_the_engine(engine: Engine, upstream: UpstreamServer) -> None:
    """Middleware inside the fallback may refuse a request, also for a while."""

    async def refuse(*_: Any) -> None:
        raise ApiError(503, "not now", kind="overloaded_error", code="busy")

    runtime = runtime_of(engine)
    path = (
        Middleware(Buffering, config=runtime.config, budget=MemoryBudget(2**20)),
        Middleware(Fallback, runtime=runtime, url=upstream.url),
    )
    session = TestClient(behind(refuse, *path))
    for _ in range(MAX_FAILURES + 1):
        response = session.post("/v1/completions", json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "busy")
    assert not upstream.requests


def test_outer_middleware_sees_nothing_of_a_failure_that_the_upstream_makes_up_for(
    engine: Engine, upstream: UpstreamServer
) -> None:
    """A quota refunds a request that was shed with a 503; this one gets its response."""
    statuses: list[int] = []

    class StatusRecorder(RequestCheck):
        """Middleware that records the status of each response."""

        def check(self, scope: Scope) -> None:
            """Register the hook."""
            context_of(scope).response.on_start.append(self._record)

        async def _record(self, message: Message) -> None:
            statuses.append(message["status"])

    engine.status = 503
    session = TestClient(stack(engine, upstream.url, Middleware(StatusRecorder)))
    assert session.post("/v1/completions", json=BODY).headers[SERVED_BY_HEADER] == "small"
    assert statuses == [200]


def test_only_routes_with_a_fallback_go_to_the_upstream(engine: Engine, upstream: UpstreamServer) -> None:
    """The tokenizer of another model gives other tokens."""
    engine.status = 500
    assert client(engine, upstream).post("/tokenize", json=BODY).status_code == 500
    assert not upstream.requests


def test_a_response_that_breaks_off_ends_with_an_error(engine: Engine, upstream: UpstreamServer) -> None:
    """The error event has the shape of OpenAI's API."""
    engine.healthy, upstream.breaks_off = False, True
    response = client(engine, upstream).post("/v1/completions", json=BODY)
    assert "[DONE]" not in response.text
    assert json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "broken"


def test_the_client_gets_a_503_when_both_fail(engine: Engine, upstream: UpstreamServer) -> None:
    """Its Retry-After is a number."""
    engine.status, upstream.status = 500, 500
    with client(engine, upstream) as session:
        for _ in range(MAX_FAILURES + 1):
            response = session.post("/v1/completions", json=BODY)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
            assert int(response.headers["Retry-After"]) > 0
    assert len(upstream.requests) == engine.request_count == MAX_FAILURES


def test_requests_wait_for_the_next_engine_when_the_upstream_is_unreachable(
    engine: Engine, upstream: UpstreamServer
) -> None:
    """The application itself waits for its engine."""
    upstream.close()
    engine.healthy = False
    assert client(engine, upstream).post("/v1/completions", json=BODY).json() == {"by": "engine"}


def test_refusals_of_the_upstream_are_forwarded(engine: Engine, upstream: UpstreamServer) -> None:
    """Its Retry-After reaches the client."""
    engine.healthy, upstream.status = False, 429
    response = client(engine, upstream).post("/v1/completions", json=BODY)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


def test_a_client_that_leaves_cancels_the_upstream_request(
    engine: Engine, upstream: UpstreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream sees the disconnect."""
    engine.healthy = False
    hanging = asyncio.Event()
    cancelled: list[bool] = []

    async def forward(*_: Any, **__: Any) -> None:
        try:
            await hanging.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario() -> None:
        messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(_: Any) -> None:
            raise AssertionError("the client has left")

        monkeypatch.setattr(Upstream, "_forward", forward)  # a response that never comes
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        await serve(stack(engine, upstream.url), scope, receive, send)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert cancelled
