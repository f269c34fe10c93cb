"""Streams through everything that happens to services: scaling up and down, engines that die, replacements.

HEADWAY_SOAK_STREAMS sets how many streams there are, HEADWAY_SOAK_AT_A_TIME how many at a time; see `make test-soak`.
"""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.serving import NAME, Served, engine_of
from tests.integration.training import DEADLINE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("soak")]

STREAMS = int(os.environ.get("HEADWAY_SOAK_STREAMS", "40"))
AT_A_TIME = int(os.environ.get("HEADWAY_SOAK_AT_A_TIME", "2"))
SECONDS = 600 + 5 * STREAMS
"""A bound for hangs."""
PROBE_SECONDS = 0.2
PATIENCE = 2 * DEADLINE
TOKENS = 300
PROMPTS = ("def read", "import ", "class Reader", "a", "return ")
KILLS, KILL_SECONDS = 2, 120.0
"""An engine that dies once more within so long is a service's last (`serve/engine/failover.py`)."""


class Router:
    """Sends each request to a service that says it is ready, as Kubernetes would; knows of nothing else.

    A request goes on to another service only if the one it came to did not take it: the connection is refused, or the
    answer is a 503.
    """

    def __init__(self) -> None:
        self.services: list[Served] = []
        self._ready: list[Served] = []
        self._turn = count()
        self._closing = threading.Event()
        self._prober = threading.Thread(target=self._probe, daemon=True)
        self._prober.start()

    def close(self) -> None:
        """End."""
        self._closing.set()
        self._prober.join(DEADLINE)

    def ready(self, served: Served) -> bool:
        """Whether requests are sent there."""
        return served in self._ready

    def _probe(self) -> None:
        """Ask all services again and again whether they are ready."""
        while not self._closing.wait(PROBE_SECONDS):
            self._ready = [served for served in list(self.services) if _healthy(served)]

    def stream(self, prompt: str) -> tuple[str, int, str]:
        """A greedy stream's text, its tokens, and why it ended; tries services until one takes it."""
        body = {"model": NAME, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if ready := list(self._ready):
                served = ready[next(self._turn) % len(ready)]
                try:
                    with httpx.stream("POST", _url(served, "/v1/completions"), json=body, timeout=DEADLINE) as answer:
                        if answer.status_code != 503:
                            answer.raise_for_status()
                            return _read(answer)
                except httpx.ConnectError:
                    pass
            time.sleep(PROBE_SECONDS / 4)
        raise AssertionError("no service took it")


def _url(served: Served, path: str) -> str:
    return f"http://127.0.0.1:{served.port}{path}"


def _healthy(served: Served) -> bool:
    try:
        return httpx.get(_url(served, "/health"), timeout=DEADLINE).status_code == 200
    except httpx.TransportError:
        return False


def _read(answer: httpx.Response) -> tuple[str, int, str]:
    """All of a stream; it is broken unless it says itself that it has ended."""
    text, tokens, reason, last = "", 0, "", ""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            last = line.removeprefix("data: ")
            if last != "[DONE]":
                event: dict[str, Any] = json.loads(last)
                assert "error" not in event, event
                for choice in event["choices"]:
                    text += choice["text"]
                    reason = choice["finish_reason"] or reason
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    assert last == "[DONE]", text
    return text, tokens, reason


class Fleet:
    """The services behind a router, and what happens to them."""

    def __init__(self, model: Path, router: Router) -> None:
        self.model, self.router = model, router
        self.all: list[Served] = []
        self.codes: list[int] = []
        self.left: list[psutil.Process] = []
        self.happened: list[str] = []
        self._killed: dict[int, list[float]] = {}

    def add(self) -> Served:
        """One more service; returns when requests are sent there."""
        served = Served(self.model)
        self.all.append(served)
        served.await_ready()
        self.router.services.append(served)
        until(lambda: self.router.ready(served), "a new service is not ready", PATIENCE)
        return served

    def remove(self, served: Served) -> None:
        """SIGTERM, as Kubernetes sends it: at the same time as the others hear of it, not after."""
        served.members = list({*served.members, *psutil.Process(served.process.pid).children(recursive=True)})
        self.codes.append(served.stop())
        self.router.services.remove(served)
        self.left += psutil.wait_procs(served.members, timeout=DEADLINE)[1]

    def kill_an_engine(self) -> None:
        """SIGKILL, of a service that may bear it; the service itself starts another engine."""
        now = time.monotonic()
        recent = {
            served.port: [then for then in self._killed.get(served.port, []) if now - then < KILL_SECONDS]
            for served in self.router.services
        }
        served = min(self.router.services, key=lambda each: len(recent[each.port]))
        if len(recent[served.port]) >= KILLS or not self.router.ready(served):
            return
        self._killed[served.port] = [*recent[served.port], now]
        replaced = len(served.events("engine.replaced"))
        engine_of(served).kill()
        until(lambda: len(served.events("engine.replaced")) > replaced, "no other engine was started", PATIENCE)
        until(lambda: self.router.ready(served), "the service is not ready again", PATIENCE)
        self.happened.append("killed")

    def replace(self) -> None:
        """A rolling update of the oldest: the new one is ready before it has to go."""
        oldest = self.router.services[0]
        self.add()
        self.remove(oldest)
        self.happened.append("replaced")

    def grow(self) -> None:
        """One more."""
        self.add()
        self.happened.append("grown")

    def shrink(self) -> None:
        """One fewer."""
        self.remove(self.router.services[0])
        self.happened.append("shrunk")


@pytest.mark.timeout(SECONDS)
def test_no_stream_is_broken_whatever_happens(exported: Path) -> None:
    """Each ends as it does undisturbed, every service leaves with code 0, and no process is left."""
    router = Router()
    fleet = Fleet(exported, router)
    over = threading.Event()
    ended: list[bool] = []
    broken: list[str] = []
    turn = count()

    def client() -> None:
        """One stream after the other."""
        while not over.is_set():
            prompt = PROMPTS[next(turn) % len(PROMPTS)]
            try:
                answer = router.stream(prompt)
                ended.append(answer == whole[prompt])
                if answer != whole[prompt]:
                    broken.append(f"{prompt!r}: {answer} instead of {whole[prompt]}")
            except Exception as error:  # whatever it is, it broke a stream
                ended.append(False)
                broken.append(repr(error))

    try:
        fleet.add()
        whole = {prompt: router.stream(prompt) for prompt in PROMPTS}
        assert {each[1:] for each in whole.values()} == {(TOKENS, "length")}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            clients = [pool.submit(client) for _ in range(AT_A_TIME)]
            try:
                while not broken and (len(ended) < STREAMS or len(set(fleet.happened)) < 4):
                    for happen in (fleet.grow, fleet.kill_an_engine, fleet.replace, fleet.shrink):
                        happen()
            finally:
                over.set()
            for each in clients:
                each.result(DEADLINE)
        for served in list(router.services):
            fleet.remove(served)
        events = {name: fleet.happened.count(name) for name in sorted(set(fleet.happened))}
        print(f"\n{len(ended)} streams, {len(broken)} broken; {events}")  # noqa: T201 - the figures
        assert not broken, "\n".join(broken[:5])
        assert fleet.codes == [0] * len(fleet.all)
        assert not fleet.left
        replaced = [event for served in fleet.all for event in served.events("engine.replaced")]
        assert len(replaced) == fleet.happened.count("killed"), replaced  # none dies by itself
    finally:
        over.set()
        router.close()
        for served in fleet.all:
            served.clean_up()
