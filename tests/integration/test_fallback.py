"""A service that stands in for another, both real: who asks while an engine is dead is answered at once."""

import json

import httpx
import psutil
import pytest

from tests.integration.serving import NAME, Served, engine_of
from tests.integration.training import DEADLINE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]


def test_another_service_answers_while_the_engine_is_replaced(service: Served) -> None:
    """Streams and whole answers, under its own model's name; then the engine is back, and answers again."""
    main = Served(service.model, "--fallback", f"{service.url}/v1", name="main")
    try:
        main.await_ready()
        url = f"{main.url}/v1/completions"
        ask = {"model": "main", "prompt": "def ", "max_tokens": 8, "temperature": 0}
        own = httpx.post(url, json=ask, timeout=DEADLINE)
        assert own.json()["model"] == "main"
        assert "X-Served-By" not in own.headers
        engine = engine_of(main)
        engine.kill()
        psutil.wait_procs([engine], timeout=DEADLINE)
        until(lambda: health(main) != 200, "it does not say that its engine is gone")
        answer = httpx.post(url, json=ask, timeout=DEADLINE, headers={"X-Request-ID": "abc"})
        assert (answer.headers["X-Served-By"], answer.headers["X-Request-ID"]) == (NAME, "abc")
        assert answer.json()["choices"][0]["text"] == own.json()["choices"][0]["text"]
        stream = httpx.post(url, json=ask | {"stream": True}, timeout=DEADLINE)
        pieces = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
        assert pieces[-1] == "[DONE]"
        text = "".join(json.loads(piece)["choices"][0]["text"] for piece in pieces[:-1])
        assert text == own.json()["choices"][0]["text"]
        until(lambda: health(main) == 200, "its engine does not come back")
        again = httpx.post(url, json=ask, timeout=DEADLINE).json()
        assert again | {"id": 0, "created": 0} == own.json() | {"id": 0, "created": 0}
        assert main.stop() == 0
        [line] = [line for line in main.events("request.ended") if line["request"] == "abc"]
        assert line["served_by"] == NAME
    finally:
        main.clean_up()


def health(served: Served) -> int:
    """The status that a service reports."""
    return httpx.get(f"{served.url}/health", timeout=DEADLINE).status_code
