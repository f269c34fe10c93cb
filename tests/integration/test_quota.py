"""Keys, quotas and bodies as clients of a real service see them; each tenant does one thing."""

from typing import Any

import httpx
import openai
import pytest

from headway.serve.request_body import RequestBody
from headway.serve.tenants.estimate import estimate_tokens
from tests.integration.serving import ASK, Limited, engine_at, hang_up
from tests.integration.training import DEADLINE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("limits")]

LONG: dict[str, Any] = ASK | {"max_tokens": 1000, "ignore_eos": True}


def test_only_tenants_may_ask(limited: Limited) -> None:
    """Without a key, with a wrong one and with a revoked one: 401, which the client raises; no key is in any output."""
    tenants = limited.tenants
    revoked, free = limited.client("revoked"), limited.client("free")
    assert revoked.completions.create(**ASK).usage
    for key in ("none", tenants.key["revoked"] + "x"):
        with pytest.raises(openai.AuthenticationError):
            revoked.with_options(api_key=key).completions.create(**ASK)
    tenants.keys.revoke(next(key.key_id for key in tenants.keys.load().keys if key.tenant == "revoked"))
    until(lambda: limited.post("revoked", json=ASK).status_code == 401, "a revoked key is still accepted")
    with pytest.raises(openai.AuthenticationError):
        revoked.completions.create(**ASK)
    assert free.completions.create(**ASK).usage
    output = httpx.get(f"{limited.served.url}/metrics", timeout=DEADLINE).text + limited.served.log
    assert output
    assert [tenant for tenant, key in tenants.key.items() if key in output] == []


def test_a_request_beyond_the_quota_is_refused(limited: Limited) -> None:
    """The client raises what it is told: which quota, and when to come again; what costs nothing is answered."""
    client = limited.client("requests").completions
    raw = client.with_raw_response.create(**ASK)
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert "".join(piece.choices[0].text for piece in client.create(**ASK, stream=True))
    with pytest.raises(openai.RateLimitError) as refused:
        client.create(**ASK)
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 120
    assert limited.client("requests").models.list().data


def test_what_could_never_pass_is_a_bad_request(limited: Limited) -> None:
    """The client does not try it again; what fits is answered."""
    client = limited.client("large").completions
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.create(**ASK | {"max_tokens": 101})
    assert client.with_raw_response.create(**ASK).headers["x-ratelimit-limit-tokens"] == "100"


def test_what_counts_in_the_end_is_what_the_engine_used(limited: Limited) -> None:
    """Of answers that are whole, of several to one request, of streams, and of one that nobody waited for."""
    client = limited.client("settled").completions
    before, used = tokens_left(limited), 0
    for also in ({}, {"n": 2}, {"prompt": ["a", "b"]}, {"max_tokens": 40}):
        answer = client.create(**ASK | {"max_tokens": 20} | also, extra_body={"ignore_eos": True})
        assert answer.usage
        used += answer.usage.total_tokens
    pieces = list(client.create(**ASK | {"max_tokens": 50}, stream=True, stream_options={"include_usage": True}))
    used += pieces[-1].usage.total_tokens
    assert before - tokens_left(limited) == pytest.approx(used + PROBE, rel=0.2)  # at the change of a minute some fade
    before = tokens_left(limited)
    generated = hang_up(limited.served, LONG, Authorization=f"Bearer {limited.tenants.key['settled']}")
    assert 0 < generated < LONG["max_tokens"]
    until(lambda: before - tokens_left(limited) < 900, "more is charged than was computed")  # at first, a thousand


PROBE = 3
"""Tokens that asking what is left uses."""


def tokens_left(limited: Limited) -> int:
    """Tokens that are left of the quota, before this request is charged itself."""
    answer = limited.post("settled", json=ASK)
    assert answer.json()["usage"]["total_tokens"] == PROBE
    return int(answer.headers["x-ratelimit-remaining-tokens"]) + estimate_tokens(RequestBody(answer.request.content))


def test_a_limit_is_in_force_without_a_restart(limited: Limited) -> None:
    """Set while the service runs, and taken away again."""
    keys = limited.tenants.keys
    assert limited.client("changed").completions.create(**ASK)
    keys.limit("changed", requests=1)
    until(lambda: limited.post("changed", json=ASK).status_code == 429, "a new limit is not in force")
    keys.limit("changed", requests=0)
    until(lambda: limited.post("changed", json=ASK).status_code == 200, "a limit is in force that was taken away")


def test_a_body_that_is_too_large_is_refused_in_words(limited: Limited) -> None:
    """Announced or not; its client hears of it although it has sent all of it."""
    for content in (b" " * 2**23, iter([b" " * 2**20] * 8)):
        answer = limited.post(content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    padded = b" " * 2**19 + b'{"model": "tiny", "prompt": "a", "max_tokens": 1}'
    assert limited.post(content=padded).status_code == 200
    assert limited.post(content=b"{").status_code == 400


def test_a_client_that_hangs_up_is_heard_behind_the_body(limited: Limited) -> None:
    """Its request is aborted in the engine: the link that read its body still listens."""
    assert 0 < hang_up(limited.served, LONG, Authorization=f"Bearer {limited.tenants.key['free']}") < LONG["max_tokens"]
    assert engine_at(limited.served.url)[0] == 0


def test_a_browser_may_ask_what_it_may_send(limited: Limited) -> None:
    """Its preflight carries no key, and is answered as vLLM answers it."""
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(limited.completions, headers=headers, timeout=DEADLINE)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
