"""Quotas and bodies as clients of a real service see them: one service, whose tenants each do one thing."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from headway.serve.estimate import estimate
from headway.serve.tenants import KeyStore
from tests.integration.serving import NAME, Served, engine_at
from tests.integration.training import DEADLINE

pytestmark = pytest.mark.slow

TENANTS = ("requests", "large", "changed", "settled", "bodies")
ASK: dict[str, Any] = {"model": NAME, "prompt": "a", "max_tokens": 2}


class Site:
    """A service, and the keys of its tenants."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.keys = KeyStore(folder / "keys.json")
        self.key = {tenant: self.keys.add(tenant) for tenant in TENANTS}
        self.keys.limit("requests", requests=2)
        self.keys.limit("large", tokens=100)
        self.keys.limit("settled", tokens=10_000)
        options = ["--keys", str(self.keys.path), "--body-mib", "1", "--streams", "1", "--queue", "0"]
        self.served = Served(model, *options)

    def client(self, tenant: str) -> openai.OpenAI:
        """As an application has it."""
        return self.served.client.with_options(api_key=self.key[tenant])

    def post(self, tenant: str, **also: Any) -> httpx.Response:
        """A completion, with whatever body and headers."""
        headers = {"Authorization": f"Bearer {self.key[tenant]}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.served.port}/v1/completions"
        return httpx.post(url, headers=headers, **{"timeout": DEADLINE, **also})


@pytest.fixture(scope="module")
def site(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One service for all tests."""
    site = Site(exported, tmp_path_factory.mktemp("quota"))
    try:
        site.served.await_ready()
        yield site
    finally:
        site.served.clean_up()


def test_requests_beyond_the_quota_wait(site: Site) -> None:
    """The client raises what it is told: which quota, and when to come again."""
    client = site.client("requests").completions
    raw = client.with_raw_response.create(**ASK)
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert "".join(piece.choices[0].text for piece in client.create(**ASK, stream=True))
    with pytest.raises(openai.RateLimitError) as refused:
        client.create(**ASK)
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 120
    assert site.client("requests").models.list().data


def test_what_could_never_pass_is_a_bad_request(site: Site) -> None:
    """The client does not try it again; what fits is answered."""
    client = site.client("large").completions
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.create(**ASK | {"max_tokens": 101})
    assert client.with_raw_response.create(**ASK).headers["x-ratelimit-limit-tokens"] == "100"


def test_what_counts_in_the_end_is_what_the_engine_used(site: Site) -> None:
    """Of answers that are whole, of several to one request, of streams, and of one that nobody waited for."""
    client = site.client("settled").completions
    before, used = left(site), 0
    for also in ({}, {"n": 2}, {"prompt": ["a", "b"]}, {"max_tokens": 40}):
        answer = client.create(**ASK | {"max_tokens": 20} | also, extra_body={"ignore_eos": True})
        assert answer.usage
        used += answer.usage.total_tokens
    pieces = list(client.create(**ASK | {"max_tokens": 50}, stream=True, stream_options={"include_usage": True}))
    used += pieces[-1].usage.total_tokens
    assert before - left(site) == pytest.approx(used + PROBE, rel=0.2)  # at the change of a minute a little fades
    now = left(site)
    with pytest.raises(httpx.ReadTimeout):
        site.post("settled", json=ASK | {"max_tokens": 1000, "ignore_eos": True}, timeout=0.1)
    until(lambda: now - left(site) < 900)  # it was charged with more than a thousand


PROBE = 3
"""Tokens that asking what is left uses."""


def left(site: Site) -> int:
    """Tokens that are left of the quota, before this request is charged itself."""
    answer = site.post("settled", json=ASK)
    assert answer.json()["usage"]["total_tokens"] == PROBE
    return int(answer.headers["x-ratelimit-remaining-tokens"]) + estimate(answer.request.content)


def test_a_limit_is_in_force_without_a_restart(site: Site) -> None:
    """Set while the service runs, and taken away again."""
    assert site.client("changed").completions.create(**ASK)
    site.keys.limit("changed", requests=1)
    until(lambda: site.post("changed", json=ASK).status_code == 429)
    site.keys.limit("changed", requests=0)
    until(lambda: site.post("changed", json=ASK).status_code == 200)


def test_a_body_that_is_too_large_is_refused_in_words(site: Site) -> None:
    """Announced or not; its client hears of it although it has sent all of it."""
    for content in (b" " * 2**23, iter([b" " * 2**20] * 8)):
        answer = site.post("bodies", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    padded = b" " * 2**19 + b'{"model": "tiny", "prompt": "a", "max_tokens": 1}'
    assert site.post("bodies", content=padded).status_code == 200
    assert site.post("bodies", content=b"{").status_code == 400


def test_a_slow_client_holds_no_place(site: Site) -> None:
    """The service computes one request at a time and lets none wait; one that is still sent is not among them."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.key['bodies']}\r\n"
    with socket.create_connection(("127.0.0.1", site.served.port), timeout=DEADLINE) as slow:
        slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.2)  # it has arrived
        assert site.post("bodies", json=ASK).status_code == 200
    assert site.post("bodies", json=ASK).status_code == 200


def test_a_client_that_hangs_up_is_heard_behind_the_body(site: Site) -> None:
    """Its request is aborted in the engine: the link that read its body still listens."""
    url = f"http://127.0.0.1:{site.served.port}"
    _, before = engine_at(url)
    with pytest.raises(httpx.ReadTimeout):
        site.post("bodies", json=ASK | {"max_tokens": 1000, "ignore_eos": True}, timeout=0.2)
    until(lambda: engine_at(url)[0] == 0)
    assert engine_at(url)[1] - before < 1000


def test_a_browser_may_ask_what_it_may_send(site: Site) -> None:
    """Its preflight carries no key, and is answered as vLLM answers it."""
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"http://127.0.0.1:{site.served.port}/v1/completions", headers=headers, timeout=DEADLINE)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")


def until(done: Any) -> None:
    """Return once `done` says so."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
