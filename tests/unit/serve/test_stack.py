"""The seam of the middleware: one more, at any place of the list, needs nothing else; and what holds for all of it."""

import asyncio
import inspect
import json
import weakref
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config, replica_runtime, serve

from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.admission import Admission
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.cors import CrossOrigin
from headway.serve.middleware.deadline import Deadline
from headway.serve.middleware.draining import Draining
from headway.serve.middleware.error_responses import ErrorResponses
from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.middleware.request_id import RequestId
from headway.serve.middleware.request_telemetry import RequestTelemetry
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.stack import request_path
from headway.serve.middleware.write_timeout import WriteTimeout
from headway.serve.openai_error import ApiError
from headway.serve.request_context import RequestContext, context_of
from headway.serve.runtime import ReplicaRuntime
from headway.serve.telemetry_sinks import open_sinks
from headway.telemetry import open_log

PATH = "/v1/completions"


class TeapotCheck(RequestCheck):
    """Middleware that refuses to brew coffee, and marks every response."""

    def check(self, scope: Scope) -> None:
        """Refuse coffee with 418."""
        if Headers(scope=scope).get("X-Brew") == "coffee":
            raise ApiError(418, "This is a teapot.", kind="teapot_error", code="teapot")
        context_of(scope).response.on_start.append(self._mark)

    async def _mark(self, message: Message) -> None:
        MutableHeaders(scope=message)["X-Teapot"] = "short and stout"


async def engine(_: Scope, receive: Receive, send: Send) -> None:
    """Stream a piece, and end when the client leaves, or at once if the request says so."""
    body = json.loads((await receive())["body"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    while body.get("waits") and (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


class Replica:
    """A replica with one more middleware, right before another, around a small application."""

    def __init__(self, before: type, middleware: Middleware) -> None:
        self.log, registry, settings = StringIO(), CollectorRegistry(), config(streams=1, queue=0)
        sinks = replace(open_sinks(settings, registry=registry), log=open_log(stream=self.log))
        self.runtime = ReplicaRuntime(settings, sinks)
        path: list[Any] = request_path(self.runtime)
        path.insert([each.cls for each in path].index(before), middleware)
        self.client = TestClient(behind(engine, *path, outermost=()))

    def post(self, **headers: str) -> Any:
        """Send a request that waits if it has a deadline."""
        body = {"waits": "X-Request-Timeout-Seconds" in headers}
        return self.client.post(PATH, json=body, headers={"X-Request-ID": "abc", **headers})

    def counts(self) -> dict[tuple[str, str], float]:
        """Requests so far, by status code and outcome."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [each for family in families for each in family.samples]
        requests = [each for each in samples if each.name == "headway_serve_requests_total"]
        return {(each.labels["code"], each.labels["outcome"]): each.value for each in requests}


@pytest.mark.parametrize("place", [Draining, Admission, Deadline, ServeBypass])
def test_a_new_middleware_needs_no_change_elsewhere(place: type) -> None:
    """At any place: its refusal is rendered, counted and logged; its header and a deadline reach the client."""
    replica = Replica(place, Middleware(TeapotCheck))
    response = replica.post()
    assert (response.status_code, response.headers["X-Teapot"]) == (200, "short and stout")
    assert response.text == "data: 1\n\ndata: [DONE]\n\n"
    refused = replica.post(**{"X-Brew": "coffee", "Origin": "https://a.example"})
    assert (refused.status_code, refused.headers["X-Request-ID"]) == (418, "abc")
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    assert refused.json() == {
        "error": {"message": "This is a teapot.", "type": "teapot_error", "param": None, "code": "teapot"}
    }
    late = replica.post(**{"X-Request-Timeout-Seconds": "0.05"})
    assert late.headers["X-Teapot"]
    assert json.loads(late.text.split("data: ")[-1])["error"]["code"] == "deadline_exceeded"
    assert replica.counts() == {("200", "ok"): 1, ("418", "refused"): 1, ("200", "late"): 1}
    logged = [json.loads(line) for line in replica.log.getvalue().splitlines()]
    assert [(each["event"], each["code"], each["outcome"]) for each in logged] == [
        ("request.ended", 200, "ok"),
        ("request.ended", 418, "refused"),
        ("request.ended", 200, "late"),
    ]
    assert (replica.runtime.capacity.admitted, replica.runtime.capacity.open) == (0, 0)


def test_whatever_refuses_a_request_is_inside_of_what_responds() -> None:
    """Refusals before it would reach the server as errors."""
    runtime = replica_runtime(key_file=Path("keys.json"), fallback="http://other/v1")
    path: list[Any] = [each.cls for each in request_path(runtime)]
    before = path[: path.index(ErrorResponses)]
    assert before == [RequestId, RequestTelemetry, CrossOrigin, WriteTimeout]
    assert not any("ApiError" in vars(inspect.getmodule(each)) for each in before)


def test_a_refusal_keeps_no_body_in_memory() -> None:
    """The client may take its time to read the response; meanwhile no frame of what was refused is alive."""
    alive: list[object] = []
    held: list[weakref.ref[HeldBytes]] = []
    contexts: list[RequestContext] = []
    budget = MemoryBudget(100)

    async def refuse(scope: Scope, *_: Any) -> None:
        content = HeldBytes(b"x")
        held.append(weakref.ref(content))
        contexts.append(context_of(scope))
        assert context_of(scope).body
        try:
            int("first")
        except ValueError as error:
            raise ApiError(400, "no", kind="a", code="b") from error

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    async def send(_: Message) -> None:
        alive.extend([held[0](), contexts[0].body])

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": []}
    stack = behind(refuse, Middleware(Buffering, config=config(), budget=budget))
    asyncio.run(serve(stack, scope, receive, send))
    assert alive == [None] * 4
    assert budget.free == 100


class HeldBytes(bytearray):
    """What a frame holds; unlike bytes it can be referred to weakly."""
