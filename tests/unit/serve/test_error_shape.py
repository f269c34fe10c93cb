"""Whatever fails at a request, in any layer: one shape of error, with a request id, counted and logged."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.middleware.request_id import RequestId
from headway.serve.middleware.stack import request_path
from headway.serve.request_context import context_of
from headway.serve.runtime import ReplicaRuntime
from headway.serve.telemetry_sinks import open_sinks
from headway.serve.tenants.key_file import KeyStore
from headway.telemetry import Span, open_log

PATH = "/v1/completions"
PROMPT = "the prompt of a client"
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Layer(HttpMiddleware):
    """Middleware that does what a test tells it."""

    def __init__(self, app: ASGIApp, handler: Callable[[ASGIApp], Handler]) -> None:
        super().__init__(app)
        self.handler = handler(self.app)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do it."""
        await self.handler(scope, receive, send)


async def respond(_: Scope, receive: Receive, send: Send) -> None:
    """Respond in two pieces."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    await send({"type": "http.response.body", "body": b"}"})


class Stack:
    """The whole stack of a service with API keys, with one more layer before the one at `place`."""

    def __init__(self, folder: Path, place: int, handler: Callable[[ASGIApp], Handler], **fields: Any) -> None:
        store = KeyStore(folder / "keys.json")
        self.key = store.add("team-a")
        store.limit("team-a", requests=1000, tokens=1_000_000)
        self.log = StringIO()
        settings = config(key_file=store.path, **fields)
        sinks = replace(open_sinks(settings, registry=CollectorRegistry()), log=open_log(stream=self.log))
        self.runtime = ReplicaRuntime(settings, sinks)
        self.runtime.engine = cast("Any", SimpleNamespace(healthy=True))
        self.runtime.application = respond
        path: list[Any] = request_path(self.runtime)
        path.insert(place, Middleware(Layer, handler=handler))
        self.names = [each.cls.__name__ for each in path]
        self.client = TestClient(behind(respond, *path, outermost=()), raise_server_exceptions=False)

    def post(self, path: str = PATH, method: str = "POST", **headers: str) -> Any:
        """Send a request."""
        headers = {"X-Request-ID": "abc", "Authorization": f"Bearer {self.key}", **headers}
        body = {"prompt": PROMPT} if method == "POST" else None
        return self.client.request(method, path, headers=headers, json=body)

    def counts(self) -> dict[tuple[str, str], float]:
        """Requests so far, by status code and outcome."""
        counter = self.runtime.sinks.metrics._requests.requests  # noqa: SLF001 - a scrape passes the layer that fails
        samples = next(iter(counter.collect())).samples
        totals = [each for each in samples if each.name.endswith("_total")]
        return {(each.labels["code"], each.labels["outcome"]): each.value for each in totals}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log so far."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


def assert_internal_error(response: Any) -> None:
    """Assert that a response is the error of a service that failed, in OpenAI's shape."""
    assert (response.status_code, response.headers["X-Request-ID"]) == (500, "abc")
    assert response.headers["Content-Type"] == "application/json"
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "internal_error", None)
    assert "abc" in error["message"]
    assert "broken part" not in response.text


def assert_one_failure(stack: Stack) -> None:
    """Assert that metrics and log say of one request that it failed, and that nothing is held any more."""
    assert stack.counts() == {("500", "failed"): 1}
    [ended] = stack.events("request.ended")
    assert (ended["request"], ended["code"], ended["problem"]) == ("abc", 500, "internal_error")
    failure = stack.events("request.failed")[0]
    assert (failure["request"], "broken part" in failure["problem"]) == ("abc", True)
    assert "test_error_shape.py" in failure["place"]
    assert PROMPT not in stack.log.getvalue()
    assert (stack.runtime.capacity.open, stack.runtime.capacity.admitted) == (0, 0)


def raising(_: ASGIApp) -> Handler:
    """A layer that fails before it passes a request on."""

    async def handle(*_: Any) -> None:
        raise RuntimeError("broken part")

    return handle


