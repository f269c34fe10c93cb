"""More requests than a service can do, whoever sends them: each is answered whole or told when to come again."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from bench import overload
from bench.overload import Outcome

from tests.integration.serving import ASK, NAME, QUEUE, SMALL_QUOTA, STREAMS, Limited, engine_at
from tests.integration.training import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("limits")]

SECONDS = 3.0
FLOOD = 100.0
"""Requests a second: far more than two streams at a time can do."""


@pytest.fixture(autouse=True)
def name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's name is that of the tests."""
    monkeypatch.setattr(overload, "NAME", NAME)


async def flood(limited: Limited, tenant: str, per_second: float) -> Outcome:
    """Requests of a tenant that come at random."""
    return await overload.open_loop(limited.completions, limited.tenants.key[tenant], per_second, SECONDS, seed=1)


def test_what_cannot_be_begun_soon_is_refused_at_once(limited: Limited) -> None:
    """Twenty at once, where two are computed and two may wait: each is answered, or told when to come again."""
    body = ASK | {"max_tokens": 400, "ignore_eos": True}
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: limited.post(json=body), range(20)))
    whole = [answer for answer in answers if answer.is_success]
    refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert len(whole) + len(refused) == 20
    assert len(whole) >= STREAMS + QUEUE
    assert {answer.json()["usage"]["completion_tokens"] for answer in whole} == {400}
    assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
    assert min(int(answer.headers["Retry-After"]) for answer in refused) >= 1


def test_what_is_late_is_computed_no_further(limited: Limited) -> None:
    """A request with a deadline is answered in time: 504, and the engine lets it go."""
    headers = {"Authorization": f"Bearer {limited.tenants.key['free']}", "X-Request-Timeout-Seconds": "0.2"}
    late = limited.post(json=ASK | {"max_tokens": 1000, "ignore_eos": True}, headers=headers)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    until(lambda: engine_at(limited.served.url)[0] == 0, "it is computed although its time is over")
    assert limited.post(json=ASK).is_success


def test_a_flood_is_answered_or_told_when_to_come_again(limited: Limited) -> None:
    """No other error and no broken stream; nor where the flood is that of one tenant, beyond its quota."""
    done = asyncio.run(flood(limited, "free", FLOOD))
    assert set(done.statuses) == {200, 429}
    assert (done.no_retry_after, done.broken) == (0, 0)
    assert len(done.firsts) == done.statuses[200]

    async def both() -> tuple[Outcome, Outcome]:
        return await asyncio.gather(flood(limited, "steady", 1.0), flood(limited, "loud", FLOOD))

    steady, loud = asyncio.run(both())
    assert set(loud.statuses) == {200, 429}
    assert 1 <= loud.statuses[200] <= 2 * SMALL_QUOTA
    assert (loud.no_retry_after, loud.broken, steady.broken) == (0, 0, 0)
    assert set(steady.statuses) <= {200, 429}
