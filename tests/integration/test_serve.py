"""`headway serve` as its clients see it: the openai client, unchanged, against real Ray Serve and vLLM."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from headway import registry
from headway.objectstore import open_store
from headway.serve.tenants import KeyStore
from tests.integration.serving import NAME, Served, engine_at, until
from tests.integration.training import DEADLINE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Served]:
    """One service, of a published version, for the tests that leave it as it was."""
    store = ["--store", str(exported.parent / "store")]
    command = [sys.executable, "-m", "headway.cli", "publish", "served", "--as", "coder", "--dtype", "float32", *store]
    subprocess.run(command, check=True, timeout=DEADLINE)
    begun = Served("coder@1", *store)
    try:
        begun.await_ready()
        yield begun
    finally:
        begun.clean_up()


def test_the_model_is_listed(served: Served) -> None:
    """Under the name that it was given."""
    assert [model.id for model in served.client.models.list()] == [NAME]


def test_a_completion_counts_its_tokens(served: Served) -> None:
    """As many as were asked for, and greedy answers are the same twice."""
    ask = {"model": NAME, "prompt": "import ", "max_tokens": 12, "temperature": 0}
    first, second = (served.client.completions.create(**ask) for _ in range(2))  # type: ignore[call-overload]
    assert first.usage.completion_tokens == 12
    assert first.choices[0].finish_reason == "length"
    assert first.choices[0].text == second.choices[0].text


def test_a_stream_says_what_the_whole_answer_says(served: Served) -> None:
    """Piece by piece, with the usage at its end."""
    ask = {"model": NAME, "prompt": "def ", "max_tokens": 24, "temperature": 0}
    whole = served.client.completions.create(**ask)  # type: ignore[call-overload]
    pieces = list(
        served.client.completions.create(**ask, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage.completion_tokens == 24
    assert len(pieces) > 2


def test_a_request_keeps_its_id(served: Served) -> None:
    """The client's own, if it is one; else a new one. Errors have it too."""
    body = {"model": NAME, "prompt": "x", "max_tokens": 1}
    url = f"http://127.0.0.1:{served.port}/v1/completions"
    own = httpx.post(url, json=body, headers={"X-Request-ID": "mine-1"}, timeout=DEADLINE)
    assert own.headers["X-Request-ID"] == "mine-1"
    assert "mine-1" in own.json()["id"]
    new = httpx.post(url, json=body, headers={"X-Request-ID": "bad id\t!"}, timeout=DEADLINE)
    assert new.headers["X-Request-ID"] in new.json()["id"]
    wrong = httpx.post(url, json={"model": "unknown", "prompt": "x"}, headers={"X-Request-ID": "mine-2"})
    assert (wrong.status_code, wrong.headers["X-Request-ID"]) == (404, "mine-2")
    assert wrong.json()["error"]["message"]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_an_answer_that_nobody_waits_for_is_not_computed(served: Served, streams: bool) -> None:  # noqa: FBT001
    """A client that hangs up has its request aborted in the engine, long before its 1,000 tokens."""
    url = f"http://127.0.0.1:{served.port}"
    _, before = engine_at(url)
    body = {"model": NAME, "prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": streams}
    with suppress(httpx.ReadTimeout), httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=0.2) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + DEADLINE
    while (state := engine_at(url))[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert state[1] - before < 1000
    assert served.client.completions.create(model=NAME, prompt="a", max_tokens=2).usage


def test_a_quantized_version_is_served(exported: Path, served: Served) -> None:  # noqa: ARG001 - it has published coder@1
    """`headway quantize` publishes it with the origin of its original; it answers nearly as that does."""
    store = ["--store", str(exported.parent / "store")]
    command = [sys.executable, "-m", "headway.cli", "quantize", "coder@1", "--as", "coder", "--json", *store]
    made = subprocess.run(command, check=True, timeout=DEADLINE, capture_output=True, text=True)
    likeness = json.loads(made.stdout)
    assert (likeness["version"], likeness["scheme"]) == (2, "W8A8")
    assert likeness["agreement"] > 0.9
    found, version = registry.find(open_store(str(exported.parent / "store")), "coder@2")
    first = found.manifest(found.find("coder@1"))
    assert found.manifest(version).quantization == "W8A8"
    assert found.manifest(version).origin == first.origin
    begun = Served("coder@2", *store)
    try:
        assert begun.await_ready()["version"] == "2"
        answer = begun.client.completions.create(model=NAME, prompt="import ", max_tokens=8, temperature=0)
        assert answer.usage
        assert answer.usage.completion_tokens == 8
        assert begun.stop() == 0
    finally:
        begun.clean_up()


def test_only_tenants_may_ask(exported: Path, tmp_path: Path) -> None:
    """Without a key, with a wrong one and with a revoked one: 401, which the client raises; no key is in any output."""
    keys = KeyStore(tmp_path / "keys.json")
    good, other = keys.add("team-a"), keys.add("team-b")
    begun = Served(exported, "--keys", str(keys.path))
    try:
        begun.await_ready()
        ask = {"model": NAME, "prompt": "a", "max_tokens": 2}
        assert begun.client.with_options(api_key=good).completions.create(**ask).usage  # type: ignore[call-overload]
        for key in ("none", good + "x"):
            with pytest.raises(openai.AuthenticationError):
                begun.client.with_options(api_key=key).completions.create(**ask)  # type: ignore[call-overload]
        keys.revoke(next(key.name for key in keys.read() if key.tenant == "team-a"))
        with pytest.raises(openai.AuthenticationError):
            ask_on(begun.client.with_options(api_key=good), ask)
        assert begun.client.with_options(api_key=other).completions.create(**ask).usage  # type: ignore[call-overload]
        metrics = httpx.get(f"http://127.0.0.1:{begun.port}/metrics", timeout=DEADLINE).text
        assert begun.stop() == 0
        assert not any(key in metrics + begun.said for key in (good, other))
    finally:
        begun.clean_up()


def ask_on(client: openai.OpenAI, ask: dict[str, Any]) -> None:
    """Ask again and again, until the client raises what it is told."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        client.completions.create(**ask)


def test_what_cannot_be_begun_soon_is_refused_at_once(exported: Path) -> None:
    """Twenty at once, where two are computed and two may wait: each is answered, or told when to come again."""
    begun = Served(exported, "--streams", "2", "--queue", "2")
    body = {"model": NAME, "prompt": "a", "max_tokens": 400, "ignore_eos": True}
    try:
        begun.await_ready()
        url = f"http://127.0.0.1:{begun.port}/v1/completions"
        with httpx.Client(timeout=DEADLINE) as client, ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(lambda _: client.post(url, json=body), range(20)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert 4 <= statuses.count(200) < 20
        assert all(answer.json()["usage"]["completion_tokens"] == 400 for answer in answers if answer.is_success)
        shed = [answer for answer in answers if not answer.is_success]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in shed)
        assert all(answer.json()["error"]["code"] == "overloaded" for answer in shed)
        late = httpx.post(url, json=body | {"max_tokens": 1000}, headers={"X-Request-Timeout-Seconds": "0.2"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        deadline = time.monotonic() + DEADLINE
        while engine_at(f"http://127.0.0.1:{begun.port}")[0]:  # nobody waits for it: it is computed no further
            assert time.monotonic() < deadline
        assert httpx.post(url, json=body, timeout=DEADLINE).is_success
        assert begun.stop() == 0
    finally:
        begun.clean_up()


def test_sigterm_breaks_no_stream_and_leaves_nothing(exported: Path) -> None:
    """Streams that are under way come to their end; then all processes are gone, with code 0, and the port is free."""
    begun = Served(exported)
    try:
        startup = begun.await_ready()["startup"]
        assert {"imports", "engine", "first token", "total"} <= set(startup)
        ask = {"model": NAME, "prompt": "a", "max_tokens": 600, "temperature": 0, "extra_body": {"ignore_eos": True}}
        ask["stream_options"] = {"include_usage": True}
        with ThreadPoolExecutor(4) as clients, httpx.Client() as held:
            held.get(f"http://127.0.0.1:{begun.port}/v1/models")
            streams = [begun.client.completions.create(**ask, stream=True) for _ in range(4)]  # type: ignore[call-overload]
            firsts = [next(stream) for stream in streams]
            rests = [clients.submit(list, stream) for stream in streams]
            code = begun.stop()
            with socket.socket() as next_one:  # although a client holds on to its connection
                next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                next_one.bind(("127.0.0.1", begun.port))
            pieces = [rest.result(DEADLINE) for rest in rests]
        assert code == 0
        assert [each[-1].usage.completion_tokens for each in pieces] == [600] * 4
        assert firsts
        _, left = psutil.wait_procs(begun.members, timeout=DEADLINE)
        assert not left
    finally:
        begun.clean_up()


def test_a_service_that_stops_listens_as_long_as_anything_is_in_flight(exported: Path) -> None:
    """To who asks for its figures, and to who is to go elsewhere; a slow reader still gets its stream to the end."""
    begun = Served(exported)
    try:
        begun.await_ready()
        ask = {
            "model": NAME,
            "prompt": ["a"] * 8,
            "max_tokens": 900,
            "ignore_eos": True,
            "stream": True,
            "logprobs": 20,
        }
        body = json.dumps(ask).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        with socket.socket() as slow, httpx.Client(base_url=f"http://127.0.0.1:{begun.port}") as other:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what it does not read stays with the service
            slow.connect(("127.0.0.1", begun.port))
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            heard = slow.recv(1)
            begun.process.send_signal(signal.SIGTERM)
            until(lambda: other.get("/health").status_code == 503, "it does not say that it stops")
            for _ in range(12):  # longer than Serve would listen of its own accord
                assert other.get("/metrics").status_code == 200
                assert other.get("/v1/models").status_code == 503
                time.sleep(0.3)
            while piece := slow.recv(2**16):
                heard += piece
        assert heard.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert begun.process.wait(DEADLINE) == 0
    finally:
        begun.clean_up()


def test_a_damaged_version_is_refused_before_it_is_loaded(exported: Path, served: Served) -> None:  # noqa: ARG001
    """One flipped byte of the weights: named with version and file, and nothing is started."""
    store = exported.parent / "store"
    found, version = registry.find(open_store(str(store)), "coder@1")
    weights = found.fetch(version) / "model.safetensors"
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    try:
        command = [sys.executable, "-m", "headway.cli", "serve", "coder@1", "--store", str(store)]
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
