"""A service that stands in for another, both real: who asks while an engine is dead is answered at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving import NAME, Served, engine_of
from tests.integration.training import DEADLINE

pytestmark = pytest.mark.slow


def test_another_service_answers_while_the_engine_is_replaced(exported: Path) -> None:
    """Streams and whole answers, by its own model's name; then the engine is back, and answers again."""
    other = Served(exported, name="small")
    main = Served(exported, "--fallback", f"http://127.0.0.1:{other.port}/v1")
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda served: served.await_ready(), (other, main)))
        url = f"http://127.0.0.1:{main.port}/v1/completions"
        ask = {"model": NAME, "prompt": "def ", "max_tokens": 8, "temperature": 0}
        own = httpx.post(url, json=ask, timeout=DEADLINE)
        assert own.json()["model"] == NAME
        assert "X-Served-By" not in own.headers
        engine = engine_of(main)
        engine.kill()
        psutil.wait_procs([engine], timeout=DEADLINE)
        while httpx.get(f"http://127.0.0.1:{main.port}/health", timeout=DEADLINE).status_code == 200:
            pass
        answer = httpx.post(url, json=ask, timeout=DEADLINE, headers={"X-Request-ID": "abc"})
        assert (answer.headers["X-Served-By"], answer.headers["X-Request-ID"]) == ("small", "abc")
        assert answer.json()["choices"][0]["text"] == own.json()["choices"][0]["text"]
        stream = httpx.post(url, json=ask | {"stream": True}, timeout=DEADLINE)
        pieces = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
        assert pieces[-1] == "[DONE]"
        text = "".join(json.loads(piece)["choices"][0]["text"] for piece in pieces[:-1])
        assert text == own.json()["choices"][0]["text"]
        while httpx.get(f"http://127.0.0.1:{main.port}/health", timeout=DEADLINE).status_code != 200:
            pass
        assert httpx.post(url, json=ask, timeout=DEADLINE).json() | {"id": 0, "created": 0} == own.json() | {
            "id": 0,
            "created": 0,
        }
        assert main.stop() == other.stop() == 0
        [line] = [line for line in main.events("request.ended") if line["request"] == "abc"]
        assert line["served_by"] == "small"
    finally:
        main.clean_up()
        other.clean_up()
