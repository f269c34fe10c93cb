"""`headway serve` as its clients see it: the openai client, unchanged, against real Ray Serve and vLLM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headway import registry
from headway.objectstore import open_store
from tests.integration.serving import ASK, NAME, Served, hang_up, metric_values
from tests.integration.training import DEADLINE, until

pytestmark = pytest.mark.slow
SHARED = pytest.mark.xdist_group("service")
LONG: dict[str, Any] = ASK | {"max_tokens": 1000, "ignore_eos": True}


@pytest.fixture(scope="module")
def published(exported: Path) -> str:
    """The URL of the store in which coder@1 is published."""
    store = str(exported.parent / "store")
    command = [sys.executable, "-m", "headway.cli", "publish", "served", "--as", "coder", "--dtype", "float32"]
    subprocess.run([*command, "--store", store], check=True, timeout=DEADLINE)
    return store


@SHARED
def test_the_model_is_listed(service: Served) -> None:
    """Under the name that it was given."""
    assert [model.id for model in service.client.models.list()] == [NAME]


@SHARED
def test_a_completion_counts_its_tokens(service: Served) -> None:
    """As many as were asked for, and greedy answers are the same twice."""
    ask = {"model": NAME, "prompt": "import ", "max_tokens": 12, "temperature": 0}
    first, second = (service.client.completions.create(**ask) for _ in range(2))  # type: ignore[call-overload]
    assert first.usage.completion_tokens == 12
    assert first.choices[0].finish_reason == "length"
    assert first.choices[0].text == second.choices[0].text


@SHARED
def test_a_salt_keeps_a_prompt_apart(service: Served) -> None:
    """What was computed for a prompt is used again for the same beginning, but not from behind another salt."""

    def cached_tokens(**fields: Any) -> float:
        """Tokens of a prompt that were computed before."""
        [before] = metric_values(service.url, "vllm:prefix_cache_hits_total{")
        asked = ASK | {"prompt": [7, *range(3, 250)]} | fields
        httpx.post(f"{service.url}/v1/completions", json=asked, timeout=DEADLINE).raise_for_status()
        [after] = metric_values(service.url, "vllm:prefix_cache_hits_total{")
        return after - before

    cached_tokens()
    assert cached_tokens() > 100
    assert cached_tokens(cache_salt="mine") == 0
    assert cached_tokens(cache_salt="mine") > 100
    assert cached_tokens(cache_salt="yours") == 0


@SHARED
def test_a_stream_says_what_the_whole_answer_says(service: Served) -> None:
    """Piece by piece, with the usage at its end."""
    ask = {"model": NAME, "prompt": "def ", "max_tokens": 24, "temperature": 0}
    whole = service.client.completions.create(**ask)  # type: ignore[call-overload]
    pieces = list(
        service.client.completions.create(**ask, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage.completion_tokens == 24
    assert len(pieces) > 2


@SHARED
def test_a_request_keeps_its_id(service: Served) -> None:
    """The client's own, if it is one; else a new one. Errors have it too."""
    body = {"model": NAME, "prompt": "x", "max_tokens": 1}
    url = f"http://127.0.0.1:{service.port}/v1/completions"
    own = httpx.post(url, json=body, headers={"X-Request-ID": "mine-1"}, timeout=DEADLINE)
    assert own.headers["X-Request-ID"] == "mine-1"
    assert "mine-1" in own.json()["id"]
    new = httpx.post(url, json=body, headers={"X-Request-ID": "bad id\t!"}, timeout=DEADLINE)
    assert new.headers["X-Request-ID"] in new.json()["id"]
    wrong = httpx.post(url, json={"model": "unknown", "prompt": "x"}, headers={"X-Request-ID": "mine-2"})
    assert (wrong.status_code, wrong.headers["X-Request-ID"]) == (404, "mine-2")
    assert wrong.json()["error"]["message"]


@SHARED
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_that_nobody_waits_for_is_not_computed(service: Served, stream: bool) -> None:  # noqa: FBT001
    """A client that hangs up has its request aborted in the engine, long before its 1,000 tokens."""
    assert 0 < hang_up(service, LONG | {"stream": stream}) < LONG["max_tokens"]
    assert service.client.completions.create(**ASK).usage


