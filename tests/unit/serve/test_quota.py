"""Quotas of requests and tokens: charged before, settled after; the engine is an application that uses what it is told.

The clock is set by hand, and begins with a minute.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.auth import Authentication
from headway.serve.estimate import ANSWER_TOKENS, estimate
from headway.serve.memory_budget import MemoryBudget
from headway.serve.meter import Meter
from headway.serve.quota import Quotas
from headway.serve.request_body import RequestBody
from headway.serve.request_context import context_of
from headway.serve.request_id import RequestId
from headway.serve.tenants import KeyStore, Tenants
from headway.telemetry import Spans

PATH = "/v1/completions"


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """What it shows [s]."""
        return self.now


class Engine:
    """Uses so many tokens for each request, and answers with what it was asked."""

    def __init__(self, used: int = 0) -> None:
        self.used, self.status = used, 200
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, in two pieces."""
        self.asked += 1
        body = (await receive())["body"]
        call = context_of(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        call.prompt_tokens, call.generated_tokens = self.used // 2, self.used - self.used // 2
        await send({"type": "http.response.body", "body": b""})


class Site:
    """An endpoint with one tenant."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.engine, self.keys = Clock(), Engine(), KeyStore(folder / "keys.json")
        self.key = self.keys.add("team-a")
        self.meter = Meter(self.clock)

    def limit(self, **limits: int) -> None:
        """Set the tenant's quota, and let the endpoint hear of it."""
        self.keys.limit("team-a", **limits)
        self.clock.now += 1.5

    def used(self, name: str) -> float:
        """What counts under this name now."""
        return asyncio.run(self.meter.level(name)).used

    def client(self, app: ASGIApp | None = None, key: str | None = None) -> TestClient:
        """A client of the links around the engine."""
        tenants = Tenants(self.keys, self.clock)
        inner = RequestBody(Quotas(app or self.engine, tenants, self.meter), 2**20, 30, MemoryBudget(2**30))
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return TestClient(
            RequestId(Authentication(inner, tenants), Spans("headway-serve", on=False)),
            headers=headers,
            raise_server_exceptions=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One without quotas so far."""
    return Site(tmp_path)


def ask(client: TestClient, tokens: int = 100, **also: Any) -> Any:
    """A request that is estimated at `tokens`."""
    body = json.dumps({"max_tokens": 10, "prompt": "", **also})
    body += " " * (4 * (tokens - 10) - len(body))
    answer = client.post(PATH, content=body)
    assert answer.status_code != 200 or answer.text == body  # it reaches the engine as it was sent
    return answer


def test_who_has_no_quota_may_use_as_much_as_it_likes(site: Site) -> None:
    """And is told nothing of quotas."""
    client = site.client()
    answers = [ask(client) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in name for name in answers[0].headers)


def test_requests_beyond_the_quota_wait(site: Site) -> None:
    """They are told for how long, and are let through then: not a second earlier."""
    site.limit(requests=3)
    client = site.client()
    site.clock.now = 20.0
    assert [ask(client).status_code for _ in range(3)] == [200] * 3
    answer = ask(client)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert answer.headers["Retry-After"] == "60"  # 3 fade to 2 in the first third of the minute that begins at 60
    assert "60 s" in error["message"]
    site.clock.now = 79.0
    assert ask(client).headers["Retry-After"] == "1"
    site.clock.now = 80.0
    assert ask(client).status_code == 200
    assert site.engine.asked == 4


def test_what_was_refused_costs_nothing(site: Site) -> None:
    """However often a client comes too early, it is let through at the time that it was told at first."""
    site.limit(requests=1, tokens=1000)
    client = site.client()
    ask(client, 600)
    for site.clock.now in range(60):
        assert ask(client, 600).status_code == 429
    site.clock.now = 120.0
    assert ask(client, 600).status_code == 200


def test_too_much_is_given_back_when_the_answer_is_there(site: Site) -> None:
    """What the engine has used counts, not the estimate."""
    site.limit(tokens=1000)
    site.engine.used = 100
    client = site.client()
    answers = [ask(client, 500) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 6
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
    assert left == [500, 400, 300, 200, 100, 0]
    assert ask(client, 500).status_code == 429
    assert site.used("tokens/team-a") == 600


def test_too_little_is_charged_on_top(site: Site) -> None:
    """Also beyond the quota: whoever comes after waits until it has faded."""
    site.limit(tokens=1000)
    site.engine.used = 4000
    client = site.client()
    site.clock.now = 0.0
    assert ask(client, 100).status_code == 200
    assert site.used("tokens/team-a") == 4000
    answer = ask(client, 100)
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "tokens")
    assert answer.headers["Retry-After"] == "107"  # 4000 fade to 900 in 46.5 s of the next minute
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
    site.clock.now = 107.0
    assert ask(client, 100).status_code == 200


@pytest.mark.parametrize("raised", [RuntimeError, asyncio.CancelledError])
def test_what_is_broken_off_is_settled(site: Site, raised: type[BaseException]) -> None:
    """By what the engine had used until then."""

    async def broken(scope: Scope, *_: Any) -> None:
        context_of(scope).generated_tokens = 7
        raise raised

    site.limit(tokens=1000)
    with suppress(asyncio.CancelledError):
        ask(site.client(broken), 500)
    assert site.used("tokens/team-a") == 7


def test_what_the_engine_uses_after_the_answer_counts_too(site: Site) -> None:
    """A deadline answers first and has the engine stop then: what it used until it did is charged."""

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).generated_tokens = 5
        await PlainTextResponse("too late", 504)(scope, receive, send)
        context_of(scope).generated_tokens = 8

    site.limit(tokens=1000)
    assert ask(site.client(late), 500).status_code == 504
    assert site.used("tokens/team-a") == 8


def test_it_is_settled_before_the_client_has_the_end_of_its_answer(site: Site) -> None:
    """Else its next request would be refused for tokens that it has not used."""
    site.limit(tokens=1000)
    seen: list[float] = []
    inner = site.client().app

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.body":
                seen.append((await site.meter.level("tokens/team-a")).used)
            await send(message)

        await inner(scope, receive, answer)

    ask(TestClient(watched, headers={"Authorization": f"Bearer {site.key}"}), 500)
    assert seen == [500, 0]


@pytest.mark.parametrize("status", [429, 503])
def test_what_a_later_link_refuses_costs_nothing(site: Site, status: int) -> None:
    """The service was full: the tenant is not made to pay for that."""
    site.limit(requests=1, tokens=1000)
    site.engine.status = status
    client = site.client()
    for _ in range(3):
        answer = client.post(PATH, content=b"{}")
        assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (status, "1")
    assert site.used("requests/team-a") == site.used("tokens/team-a") == 0


def test_what_the_engine_refuses_counts_as_a_request(site: Site) -> None:
    """Asking for what is not there is asking; it uses no tokens."""
    site.limit(requests=1, tokens=1000)
    site.engine.status = 404
    client = site.client()
    assert [client.post(PATH, content=b"{}").status_code for _ in range(2)] == [404, 429]
    assert site.used("tokens/team-a") == 0


def test_what_could_never_pass_is_not_told_to_come_again(site: Site) -> None:
    """It counts as more than the whole quota: 400, which no client tries again, with what to ask for instead."""
    site.limit(tokens=1000)
    client = site.client()
    answer = ask(client, 1001)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "tokens", "rate_limit_exceeded")
    assert "Retry-After" not in answer.headers
    assert answer.headers["x-ratelimit-remaining-tokens"] == "1000"
    assert all(word in error["message"] for word in ("1000", "1001", "max_tokens"))
    assert ask(client, 1000).status_code == 200
    assert site.engine.asked == 1


def test_the_answer_says_what_is_left(site: Site) -> None:
    """In the headers of OpenAI's API: of the limits that there are, and until when all is as it was."""
    site.limit(requests=600, tokens=100_000)
    site.clock.now = 20.0
    told = ask(site.client(), 100).headers
    assert {name: value for name, value in told.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "1m40s",
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "99900",
        "x-ratelimit-reset-tokens": "1m40s",
    }
    site.clock.now = 119.75
    site.limit(tokens=0)
    site.clock.now = 119.75
    assert not any("tokens" in name for name in site.client().post(PATH, content=b"{}").headers)


@pytest.mark.parametrize(
    ("then", "told"), [(0.0, "2m0s"), (30.0, "1m30s"), (60.0, "1m0s"), (61.0, "59s"), (119.75, "250ms"), (120.0, "0s")]
)
def test_times_are_told_as_openai_tells_them(site: Site, then: float, told: str) -> None:
    """Minutes, seconds, or milliseconds below one."""
    site.limit(requests=2)
    site.clock.now = 0.0
    client = site.client()
    ask(client)
    site.clock.now = then
    site.engine.status = 503  # which costs nothing itself
    assert client.post(PATH, content=b"{}").headers["x-ratelimit-reset-requests"] == told


def test_asking_what_there_is_is_free(site: Site) -> None:
    """A GET is not charged, and passes where a POST would not."""
    site.limit(requests=1)

    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("models")(scope, receive, send)

    client = site.client(models)
    assert [client.get("/v1/models").status_code for _ in range(5)] == [200] * 5
    assert [client.post(PATH).status_code for _ in range(2)] == [200, 429]
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations", "/inference/v1/generate"])
def test_there_is_no_way_around(site: Site, path: str) -> None:
    """VLLM generates at other paths than /v1, too."""
    site.limit(requests=1)
    client = site.client()
    assert [client.post(path, content=b"{}").status_code for _ in range(2)] == [200, 429]


def test_a_quota_is_a_tenants_whatever_its_key(site: Site) -> None:
    """Two keys share it; another tenant has nothing to do with it."""
    site.limit(requests=1)
    second, other = site.keys.add("team-a"), site.keys.add("team-b")
    assert [ask(site.client(key=key)).status_code for key in (site.key, second, other, other)] == [200, 429, 200, 200]


def test_a_changed_limit_is_in_force_at_once_and_forgets_nothing(site: Site) -> None:
    """Without a restart; what was used stays used."""
    site.limit(tokens=1000)
    site.engine.used = 300
    client = site.client()
    assert [ask(client, 300).status_code for _ in range(2)] == [200, 200]
    site.limit(tokens=500)
    assert ask(client, 300).status_code == 429
    site.limit(tokens=900)
    assert ask(client, 300).status_code == 200
    site.limit(tokens=0)
    assert ask(client, 3000).status_code == 200


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ({}, ANSWER_TOKENS),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": None, "n": None}, ANSWER_TOKENS),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "prompt": ["a", "b"], "n": 2}, 40),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ({"max_tokens": 10, "prompt": [[1, 2], [3]]}, 20),
        ({"max_tokens": 10, "prompt": []}, 10),
        ({"max_tokens": 10, "messages": [{"role": "user", "content": "a"}] * 3}, 10),
        ({"max_tokens": 10, "messages": [[{"role": "user", "content": "a"}]] * 3}, 30),
        ({"max_tokens": "10"}, ANSWER_TOKENS),
        ({"max_tokens": -10}, ANSWER_TOKENS),
        ({"max_tokens": True, "n": True}, ANSWER_TOKENS),
        ({"max_tokens": 10, "n": -3}, 10),
    ],
)
def test_an_estimate_counts_prompts_and_answers(asked: dict[str, Any], answers: int) -> None:
    """A quarter of the bytes, and what all answers may come to, or a modest number where nothing is said."""
    body = json.dumps(asked).encode()
    assert estimate(body) == -(-len(body) // 4) + answers


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 5000]
)
def test_what_is_no_request_passes_on(site: Site, body: bytes) -> None:
    """It counts by its size, and the engine says what is wrong with it."""
    assert estimate(body) == -(-len(body) // 4) + ANSWER_TOKENS
    site.limit(tokens=100_000)
    answer = site.client().post(PATH, content=body)
    assert (answer.status_code, answer.content) == (200, body)


def test_an_absurd_number_is_just_too_much(site: Site) -> None:
    """Neither an error nor a way around."""
    site.limit(tokens=1000)
    asked: Mapping[str, Any] = {"max_tokens": 10**30, "n": 10**30}
    assert site.client().post(PATH, json=asked).status_code == 400
