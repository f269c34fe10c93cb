"""Quotas of requests and tokens, in front of an application that uses as many tokens as the test tells it.

The test sets the clock, which starts at the beginning of a window.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config, replica_runtime

from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.auth import Authentication
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.quota import QuotaEnforcement
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.request_body import RequestBody
from headway.serve.request_context import context_of
from headway.serve.routes import ROUTES
from headway.serve.tenants.estimate import DEFAULT_MAX_TOKENS, estimate_tokens
from headway.serve.tenants.key_file import KeyStore
from headway.serve.tenants.lookup import Tenants
from headway.serve.tenants.meter import Meter

PATH = "/v1/completions"


class Clock:
    """A clock that the test sets; a window begins at 0."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time that was set [s]."""
        return self.now


class Engine:
    """An application that uses a set number of tokens for each request, and responds with its body."""

    def __init__(self, tokens: int = 0) -> None:
        self.tokens, self.status = tokens, 200
        self.request_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond in two pieces."""
        self.request_count += 1
        body = (await receive())["body"]
        context = context_of(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        context.prompt_tokens, context.generated_tokens = self.tokens // 2, self.tokens - self.tokens // 2
        await send({"type": "http.response.body", "body": b""})


class Service:
    """A service with one tenant."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.engine, self.keys = Clock(), Engine(), KeyStore(folder / "keys.json")
        self.key = self.keys.add("team-a")
        self.meter = Meter(self.clock)

    def limit(self, **limits: int) -> None:
        """Set the tenant's quota, and let the service read it."""
        self.keys.limit("team-a", **limits)
        self.clock.now += 1.5

    def usage(self, name: str) -> float:
        """Usage under this name now."""
        return asyncio.run(self.meter.usage(name)).total

    def client(self, app: ASGIApp | None = None, key: str | None = None) -> TestClient:
        """A client of the middleware around the engine."""
        tenants = Tenants(self.keys, self.clock)
        stack = behind(
            app or self.engine,
            Middleware(Authentication, tenants=tenants),
            Middleware(Buffering, config=config(), budget=MemoryBudget(2**30)),
            Middleware(QuotaEnforcement, tenants=tenants, meter=self.meter),
            Middleware(ServeBypass, runtime=replica_runtime()),
        )
        return TestClient(stack, headers={"Authorization": f"Bearer {key or self.key}"}, raise_server_exceptions=False)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service without quotas so far."""
    return Service(tmp_path)


def send(client: TestClient, tokens: int = 100, **fields: Any) -> Any:
    """Send a request whose estimate is `tokens`."""
    body = json.dumps({"max_tokens": 10, "prompt": "", **fields})
    body += " " * (4 * (tokens - 10) - len(body))
    response = client.post(PATH, content=body)
    assert response.status_code != 200 or response.text == body  # the engine gets the body unchanged
    return response


def test_a_tenant_without_a_quota_has_no_limit(service: Service) -> None:
    """Its responses have no rate-limit headers."""
    client = service.client()
    responses = [send(client) for _ in range(50)]
    assert {response.status_code for response in responses} == {200}
    assert not any("ratelimit" in name for name in responses[0].headers)


def test_requests_beyond_the_quota_get_a_429(service: Service) -> None:
    """It says how long to wait, exactly: not a second too long."""
    service.limit(requests=3)
    client = service.client()
    service.clock.now = 20.0
    assert [send(client).status_code for _ in range(3)] == [200] * 3
    response = send(client)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert response.headers["Retry-After"] == "60"  # 3 fade to 2 in the first third of the minute that begins at 60
    assert "60 s" in error["message"]
    service.clock.now = 79.0
    assert send(client).headers["Retry-After"] == "1"
    service.clock.now = 80.0
    assert send(client).status_code == 200
    assert service.engine.request_count == 4


def test_a_refused_request_costs_nothing(service: Service) -> None:
    """However often a client retries too early, it passes at the time that it was told first."""
    service.limit(requests=1, tokens=1000)
    client = service.client()
    send(client, 600)
    for service.clock.now in range(60):
        assert send(client, 600).status_code == 429
    service.clock.now = 120.0
    assert send(client, 600).status_code == 200


def test_the_excess_is_refunded_after_the_response(service: Service) -> None:
    """The engine's count replaces the estimate."""
    service.limit(tokens=1000)
    service.engine.tokens = 100
    client = service.client()
    responses = [send(client, 500) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 6
    remaining = [int(response.headers["x-ratelimit-remaining-tokens"]) for response in responses]
    assert remaining == [500, 400, 300, 200, 100, 0]
    assert send(client, 500).status_code == 429
    assert service.usage("tokens/team-a") == 600


def test_tokens_beyond_the_estimate_are_charged(service: Service) -> None:
    """Even beyond the quota; the next request waits until the usage has faded."""
    service.limit(tokens=1000)
    service.engine.tokens = 4000
    client = service.client()
    service.clock.now = 0.0
    assert send(client, 100).status_code == 200
    assert service.usage("tokens/team-a") == 4000
    response = send(client, 100)
    assert (response.status_code, response.json()["error"]["type"]) == (429, "tokens")
    assert response.headers["Retry-After"] == "107"  # 4000 fade to 900 in 46.5 s of the next minute
    assert response.headers["x-ratelimit-remaining-tokens"] == "0"
    service.clock.now = 107.0
    assert send(client, 100).status_code == 200


@pytest.mark.parametrize("raised", [RuntimeError, asyncio.CancelledError])
def test_a_response_that_breaks_off_is_charged_its_tokens(service: Service, raised: type[BaseException]) -> None:
    """The tokens that the engine usage until then count."""

    async def broken(scope: Scope, *_: Any) -> None:
        context_of(scope).generated_tokens = 7
        raise raised

    service.limit(tokens=1000)
    with suppress(asyncio.CancelledError):
        send(service.client(broken), 500)
    assert service.usage("tokens/team-a") == 7


def test_tokens_generated_after_the_response_are_charged(service: Service) -> None:
    """A deadline responds before the engine stops: its tokens until then count."""

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).generated_tokens = 5
        await PlainTextResponse("too late", 504)(scope, receive, send)
        context_of(scope).generated_tokens = 8

    service.limit(tokens=1000)
    assert send(service.client(late), 500).status_code == 504
    assert service.usage("tokens/team-a") == 8


