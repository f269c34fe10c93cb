"""The middleware in front of the engine, each around an application that shows what reached it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from tests.unit.serve.replicas import behind, capacity, replica_runtime, serve

from headway.serve.middleware.admission import Admission
from headway.serve.middleware.auth import Authentication
from headway.serve.middleware.deadline import Deadline
from headway.serve.middleware.draining import Draining
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.stack import request_path
from headway.serve.request_context import context_of
from headway.serve.runtime import ReplicaRuntime
from headway.serve.tenants.key_file import KeyStore
from headway.serve.tenants.lookup import Tenants


async def mirror(request: Request) -> JSONResponse:
    """Respond with the headers and the tenant of the request."""
    return JSONResponse({"headers": dict(request.headers), "tenant": context_of(request.scope).tenant})


def mirror_app() -> Starlette:
    """The mirror at the paths that middleware treats differently."""
    paths = ("/v1/completions", "/v1/models", "/health", "/metrics")
    return Starlette(routes=[Route(path, mirror, methods=["GET", "POST"]) for path in paths])


def mirror_behind(*path: Middleware) -> TestClient:
    """A client of the mirror behind this middleware."""
    return TestClient(behind(mirror_app(), *path))


def stack(**fields: Any) -> TestClient:
    """A client of the mirror behind all middleware of a service with this configuration."""
    return TestClient(behind(mirror_app(), *request_path(replica_runtime(**fields)), outermost=()))


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """A key store whose file does not exist yet."""
    return KeyStore(tmp_path / "keys.json")


@pytest.mark.parametrize("request_id", ["abc", "A-1_b.c", "x" * 64])
def test_a_valid_request_id_is_kept(request_id: str) -> None:
    """The application and the response get it."""
    response = mirror_behind().get("/v1/completions", headers={"X-Request-ID": request_id})
    assert response.headers["X-Request-ID"] == response.json()["headers"]["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 65, "naïve".encode(), "a/b", '"'])
def test_an_invalid_request_id_is_replaced(request_id: str | bytes) -> None:
    """The new id differs for each request; the application and the response get the same."""
    client = mirror_behind()
    responses = [client.get("/v1/completions", headers={"X-Request-ID": request_id}) for _ in range(2)]  # type: ignore[arg-type]
    ids = [response.headers["X-Request-ID"] for response in responses]
    assert ids == [response.json()["headers"]["x-request-id"] for response in responses]
    assert len({*ids, request_id}) == 3


def test_an_error_response_has_a_request_id() -> None:
    """People need ids of failed requests most."""
    response = mirror_behind().get("/nowhere", headers={"X-Request-ID": "abc"})
    assert (response.status_code, response.headers["X-Request-ID"]) == (404, "abc")


def test_requests_bypass_ray_serve() -> None:
    """Except those for its own routes, websockets, and all until there is an application."""
    runtime = replica_runtime()
    client = mirror_behind(Middleware(ServeBypass, runtime=runtime))
    assert client.get("/v1/completions").status_code == 200

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"tenant": context_of(scope).tenant}, status_code=202)(scope, receive, send)

    runtime.application = respond
    assert client.get("/v1/completions").status_code == 202
    assert client.get("/-/healthz").status_code == 404
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_a_valid_key_passes_with_its_tenant(keys: KeyStore) -> None:
    """Inner middleware knows the tenant."""
    key = keys.add("team-a")
    client = mirror_behind(Middleware(Authentication, tenants=Tenants(keys)))
    for scheme in ("Bearer", "bearer"):
        response = client.post("/v1/completions", headers={"Authorization": f"{scheme} {key}"})
        assert response.json()["tenant"] == "team-a"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer hw-wrong", "Basic {key}", "{key}"])
def test_a_request_without_a_valid_key_gets_a_401(keys: KeyStore, header: str | None) -> None:
    """OpenAI clients understand the error, which repeats nothing of the header."""
    key = keys.add("team-a")
    client = mirror_behind(Middleware(Authentication, tenants=Tenants(keys)))
    headers = {} if header is None else {"Authorization": header.format(key=key)}
    response = client.post("/v1/completions", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "hw-" not in response.text


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/metrics", 200), ("/metrics/", 401), ("/v1/x", 401)])
def test_only_probes_need_no_key(keys: KeyStore, path: str, status: int) -> None:
    """Any other path needs one, whether it exists or not."""
    keys.add("team-a")
    client = mirror_behind(Middleware(Authentication, tenants=Tenants(keys)))
    assert client.get(path, follow_redirects=False).status_code == status


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}


def test_browsers_may_send_requests_and_read_responses(keys: KeyStore) -> None:
    """A preflight needs no key, because browsers send none with it; error responses are readable too."""
    keys.add("team-a")
    client = stack(key_file=keys.path)
    response = client.options("/v1/completions", headers=PREFLIGHT)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert response.headers["X-Request-ID"]
    for missing in PREFLIGHT:
        others = {name: value for name, value in PREFLIGHT.items() if name != missing}
        assert client.options("/v1/completions", headers=others).status_code == 401
    for method in ("GET", "POST", "HEAD"):
        response = client.request(method, "/v1/completions", headers=PREFLIGHT)
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (401, "*")
        assert response.headers["Access-Control-Expose-Headers"] == "*"


def test_the_stack_checks_key_body_quota_and_load_in_this_order(keys: KeyStore) -> None:
    """Each sees only what the one before lets pass."""
    key = keys.add("team-a")
    keys.limit("team-a", requests=1)
    client = stack(key_file=keys.path, max_body_bytes=10, streams=1, queue=0)
    authorization = {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/completions", content=b"x" * 11).status_code == 401
    assert client.post("/v1/completions", content=b"x" * 11, headers=authorization).status_code == 413
    assert client.post("/v1/completions", content=b"{}" + b" " * 8, headers=authorization).status_code == 200
    response = client.post("/v1/completions", content=b"{}" + b" " * 8, headers=authorization)
    assert (response.status_code, response.json()["error"]["type"]) == (429, "requests")


def test_a_slow_body_takes_no_slot() -> None:
    """Other requests run while it arrives, also without keys."""
    client = stack(streams=1, queue=0, body_timeout_seconds=0.2)
    statuses: list[int] = []

    async def both() -> None:
        started = asyncio.Event()
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}

        async def receive_nothing() -> Message:
            started.set()
            return await asyncio.Future()

        async def receive_body() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def record_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        slow = asyncio.ensure_future(client.app(scope, receive_nothing, record_status))
        await started.wait()
        await client.app(scope, receive_body, record_status)
        await slow

    asyncio.run(both())
    assert statuses == [200, 408]


def test_a_refusal_of_the_stack_has_a_request_id(keys: KeyStore) -> None:
    """Without a file of keys no key is needed."""
    keys.add("team-a")
    response = stack(key_file=keys.path).post("/v1/completions", headers={"X-Request-ID": "abc"})
    assert (response.status_code, response.headers["X-Request-ID"]) == (401, "abc")
    assert stack().post("/v1/completions", json={}).status_code == 200


def test_a_draining_service_refuses_all_but_scrapes() -> None:
    """Its health says that it is not ready."""
    runtime = replica_runtime()
    runtime.drain()
    client = TestClient(behind(mirror_app(), *request_path(runtime), outermost=()))
    stopping = client.post("/v1/completions")
    assert (stopping.status_code, stopping.json()["error"]["code"]) == (503, "stopping")
    assert int(stopping.headers["Retry-After"]) >= 1
    assert stopping.headers["Connection"] == "close"
    assert [client.get(path).status_code for path in ("/health", "/metrics")] == [503, 200]


def test_a_request_counts_as_open_unless_it_is_refused() -> None:
    """The service waits for those that are open when it stops."""
    runtime, counts = replica_runtime(), list[int]()

    async def count(_: Message) -> None:
        counts.append(runtime.capacity.open)

    async def drain_meanwhile(scope: Scope, receive: Receive, send: Send) -> None:
        runtime.drain()
        await draining({**scope, "path": "/health"}, receive, count)
        counts.append(runtime.capacity.open)
        await mirror_app()(scope, receive, send)

    draining = behind(drain_meanwhile, Middleware(Draining, runtime=runtime))
    TestClient(draining).get("/v1/completions").raise_for_status()
    assert counts == [1, 1, 1]
    assert runtime.capacity.open == 0


def test_a_request_is_open_before_it_checks_whether_the_service_stops() -> None:
    """The channel's thread looks at the count after it has set `draining`, and must not miss the request."""

    class Watched(ReplicaRuntime):
        draining = property(lambda self: checked.append(self.capacity.open), lambda *_: None)

    checked: list[int] = []
    base = replica_runtime()
    client = mirror_behind(Middleware(Draining, runtime=Watched(base.config, base.sinks)))
    assert client.get("/v1/completions").status_code == 200
    assert checked == [1]