def raising_on_the_way_back(app: ASGIApp) -> Handler:
    """A layer whose hook on the response fails."""

    async def hook(_: Message) -> None:
        raise LookupError("broken part")

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).response.on_start.append(hook)
        await app(scope, receive, send)

    return handle


PLACES = range(1, 15)
"""Before each layer of the stack, from `RequestTelemetry` to `ServeBypass`."""


@pytest.mark.parametrize("handler", [raising, raising_on_the_way_back])
@pytest.mark.parametrize("place", PLACES)
def test_a_layer_that_fails_gets_the_shape(tmp_path: Path, place: int, handler: Callable[[ASGIApp], Handler]) -> None:
    """Wherever it stands: 500 with a request id; it is counted, the log says where, and places are free again."""
    stack = Stack(tmp_path, place, handler)
    assert stack.names[PLACES[-1] + 1 :] == ["ServeBypass"]
    assert_internal_error(stack.post())
    if place > 1:
        assert_one_failure(stack)
    else:  # it stands around what counts
        assert stack.events("request.failed")


def test_what_fails_before_the_fallback_responds_is_logged(tmp_path: Path) -> None:
    """The client gets the response of the other service, or hears that neither can respond."""
    stack = Stack(tmp_path, 15, raising, fallback="http://127.0.0.1:9/v1")
    response = stack.post()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "broken part" in stack.events("request.failed")[0]["problem"]
    assert stack.counts() == {("503", "failed"): 1}


@pytest.mark.parametrize("part", ["log", "metrics", "spans", "span"])
def test_telemetry_that_fails_changes_no_response(tmp_path: Path, part: str) -> None:
    """Each of its parts fails alone: the others still have the request."""
    stack = Stack(tmp_path, 14, lambda app: app)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken part")

    sinks: Any = stack.runtime.sinks
    owners = {"log": (sinks.log, "write"), "metrics": (sinks.metrics, "record_request")}
    owners |= {"spans": (sinks.spans, "start_span"), "span": (Span, "set")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*owners[part], fail)
        response = stack.post()
    assert (response.status_code, response.headers["X-Request-ID"], response.text) == (200, "abc", "{}")
    assert stack.counts() == ({} if part == "metrics" else {("200", "ok"): 1})
    assert len(stack.events("request.ended")) == (part != "log")
    assert bool(stack.events("request.failed")) == (part != "log")


@pytest.mark.parametrize("moment", ["on_end", "on_close"])
def test_a_hook_of_the_end_that_fails_keeps_no_other_from_being_called(tmp_path: Path, moment: str) -> None:
    """The response is whole, and nothing is held."""

    def handler(app: ASGIApp) -> Handler:
        async def fail() -> None:
            raise RuntimeError("broken part")

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            context = context_of(scope)
            (context.response.on_end if moment == "on_end" else context.on_close).append(fail)
            await app(scope, receive, send)

        return handle

    stack = Stack(tmp_path, 14, handler)
    assert (stack.post().text, stack.counts()) == ("{}", {("200", "ok"): 1})
    assert (stack.runtime.capacity.open, stack.runtime.capacity.admitted) == (0, 0)
    assert "broken part" in stack.events("request.failed")[0]["problem"]