def test_the_refund_precedes_the_end_of_the_response(service: Service) -> None:
    """Otherwise the client's next request could be refused for tokens that it has not usage."""
    service.limit(tokens=1000)
    totals: list[float] = []
    middleware = service.client().app

    async def recorder(scope: Scope, receive: Receive, send: Send) -> None:
        async def response(message: Message) -> None:
            if message["type"] == "http.response.body":
                totals.append((await service.meter.usage("tokens/team-a")).total)
            await send(message)

        await middleware(scope, receive, response)

    send(TestClient(recorder, headers={"Authorization": f"Bearer {service.key}"}), 500)
    assert totals == [500, 0]


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_the_service_sheds_costs_nothing(service: Service, status: int) -> None:
    """An overloaded or stopping service does not charge its tenants."""
    service.limit(requests=1, tokens=1000)
    service.engine.status = status
    client = service.client()
    for _ in range(3):
        response = client.post(PATH, content=b"{}")
        assert (response.status_code, response.headers["x-ratelimit-remaining-requests"]) == (status, "1")
    assert service.usage("requests/team-a") == service.usage("tokens/team-a") == 0


def test_a_request_that_the_engine_refuses_costs_one_request(service: Service) -> None:
    """It costs no tokens."""
    service.limit(requests=1, tokens=1000)
    service.engine.status = 404
    client = service.client()
    assert [client.post(PATH, content=b"{}").status_code for _ in range(2)] == [404, 429]
    assert service.usage("tokens/team-a") == 0


def test_a_request_beyond_the_whole_quota_gets_a_400(service: Service) -> None:
    """Clients do not retry a 400; its message says what to send instead."""
    service.limit(tokens=1000)
    client = service.client()
    response = send(client, 1001)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "tokens", "rate_limit_exceeded")
    assert "Retry-After" not in response.headers
    assert response.headers["x-ratelimit-remaining-tokens"] == "1000"
    assert all(word in error["message"] for word in ("1000", "1001", "max_tokens"))
    assert send(client, 1000).status_code == 200
    assert service.engine.request_count == 1