@SHARED
def test_a_hangup_breaks_no_stream_and_leaves_nothing(service: Served) -> None:
    """The end of a terminal signals the process group. What is under way comes to its end, as slowly as it is read.

    Meanwhile it still says how it is. Who asks for its figures is answered, and who wants more is to go elsewhere; then
    the port is free, although a client holds on to its connection, and all processes and temporary files are gone, with
    code 0.
    """
    ask = {"model": NAME, "prompt": "a", "max_tokens": 600, "temperature": 0, "extra_body": {"ignore_eos": True}}
    ask["stream_options"] = {"include_usage": True}
    much = {"model": NAME, "prompt": ["a"] * 8, "max_tokens": 900, "ignore_eos": True, "stream": True, "logprobs": 20}
    body = json.dumps(much).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with (
        socket.socket() as slow,
        httpx.Client(base_url=service.url, timeout=DEADLINE) as other,
        ThreadPoolExecutor(4) as clients,
    ):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what it does not read stays with the service
        slow.connect(("127.0.0.1", service.port))
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        heard = slow.recv(1)
        streams = [service.client.completions.create(**ask, stream=True) for _ in range(4)]  # type: ignore[call-overload]
        firsts = [next(stream) for stream in streams]
        rests = [clients.submit(list, stream) for stream in streams]
        assert list(service.temporary.iterdir())
        os.killpg(service.process.pid, signal.SIGHUP)
        until(lambda: other.get("/health").status_code == 503, "it does not say that it stops")
        for _ in range(12):  # longer than Serve would listen of its own accord
            assert other.get("/metrics").status_code == 200
            assert other.get("/v1/models").status_code == 503
            time.sleep(0.3)
        while piece := slow.recv(2**16):
            heard += piece
        pieces = [rest.result(DEADLINE) for rest in rests]
        assert service.process.wait(DEADLINE) == 0
        with socket.socket() as successor:
            successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            successor.bind(("127.0.0.1", service.port))
    assert firsts
    assert [each[-1].usage.completion_tokens for each in pieces] == [600] * 4
    assert heard.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    _, left = psutil.wait_procs(service.members, timeout=DEADLINE)
    assert not left
    assert not list(service.temporary.iterdir())


@pytest.mark.xdist_group("quantized")
def test_a_quantized_version_is_served(published: str) -> None:
    """`headway quantize` publishes it with the origin of its original; it answers nearly as that does."""
    command = [sys.executable, "-m", "headway.cli", "quantize", "coder@1", "--as", "coder", "--json"]
    made = subprocess.run([*command, "--store", published], check=True, timeout=DEADLINE, capture_output=True)
    likeness = json.loads(made.stdout)
    assert (likeness["version"], likeness["scheme"]) == (2, "W8A8")
    assert likeness["agreement"] > 0.9
    model, version = registry.find(open_store(published), "coder@2")
    first = model.manifest(model.find("coder@1"))
    assert model.manifest(version).quantization == "W8A8"
    assert model.manifest(version).origin == first.origin
    served = Served("coder@2", "--store", published, temporary="x" * 100)  # too long for sockets
    try:
        document = served.await_ready()
        assert document["version"] == "2"
        assert {"imports", "engine", "first token", "total"} <= set(document["startup"])
        answer = served.client.completions.create(model=NAME, prompt="import ", max_tokens=8, temperature=0)
        assert answer.usage
        assert answer.usage.completion_tokens == 8
        assert served.stop() == 0
    finally:
        served.clean_up()


@pytest.mark.xdist_group("quantized")
def test_a_damaged_version_is_refused_before_it_is_loaded(published: str) -> None:
    """One flipped byte of the weights: named with version and file, and nothing is started."""
    model, version = registry.find(open_store(published), "coder@1")
    weights = model.fetch(version) / "model.safetensors"
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    try:
        command = [sys.executable, "-m", "headway.cli", "serve", "coder@1", "--store", published]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    finally:
        weights.write_bytes(whole)
    assert done.returncode == 1
    assert "coder@1" in done.stderr
    assert "model.safetensors" in done.stderr


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    command = [sys.executable, "-m", "headway.cli", "serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert "config.json" in done.stderr


def test_a_port_that_is_taken_is_refused(exported: Path) -> None:
    """At once, by name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "headway.cli", "serve", str(exported), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert port in done.stderr
