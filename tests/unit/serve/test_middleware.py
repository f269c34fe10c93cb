"""The links in front of the engine, each around an application that tells what reached it."""

import asyncio
import json
import os
from collections.abc import Sequence
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

from headway.serve.admission import Admission, Load
from headway.serve.auth import Authentication
from headway.serve.config import VARIABLE, ServeConfig
from headway.serve.deadline import Deadline
from headway.serve.draining import IN_FLIGHT, Draining
from headway.serve.middleware import DRAINING, middleware_stack
from headway.serve.request_context import context_of
from headway.serve.request_id import RequestId
from headway.serve.serve_bypass import ServeBypass
from headway.serve.tenants import KeyStore, Tenants
from headway.telemetry import Spans

SPANS = Spans("headway-serve", on=False)
IDENTITY = Middleware(RequestId, spans=SPANS)


async def mirror(request: Request) -> JSONResponse:
    """What came through."""
    return JSONResponse({"headers": dict(request.headers), "tenant": context_of(request.scope).tenant})


def mirror_app() -> Starlette:
    """The mirror at the paths that links know."""
    paths = ("/v1/completions", "/health", "/metrics")
    return Starlette(routes=[Route(path, mirror, methods=["GET", "POST"]) for path in paths])


def behind(middleware: Sequence[Middleware], first: Sequence[Middleware] = (IDENTITY,)) -> TestClient:
    """A client of the mirror behind these links, the outermost last, as Serve puts them; the first of all names it."""
    app: Any = mirror_app()
    for each in [*middleware, *first]:
        app = each.cls(app, *each.args, **each.kwargs)
    return TestClient(app)


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """Where keys are kept."""
    return KeyStore(tmp_path / "keys.json")