@pytest.mark.parametrize("media", ["text/event-stream", "application/json"])
def test_a_response_that_breaks_after_its_start_never_looks_whole(tmp_path: Path, media: str) -> None:
    """A stream ends with an error as its last event; any other response stays incomplete, and the server cuts it."""
    messages: list[Message] = []

    def handler(_: ASGIApp) -> Handler:
        async def handle(_: Scope, __: Receive, send: Send) -> None:
            headers = [(b"content-type", media.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            raise RuntimeError("broken part")

        return handle

    stack = Stack(tmp_path, 14, handler)
    middleware = stack.client.app

    async def recorder(scope: Scope, receive: Receive, send: Send) -> None:
        async def record(message: Message) -> None:
            messages.append(message)
            await send(message)

        await middleware(scope, receive, record)

    stack.client = TestClient(recorder, raise_server_exceptions=False)
    with suppress(Exception):  # the client has no way to show an incomplete response
        stack.post()
    pieces = [each for each in messages if each["type"] == "http.response.body"]
    events = b"".join(each["body"] for each in pieces).decode().split("\n\n")
    assert events.pop(0) == "data: 1"
    codes = [json.loads(each.removeprefix("data: "))["error"]["code"] for each in events if each]
    assert codes == (["internal_error"] if media == "text/event-stream" else [])
    assert any(not each.get("more_body") for each in pieces) == (media == "text/event-stream")
    assert stack.counts() == {("200", "failed"): 1}


@pytest.mark.parametrize("status", [400, 404, 405, 413, 418, 499, 500, 502, 503])
@pytest.mark.parametrize("response", [PlainTextResponse, HTMLResponse, Response])
def test_an_error_of_another_shape_gets_the_shape(tmp_path: Path, response: type[Response], status: int) -> None:
    """Ray Serve's, Starlette's, a proxy's: its status and headers stay, its text does not."""

    def handler(_: ASGIApp) -> Handler:
        return response("broken part " * 100, status, {"Retry-After": "3"})

    stack = Stack(tmp_path, 14, handler)
    answer = stack.post()
    assert (answer.status_code, answer.headers["Retry-After"], answer.headers["X-Request-ID"]) == (status, "3", "abc")
    assert answer.headers["Content-Length"] == str(len(answer.content))
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error" if status >= 500 else "invalid_request_error", str(status))
    assert "broken part" not in answer.text
    assert stack.counts() == {(str(status), "failed" if status >= 500 else "refused"): 1}


def test_an_error_in_the_shape_is_passed_on(tmp_path: Path) -> None:
    """Byte for byte."""
    content = {"error": {"message": "no", "type": "a", "param": "b", "code": 1}, "more": 2}
    stack = Stack(tmp_path, 14, lambda _: JSONResponse(content, 400))
    assert stack.post().json() == content


def test_a_preflight_that_is_refused_has_the_shape(tmp_path: Path) -> None:
    """Starlette refuses it in plain text."""
    stack = Stack(tmp_path, 14, lambda app: app)
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "BREW"}
    response = stack.post(method="OPTIONS", **headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "400")
    assert stack.counts() == {("400", "refused"): 1}


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/-/healthz", "/-/routes"])
def test_a_failure_at_any_path_is_counted(tmp_path: Path, path: str) -> None:
    """Also at those that machines poll, of which nothing else leaves a trace."""
    stack = Stack(tmp_path, 4, raising)
    assert_internal_error(stack.post(path, "GET"))
    assert_one_failure(stack)


def test_what_the_client_gets_is_no_secret_of_the_service(tmp_path: Path) -> None:
    """And the log has neither body nor key of the client."""

    def handler(_: ASGIApp) -> Handler:
        async def handle(scope: Scope, *_: Any) -> None:
            text = context_of(scope).body
            raise ValueError(f"broken part {'x' * 10_000}", len(str(text)))

        return handle

    stack = Stack(tmp_path, 14, handler)
    assert_internal_error(stack.post())
    [failure] = stack.events("request.failed")
    assert len(failure["problem"]) <= 500
    assert stack.key not in stack.log.getvalue()


def test_the_server_closes_the_connection_of_a_request_that_failed(tmp_path: Path) -> None:
    """It does so when it sees the error; the client has its response by then, from the outermost layer."""
    stack = Stack(tmp_path, 1, raising)
    assert stack.names[0] == RequestId.__name__
    with pytest.raises(RuntimeError, match="broken part"):
        TestClient(stack.client.app).post(PATH)
    assert_internal_error(stack.post())
