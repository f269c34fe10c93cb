"""An engine that dies under its clients: what they get is what they would have got."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.integration.serving import NAME, Served, engine_of
from tests.integration.training import DEADLINE

pytestmark = pytest.mark.slow

TOKENS = 900
GREEDY: dict[str, Any] = {"temperature": 0}
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "another": GREEDY | {"prompt": "class Reader"},
    "logprobs": GREEDY | {"logprobs": 2},
    "stop": GREEDY | {"stop": ["never to be found"]},
    "penalty": GREEDY | {"presence_penalty": 0.5, "frequency_penalty": 0.1},
    "seed": {"temperature": 1.0, "seed": 7},
}
"""What determines its answer, so that it can be compared."""


def stream(client: openai.OpenAI, request: dict[str, Any], begun: Semaphore | None = None) -> tuple[str, Any, Any]:
    """A stream's text, tokens and usage; `begun` is released when some of it has come."""
    options = {"stream_options": {"include_usage": True}, "extra_body": {"ignore_eos": True}}
    pieces = client.completions.create(
        **{"model": NAME, "prompt": "def read", "max_tokens": TOKENS, "stream": True, **options, **request}
    )
    text, usage = "", None
    tokens: list[str] = []
    for number, piece in enumerate(pieces):
        if begun and number == 5:
            begun.release()
        for choice in piece.choices:
            text += choice.text
            tokens += choice.logprobs.tokens if choice.logprobs else []
        usage = piece.usage or usage
    return text, tokens, usage


def test_a_new_engine_continues_the_streams_of_a_dead_one(exported: Path) -> None:
    """SIGKILL under streams: each goes on token for token; the service is not ready meanwhile, and lives on.

    An answer that cannot be continued ends with an error. An engine that dies a third time is the last.
    """
    served = Served(exported)
    try:
        served.await_ready()
        client = served.client
        with ThreadPoolExecutor(16) as pool:
            whole = dict(
                zip(REQUESTS, pool.map(lambda request: stream(client, request), REQUESTS.values()), strict=True)
            )
            begun = Semaphore(0)
            going = {name: pool.submit(stream, client, request, begun) for name, request in REQUESTS.items()}
            ask = {"model": NAME, "prompt": "def read", "max_tokens": TOKENS, "extra_body": {"ignore_eos": True}}
            free = pool.submit(stream, client, {"temperature": 1.0}, begun)
            twins = pool.submit(stream, client, {"n": 2, "temperature": 1.0}, begun)
            answer = pool.submit(client.completions.create, **ask | {"prompt": ["def read"] * 2}, temperature=0)  # type: ignore[arg-type]
            for _ in [*going, free, twins]:
                assert begun.acquire(timeout=DEADLINE)
            assert not any(each.done() for each in going.values())
            engine_of(served).kill()
            health = f"http://127.0.0.1:{served.port}/health"
            while httpx.get(health, timeout=DEADLINE).status_code != 503:
                assert not any(each.done() for each in going.values())
            assert {name: each.result(DEADLINE) for name, each in going.items()} == whole
            assert [choice.text for choice in answer.result(DEADLINE).choices] == [whole["greedy"][0]] * 2
            assert free.result(DEADLINE)[2].completion_tokens == TOKENS
            with pytest.raises(openai.APIError):
                twins.result(DEADLINE)
            assert httpx.get(health, timeout=DEADLINE).status_code == 200
            engine_of(served).kill()
            assert stream(client, GREEDY) == whole["greedy"]
            engine_of(served).kill()
            with pytest.raises(openai.APIError):
                stream(client, GREEDY)
        assert served.process.wait(DEADLINE) == 1
        assert f"the engine of {NAME} died" in served.log
        _, left = psutil.wait_procs(served.members, timeout=DEADLINE)
        assert not left
    finally:
        served.clean_up()