class Slow:
    """An application that sends a first piece and waits for a disconnect; it records the messages that it receives."""

    def __init__(self, *, media: str = "text/event-stream", starts: bool = True) -> None:
        self.media, self.starts = media, starts
        self.received: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start the response, if it starts at all, and wait for a disconnect."""
        assert "x-request-timeout-seconds" not in Headers(scope=scope)
        if self.starts:
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.media.encode())]}
            await send(start)
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while (message := await receive())["type"] != "http.disconnect":
            self.received.append(message["type"])
        self.received.append("http.disconnect")
        await send({"type": "http.response.body", "body": b"too late", "more_body": False})


def send_with_deadline(app: ASGIApp, seconds: str) -> Any:
    """Send a request with a deadline."""
    return TestClient(behind(app, Middleware(Deadline))).post(
        "/v1/completions", headers={"X-Request-Timeout-Seconds": seconds}
    )


def test_a_response_before_its_deadline_is_complete() -> None:
    """The same holds without a deadline."""
    client = mirror_behind(Middleware(Deadline))
    assert client.post("/v1/completions", headers={"X-Request-Timeout-Seconds": "60"}).status_code == 200
    assert client.post("/v1/completions").status_code == 200


def test_a_response_that_has_not_started_at_its_deadline_is_a_504() -> None:
    """The application sees a disconnect, and what it still sends is dropped."""
    app = Slow(starts=False)
    response = send_with_deadline(app, "0.05")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert app.received[-1] == "http.disconnect"


def test_a_stream_ends_with_an_error_at_its_deadline() -> None:
    """It does not look complete: it has an error event, and no [DONE]."""
    app = Slow()
    response = send_with_deadline(app, "0.05")
    first, last = response.text.strip().split("\n\n")
    assert first == "data: 1"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert "too late" not in response.text
    assert app.received[-1] == "http.disconnect"


@pytest.mark.parametrize("deadline", ["soon", "0", "-1", "nan", "inf", ""])
def test_an_invalid_deadline_is_refused(deadline: str) -> None:
    """The response is a 400."""
    response = send_with_deadline(Slow(), deadline)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_timeout")


def test_the_rate_before_a_pause_does_not_count() -> None:
    """A burst after an idle hour is not sent away for a minute."""
    now = [0.0]
    load = capacity(1, 1, clock=lambda: now[0])
    for _ in range(3):
        load.admit()
        now[0] += 0.1
        load.finish()
    now[0] += 3600
    for _ in range(4):
        load.admit()
    load.finish()
    assert load.retry_after() == 1


def test_a_timeout_error_of_the_application_is_not_a_deadline() -> None:
    """It reaches the caller as it is."""

    async def broken(*_: object) -> None:
        raise TimeoutError("its own")

    client = TestClient(behind(broken, Middleware(Deadline)))
    with pytest.raises(TimeoutError, match="its own"):
        client.post("/", headers={"X-Request-Timeout-Seconds": "60"})


def test_websockets_are_refused() -> None:
    """No route takes one, with keys or without; the application never sees it."""

    async def accept(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    client = TestClient(behind(accept))
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_an_overloaded_service_refuses_posts() -> None:
    """Two run and two wait; a GET needs no engine and always passes."""
    load = capacity(2, 2)
    client = mirror_behind(Middleware(Admission, capacity=load))
    for _ in range(4):
        assert not load.full
        load.admit()
    response = client.post("/v1/completions")
    assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    assert int(response.headers["Retry-After"]) >= 1
    assert client.get("/v1/models").status_code == 200
    load.finish()
    assert client.post("/v1/completions").status_code == 200
    assert load.admitted == 3


def test_a_failed_request_is_no_longer_in_flight() -> None:
    """An application that raises frees its place."""
    load = capacity(1, 0)

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    client = TestClient(behind(broken, Middleware(Admission, capacity=load)), raise_server_exceptions=False)
    assert [client.post("/v1/completions").status_code for _ in range(3)] == [500] * 3
    assert load.admitted == 0


def test_the_place_is_free_before_the_client_gets_the_end() -> None:
    """The application may still have more to do."""
    load = capacity(1, 0)
    in_flight: list[int] = []

    async def two_pieces(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def count(_: Message) -> None:
        in_flight.append(load.admitted)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
    asyncio.run(serve(behind(two_pieces, Middleware(Admission, capacity=load)), scope, receive, count))
    assert in_flight == [1, 1, 0]
    assert load.admitted == 0


@pytest.mark.parametrize(
    ("seconds_each", "in_flight", "expected"), [(0.5, 12, 4), (0.01, 12, 1), (60.0, 12, 60), (0.5, 4, 1)]
)
def test_retry_after_follows_the_recent_rate(seconds_each: float, in_flight: int, expected: int) -> None:
    """It is the time until half of the queue is free, between a second and a minute."""
    now = [0.0]
    load = capacity(2, 4, clock=lambda: now[0])
    for _ in range(in_flight + 10):
        load.admit()
    for _ in range(10):
        load.finish()
        now[0] += seconds_each
    assert load.retry_after() == expected
