"""The link to another service, which is a real HTTP server here; the engine is an application that obeys."""

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
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from headway.serve.fallback import FAILURES, KEY, SERVED_BY, Fallback
from headway.serve.request_id import RequestId
from headway.telemetry import Spans

BODY = {"model": "coder", "prompt": "a"}


class Service:
    """The other service."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.breaks = False
        routes = [Route("/v1/models", self.models), Route("/v1/completions", self.answer, methods=["POST"])]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    async def models(self, _: Request) -> Response:
        """What it has."""
        return JSONResponse({"data": [{"id": "small"}]})

    async def answer(self, request: Request) -> Response:
        """What came, as a stream or at once."""
        asked = await request.json() | {"headers": dict(request.headers)}
        self.asked.append(asked)
        if self.status != 200:
            return JSONResponse({"error": {"message": "no"}}, self.status, headers={"Retry-After": "7"})

        async def pieces() -> Any:
            yield b"data: 1\n\n"
            if self.breaks:
                raise RuntimeError("in the middle")
            yield b"data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    def close(self) -> None:
        """Be gone."""
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """Another service, that works."""
    made = Service()
    yield made
    made.close()


class Engine:
    """The application in front of the engine: it answers with a status, or raises."""

    def __init__(self) -> None:
        self.well, self.status, self.raises, self.asked = True, 200, False, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "lifespan":  # a client that asks several times asks in one event loop
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        self.asked += 1
        assert (await receive())["body"] == json.dumps(BODY, separators=(",", ":")).encode()
        if self.raises:
            raise RuntimeError("broken")
        await JSONResponse({"by": "engine"}, self.status)(scope, receive, send)


@pytest.fixture
def engine() -> Engine:
    """One that works."""
    return Engine()


def client(engine: Engine, service: Service) -> TestClient:
    """A client of both."""
    link = Fallback(engine, model="coder", url=service.url, well=lambda: engine.well)
    return TestClient(RequestId(link, Spans("headway-serve", on=False)))


def test_an_engine_that_works_is_asked_alone(engine: Engine, service: Service) -> None:
    """Its refusals are answers, too."""
    asking = client(engine, service)
    for engine.status in (200, 400, 404, 429):
        assert asking.post("/v1/completions", json=BODY).status_code == engine.status
    assert not service.asked


def test_the_other_service_is_asked_as_it_wants_to_be(
    engine: Engine, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own model's name and with its own key, under the request's id; the answer says who gave it."""
    monkeypatch.setenv(KEY, "hw-other")
    engine.well = False
    headers = {"Authorization": "Bearer hw-mine", "X-Request-ID": "abc"}
    answer = client(engine, service).post("/v1/completions", json=BODY, headers=headers)
    assert (answer.status_code, answer.text) == (200, "data: 1\n\ndata: [DONE]\n\n")
    assert (answer.headers[SERVED_BY], answer.headers["content-type"][:17]) == ("small", "text/event-stream")
    [asked] = service.asked
    assert (asked["model"], asked["prompt"]) == ("small", "a")
    assert asked["headers"]["authorization"] == "Bearer hw-other"
    assert asked["headers"]["x-request-id"] == "abc"
    assert engine.asked == 0


@pytest.mark.parametrize("raises", [False, True])
def test_what_the_engine_fails_at_is_asked_once_more(engine: Engine, service: Service, raises: bool) -> None:  # noqa: FBT001
    """Before the client has heard anything; after some failures in a row the engine is left in peace."""
    engine.status, engine.raises = 500, raises
    with client(engine, service) as asking:
        for _ in range(FAILURES + 2):
            assert asking.post("/v1/completions", json=BODY).headers[SERVED_BY] == "small"
    assert engine.asked == FAILURES


def test_one_request_tries_whether_the_engine_is_back(
    engine: Engine, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rest; if it answers, all are its own again."""
    now = [0.0]
    monkeypatch.setattr("headway.objectstore.breaker.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine.status = 500
    link = Fallback(engine, model="coder", url=service.url, well=lambda: True)
    for _ in range(FAILURES):
        link.engine.record(RuntimeError())
    assert not link.engine.admits()
    now[0] += 60
    assert [link.engine.admits() for _ in range(3)] == [True, False, False]
    link.engine.record(None)
    assert [link.engine.admits() for _ in range(3)] == [True, True, True]


def test_an_answer_that_breaks_off_does_not_look_whole(engine: Engine, service: Service) -> None:
    """It ends with an error in the words of OpenAI's API."""
    engine.well, service.breaks = False, True
    answer = client(engine, service).post("/v1/completions", json=BODY)
    assert "[DONE]" not in answer.text
    assert json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "broken"


def test_when_both_fail_the_client_is_told_when_to_come_again(engine: Engine, service: Service) -> None:
    """With a 503; its Retry-After is a number."""
    engine.status, service.status = 500, 500
    with client(engine, service) as asking:
        for _ in range(FAILURES + 1):
            answer = asking.post("/v1/completions", json=BODY)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
    assert len(service.asked) == engine.asked == FAILURES


def test_without_the_other_service_the_engines_successor_is_waited_for(engine: Engine, service: Service) -> None:
    """It is not there, or fails: the application itself waits for its engine."""
    service.close()
    engine.well = False
    assert client(engine, service).post("/v1/completions", json=BODY).json() == {"by": "engine"}


def test_refusals_of_the_other_service_are_passed_on(engine: Engine, service: Service) -> None:
    """It sheds load by itself, and says when to come again."""
    engine.well, service.status = False, 429
    answer = client(engine, service).post("/v1/completions", json=BODY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_who_leaves_is_not_answered_for(engine: Engine, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other service hears that nobody waits."""
    engine.well = False
    hanging = asyncio.Event()
    link = Fallback(engine, model="coder", url=service.url, well=lambda: False)
    cancelled: list[bool] = []

    async def relay(*_: Any) -> None:
        try:
            await hanging.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def story() -> None:
        messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(_: Any) -> None:
            raise AssertionError("nobody is there")

        monkeypatch.setattr(link.other, "_relay", relay)  # an answer that does not come
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        await link(scope, receive, send)
        await asyncio.sleep(0)

    asyncio.run(story())
    assert cancelled