def test_the_headers_hold_the_remaining_quota(service: Service) -> None:
    """They are those of OpenAI's API, one set for each limit."""
    service.limit(requests=600, tokens=100_000)
    service.clock.now = 20.0
    headers = send(service.client(), 100).headers
    assert {name: value for name, value in headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "1m40s",
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "99900",
        "x-ratelimit-reset-tokens": "1m40s",
    }
    service.clock.now = 119.75
    service.limit(tokens=0)
    service.clock.now = 119.75
    assert not any("tokens" in name for name in service.client().post(PATH, content=b"{}").headers)


@pytest.mark.parametrize(
    ("moment", "reset"),
    [(0.0, "2m0s"), (30.0, "1m30s"), (60.0, "1m0s"), (61.0, "59s"), (119.75, "250ms"), (120.0, "0s")],
)
def test_durations_have_openais_format(service: Service, moment: float, reset: str) -> None:
    """Minutes and seconds, or milliseconds below one second."""
    service.limit(requests=2)
    service.clock.now = 0.0
    client = service.client()
    send(client)
    service.clock.now = moment
    service.engine.status = 503  # which costs nothing itself
    assert client.post(PATH, content=b"{}").headers["x-ratelimit-reset-requests"] == reset


def test_a_get_is_free(service: Service) -> None:
    """It passes where a POST would not."""
    service.limit(requests=1)

    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("models")(scope, receive, send)

    client = service.client(models)
    assert [client.get("/v1/models").status_code for _ in range(5)] == [200] * 5
    assert [client.post(PATH).status_code for _ in range(2)] == [200, 429]
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("path", [route.path for route in ROUTES.values() if route.method == "POST"])
def test_every_post_is_charged(service: Service, path: str) -> None:
    """Also those outside /v1: they need the engine or its tokenizer."""
    service.limit(requests=1)
    client = service.client()
    assert [client.post(path, content=b"{}").status_code for _ in range(2)] == [200, 429]


def test_the_keys_of_a_tenant_share_its_quota(service: Service) -> None:
    """Another tenant has its own."""
    service.limit(requests=1)
    second, other = service.keys.add("team-a"), service.keys.add("team-b")
    assert [send(service.client(key=key)).status_code for key in (service.key, second, other, other)] == [
        200,
        429,
        200,
        200,
    ]


def test_a_changed_limit_keeps_the_usage(service: Service) -> None:
    """It applies without a restart."""
    service.limit(tokens=1000)
    service.engine.tokens = 300
    client = service.client()
    assert [send(client, 300).status_code for _ in range(2)] == [200, 200]
    service.limit(tokens=500)
    assert send(client, 300).status_code == 429
    service.limit(tokens=900)
    assert send(client, 300).status_code == 200
    service.limit(tokens=0)
    assert send(client, 3000).status_code == 200


@pytest.mark.parametrize(
    ("fields", "completion_tokens"),
    [
        ({}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": None, "n": None}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "prompt": ["a", "b"], "n": 2}, 40),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ({"max_tokens": 10, "prompt": [[1, 2], [3]]}, 20),
        ({"max_tokens": 10, "prompt": []}, 10),
        ({"max_tokens": 10, "messages": [{"role": "user", "content": "a"}] * 3}, 10),
        ({"max_tokens": 10, "messages": [[{"role": "user", "content": "a"}]] * 3}, 30),
        ({"max_tokens": "10"}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": -10}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": True, "n": True}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": 10, "n": -3}, 10),
    ],
)
def test_an_estimate_counts_prompts_and_completions(fields: dict[str, Any], completion_tokens: int) -> None:
    """A quarter of the bytes, plus the limits of all completions, or a default where there is no limit."""
    body = json.dumps(fields).encode()
    assert estimate_tokens(RequestBody(body)) == -(-len(body) // 4) + completion_tokens


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 5000]
)
def test_an_invalid_body_passes(service: Service, body: bytes) -> None:
    """It counts by its size, and the engine reports what is wrong."""
    assert estimate_tokens(RequestBody(body)) == -(-len(body) // 4) + DEFAULT_MAX_TOKENS
    service.limit(tokens=100_000)
    response = service.client().post(PATH, content=body)
    assert (response.status_code, response.content) == (200, body)


def test_an_absurd_number_exceeds_the_quota(service: Service) -> None:
    """It causes no error, and evades no limit."""
    service.limit(tokens=1000)
    fields: Mapping[str, Any] = {"max_tokens": 10**30, "n": 10**30}
    assert service.client().post(PATH, json=fields).status_code == 400