@pytest.mark.parametrize("given", ["abc", "A-1_b.c", "x" * 64])
def test_a_good_id_is_kept(given: str) -> None:
    """On the way in, and on the way out."""
    answer = behind([IDENTITY]).get("/v1/completions", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == answer.json()["headers"]["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "naïve".encode(), "a/b", '"'])
def test_a_bad_id_is_replaced(given: str | bytes) -> None:
    """By one that differs from request to request, the same on both ways."""
    client = behind([IDENTITY])
    answers = [client.get("/v1/completions", headers={"X-Request-ID": given}) for _ in range(2)]  # type: ignore[arg-type]
    names = [answer.headers["X-Request-ID"] for answer in answers]
    assert names == [answer.json()["headers"]["x-request-id"] for answer in answers]
    assert len({*names, given}) == 3


def test_what_is_not_found_has_an_id_too() -> None:
    """Errors are what ids are asked for most."""
    answer = behind([IDENTITY]).get("/nowhere", headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (404, "abc")


def test_requests_go_to_the_application_past_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what is Serve's own; until there is an application, and for websockets, Serve is asked."""
    client = behind([Middleware(ServeBypass)])
    assert client.get("/v1/completions").status_code == 200

    async def straight(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"tenant": context_of(scope).tenant}, status_code=202)(scope, receive, send)

    monkeypatch.setattr(ServeBypass, "application", staticmethod(straight))
    assert client.get("/v1/completions").status_code == 202
    assert client.get("/-/healthz").status_code == 404
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_a_tenant_is_let_through_by_its_key(keys: KeyStore) -> None:
    """The links after this one know who it is."""
    key = keys.add("team-a")
    client = behind([Middleware(Authentication, tenants=Tenants(keys))])
    for scheme in ("Bearer", "bearer"):
        answer = client.post("/v1/completions", headers={"Authorization": f"{scheme} {key}"})
        assert answer.json()["tenant"] == "team-a"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer hw-wrong", "Basic {key}", "{key}"])
def test_nobody_else_is(keys: KeyStore, header: str | None) -> None:
    """With an error that an OpenAI client understands, and that repeats nothing of what was sent."""
    key = keys.add("team-a")
    client = behind([Middleware(Authentication, tenants=Tenants(keys))])
    sent = {} if header is None else {"Authorization": header.format(key=key)}
    answer = client.post("/v1/completions", headers=sent)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "hw-" not in answer.text


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/metrics", 200), ("/metrics/", 401), ("/v1/x", 401)])
def test_only_what_tells_nothing_of_tenants_needs_no_key(keys: KeyStore, path: str, status: int) -> None:
    """Probes and scrapes come without one; everything else is asked, there or not."""
    keys.add("team-a")
    client = behind([Middleware(Authentication, tenants=Tenants(keys))])
    assert client.get(path, follow_redirects=False).status_code == status


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}


def test_a_browser_may_ask_and_read_what_it_is_told(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preflight needs no key, as by the standard none is sent with it; any answer may be read, refusals included."""
    keys.add("team-a")
    monkeypatch.setenv(VARIABLE, ServeConfig(folder=Path("/model"), name="coder", keys=keys.path).model_dump_json())
    monkeypatch.setenv(DRAINING, str(keys.path.with_name("draining")))
    client = behind(middleware_stack(), first=())
    answer = client.options("/v1/completions", headers=PREFLIGHT)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert answer.headers["X-Request-ID"]
    for missing in PREFLIGHT:
        others = {name: value for name, value in PREFLIGHT.items() if name != missing}
        assert client.options("/v1/completions", headers=others).status_code == 401
    for method in ("GET", "POST", "HEAD"):
        refused = client.request(method, "/v1/completions", headers=PREFLIGHT)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")
        assert refused.headers["Access-Control-Expose-Headers"] == "*"


def test_the_chain_counts_what_is_whole_and_has_a_key(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, body, quota, and then a place: none of them sees what the one before refuses."""
    key = keys.add("team-a")
    keys.limit("team-a", requests=1)
    endpoint = ServeConfig(folder=Path("/model"), name="coder", keys=keys.path, body_bytes=10, streams=1, queue=0)
    monkeypatch.setenv(VARIABLE, endpoint.model_dump_json())
    monkeypatch.setenv(DRAINING, str(keys.path.with_name("draining")))
    client = behind(middleware_stack(), first=())
    known = {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/completions", content=b"x" * 11).status_code == 401
    assert client.post("/v1/completions", content=b"x" * 11, headers=known).status_code == 413
    assert client.post("/v1/completions", content=b"{}" + b" " * 8, headers=known).status_code == 200
    answer = client.post("/v1/completions", content=b"{}" + b" " * 8, headers=known)
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "requests")


def test_a_slow_client_holds_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While its body is on its way, others are computed; without keys, too."""
    endpoint = ServeConfig(folder=Path("/model"), name="coder", streams=1, queue=0, body_seconds=0.2)
    monkeypatch.setenv(VARIABLE, endpoint.model_dump_json())
    monkeypatch.setenv(DRAINING, str(tmp_path / "draining"))
    client = behind(middleware_stack(), first=())
    statuses: list[int] = []

    async def both() -> None:
        begun = asyncio.Event()
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}

        async def stalled() -> Message:
            begun.set()
            return await asyncio.Future()

        async def whole() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        slow = asyncio.ensure_future(client.app(scope, stalled, answer))
        await begun.wait()
        await client.app(scope, whole, answer)
        await slow

    asyncio.run(both())
    assert statuses == [200, 408]


def test_the_chain_names_a_request_before_it_refuses_it(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Serve finds it: from the environment."""
    keys.add("team-a")
    endpoint = ServeConfig(folder=Path("/model"), name="coder", keys=keys.path)
    monkeypatch.setenv(VARIABLE, endpoint.model_dump_json())
    monkeypatch.setenv(DRAINING, str(keys.path.with_name("draining")))
    answer = behind(middleware_stack(), first=()).post("/v1/completions", headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (401, "abc")
    monkeypatch.setenv(VARIABLE, endpoint.model_copy(update={"keys": None}).model_dump_json())
    assert behind(middleware_stack(), first=()).post("/v1/completions", json={}).status_code == 200
    Path(os.environ[DRAINING]).touch()
    stopping = behind(middleware_stack(), first=()).post("/v1/completions")
    assert (stopping.status_code, stopping.json()["error"]["code"]) == (503, "stopping")
    assert int(stopping.headers["Retry-After"]) >= 1
    assert [behind(middleware_stack(), first=()).get(path).status_code for path in ("/health", "/metrics")] == [
        503,
        200,
    ]


def test_a_service_that_stops_says_what_is_still_to_come_to_its_end(tmp_path: Path) -> None:
    """To who asks how it is; until then it listens."""
    marker, told = tmp_path / "draining", []

    async def ask_meanwhile(scope: Scope, receive: Receive, send: Send) -> None:
        """What another hears while this one is answered."""
        marker.touch()
        told.append(TestClient(Draining(mirror_app(), marker)).get("/health").headers[IN_FLIGHT])
        inside = {**scope, "path": "/health"}
        await link(inside, receive, remember)
        await mirror_app()(scope, receive, send)

    async def remember(message: Message) -> None:
        if message["type"] == "http.response.start":
            told.append(Headers(raw=message["headers"])[IN_FLIGHT])

    link = Draining(ask_meanwhile, marker)
    TestClient(RequestId(link, SPANS)).get("/v1/completions").raise_for_status()
    assert told == ["0", "1"]
    assert link.flying == 0


class Slow:
    """An application that answers in pieces, each when it is told to, and hears when its client has gone."""

    def __init__(self, *, media: str = "text/event-stream", begins: bool = True) -> None:
        self.media, self.begins = media, begins
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin, perhaps, and then wait for the client to go."""
        assert "x-request-timeout-seconds" not in Headers(scope=scope)
        if self.begins:
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.media.encode())]}
            await send(start)
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while (message := await receive())["type"] != "http.disconnect":
            self.heard.append(message["type"])
        self.heard.append("http.disconnect")
        await send({"type": "http.response.body", "body": b"too late", "more_body": False})


def timed(app: ASGIApp, seconds: str) -> Any:
    """What a client gets that waits so long."""
    return TestClient(RequestId(Deadline(app), SPANS)).post(
        "/v1/completions", headers={"X-Request-Timeout-Seconds": seconds}
    )


def test_an_answer_in_time_is_whole() -> None:
    """With a deadline and without one."""
    client = behind([Middleware(Deadline)])
    assert client.post("/v1/completions", headers={"X-Request-Timeout-Seconds": "60"}).status_code == 200
    assert client.post("/v1/completions").status_code == 200


def test_what_has_not_begun_at_its_deadline_is_answered_504() -> None:
    """The application hears that nobody waits any more, and what it still says is dropped."""
    app = Slow(begins=False)
    answer = timed(app, "0.05")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert app.heard[-1] == "http.disconnect"


def test_a_stream_ends_with_an_error_at_its_deadline() -> None:
    """It does not look complete: no [DONE], and an error in the words of OpenAI's API."""
    app = Slow()
    answer = timed(app, "0.05")
    first, last = answer.text.strip().split("\n\n")
    assert first == "data: 1"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert "too late" not in answer.text
    assert app.heard[-1] == "http.disconnect"


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_none_is_refused(given: str) -> None:
    """With what it should be."""
    answer = timed(Slow(), given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_timeout")


def test_the_rate_of_before_a_pause_says_nothing() -> None:
    """After an idle hour a burst is not sent away for a minute."""
    now = [0.0]
    load = Load(streams=1, queue=1, clock=lambda: now[0])
    for _ in range(3):
        load.begin()
        now[0] += 0.1
        load.finish()
    now[0] += 3600
    for _ in range(4):
        load.begin()
    load.finish()
    assert load.retry_after() == 1


def test_an_error_of_the_application_is_no_deadline() -> None:
    """It raises TimeoutError itself: that is told as what it is."""

    async def broken(*_: object) -> None:
        raise TimeoutError("its own")

    client = TestClient(Deadline(broken))
    with pytest.raises(TimeoutError, match="its own"):
        client.post("/", headers={"X-Request-Timeout-Seconds": "60"})


def test_a_websocket_needs_no_key_to_be_refused(keys: KeyStore) -> None:
    """Nothing that is served here is asked by one, and no link looks into it."""
    keys.add("team-a")
    client = behind([Middleware(Authentication, tenants=Tenants(keys))])
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_a_full_house_refuses_and_says_when_to_come_again() -> None:
    """Two computed and two waiting are all; asking for the models costs nothing, and is always answered."""
    load = Load(streams=2, queue=2)
    client = behind([Middleware(Admission, load=load)])
    for _ in range(4):
        assert not load.full
        load.begin()
    answer = client.post("/v1/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
    assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/v1/completions").status_code == 200
    load.finish()
    assert client.post("/v1/completions").status_code == 200
    assert load.flying == 3


def test_what_fails_is_in_flight_no_longer() -> None:
    """An application that raises, or whose client has gone, frees its place."""
    load = Load(streams=1, queue=0)

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    client = TestClient(RequestId(Admission(broken, load), SPANS), raise_server_exceptions=False)
    assert [client.post("/").status_code for _ in range(3)] == [500] * 3
    assert load.flying == 0


def test_who_has_heard_the_end_may_ask_again() -> None:
    """Its place is free by then, although what served it may have more to do."""
    load = Load(streams=1, queue=0)
    flying: list[int] = []

    async def two_pieces(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def hear(_: Message) -> None:
        flying.append(load.flying)

    async def ask() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
    asyncio.run(RequestId(Admission(two_pieces, load), SPANS)(scope, ask, hear))
    assert flying == [1, 1, 0]
    assert load.flying == 0


@pytest.mark.parametrize(("each", "flying", "expected"), [(0.5, 12, 4), (0.01, 12, 1), (60.0, 12, 60), (0.5, 4, 1)])
def test_the_time_to_come_again_is_computed(each: float, flying: int, expected: int) -> None:
    """By how fast answers were finished lately: until half of the queue is free; between a second and a minute."""
    now = [0.0]
    load = Load(streams=2, queue=4, clock=lambda: now[0])
    for _ in range(flying + 10):
        load.begin()
    for _ in range(10):
        load.finish()
        now[0] += each
    assert load.retry_after() == expected
