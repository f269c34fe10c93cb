"""How the tests serve for real: `headway serve` as a process, asked by clients, signalled, killed."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from headway.serve.engine.grammar_process import PROCESS_NAME
from headway.serve.tenants.key_file import KeyStore
from tests.integration.training import DEADLINE, send_signal, until

NAME = "tiny"
ASK: dict[str, Any] = {"model": NAME, "prompt": "a", "max_tokens": 2}
"""A short request."""
TAKEN: set[int] = set()
"""Ports that were given to a service."""


FORK_SERVER = "headway.serve.engine.engine_preload"
"""In the command of the process that starts engines."""
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Which of the processes that share the tests this one is; each has ports of its own."""


def free_port() -> int:
    """The default port, which Serve itself would take, too; else one that is given to nobody while a service starts."""
    ports = random.sample(range(20_000 + 1000 * WORKER, 21_000 + 1000 * WORKER), 100)
    for port in [8000, *ports] if WORKER == 0 else ports:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            if port not in TAKEN:  # a service takes seconds to listen
                TAKEN.add(port)
                return port
    raise AssertionError("no port is free")


class Served:
    """A running `headway serve`."""

    def __init__(self, model: str | Path, *options: str, name: str = NAME, temporary: str = ".") -> None:
        """Serve `model`; `temporary` names its folder for temporary files, below one that is made for it."""
        self.model, self.port = model, free_port()
        command = [sys.executable, "-m", "headway.cli", "serve", str(model), "--name", name, "--port", str(self.port)]
        self.temporary = Path(tempfile.mkdtemp(prefix="hw-"))  # short: Ray's sockets go there
        """Holds its temporary files."""
        (self.temporary / temporary).mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*command, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.temporary / temporary)},
            start_new_session=True,
        )
        self.members: list[psutil.Process] = []
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take what it logs: it would wait for a reader."""
        assert self.process.stderr
        self._lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def log(self) -> str:
        """Its standard error so far; all of it, once it has ended."""
        if self.process.poll() is not None:
            self._reader.join(DEADLINE)
        return "".join(self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What its log says of `name`."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def await_ready(self) -> dict[str, Any]:
        """What it says when it is ready."""
        assert self.process.stdout
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                self.members = psutil.Process(self.process.pid).children(recursive=True)
                document: dict[str, Any] = json.loads(text)
                return document
        self.process.wait(DEADLINE)
        raise AssertionError(self.log)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> openai.OpenAI:
        """As an application has it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def clean_up(self) -> None:
        """End whatever is left of it."""
        if self.process.poll() is None:
            self.members += psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        send_signal(signal.SIGKILL, self.members)
        shutil.rmtree(self.temporary, ignore_errors=True)


class Pool:
    """Keeps one service for all tests that ask for the same, one after the other; a test may leave it stopped."""

    def __init__(self) -> None:
        self._words: tuple[str, ...] = ()
        self._service: Served | None = None

    def service(self, model: str | Path, *options: str) -> Served:
        """The service of this model with these options, ready; whatever ran before is stopped."""
        words = (str(model), *options)
        if self._service is None or self._words != words or self._service.process.poll() is not None:
            self.close()
            self._words, self._service = words, Served(model, *options)
            try:
                self._service.await_ready()
            except BaseException:
                self._service.clean_up()
                self._service = None
                raise
        return self._service

    def close(self) -> None:
        """Stop it; it has lived through all that was done to it with its first engine, and leaves with code 0."""
        service, self._service = self._service, None
        if service is not None:
            try:
                code = service.process.poll()
                assert (service.stop() if code is None else code) == 0, service.log
                assert not service.events("engine.died")
            finally:
                service.clean_up()


POOL = Pool()

STREAMS, QUEUE = 2, 2
"""Places of the limited service."""
SMALL_QUOTA = 20
"""Requests a minute of the tenant `loud`."""
LIMITS: dict[str, dict[str, int]] = {
    "free": {},
    "steady": {},
    "changed": {},
    "revoked": {},
    "loud": {"requests": SMALL_QUOTA},
    "requests": {"requests": 2},
    "large": {"tokens": 100},
    "settled": {"tokens": 10_000},
}
"""Quotas of the limited service's tenants."""


class Tenants:
    """The tenants of the limited service, in its file of keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = KeyStore(path)
        self.key = {tenant: self.keys.add(tenant) for tenant in LIMITS}
        for tenant, limits in LIMITS.items():
            if limits:
                self.keys.limit(tenant, **limits)


@dataclass(frozen=True)
class Limited:
    """A service with few places, and its tenants."""

    served: Served
    tenants: Tenants

    @property
    def completions(self) -> str:
        """The URL that completions are asked at."""
        return f"{self.served.url}/v1/completions"

    def client(self, tenant: str = "free") -> openai.OpenAI:
        """As an application has it."""
        return self.served.client.with_options(api_key=self.tenants.key[tenant])

    def post(self, tenant: str = "free", **options: Any) -> httpx.Response:
        """A completion, with whatever body and headers."""
        headers = {"Authorization": f"Bearer {self.tenants.key[tenant]}", "Content-Type": "application/json"}
        return httpx.post(self.completions, **{"headers": headers, "timeout": DEADLINE, **options})


def name(process: psutil.Process) -> str:
    """What the system calls a process; nothing if it has gone."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def title(process: psutil.Process | None) -> str:
    """What a process calls itself; nothing if it has gone."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()) if process else ""
    return ""


def metric_values(url: str, *names: str) -> list[float]:
    """The first value of each of these metrics of a service; a name ends with the brace of its labels."""
    lines = httpx.get(f"{url}/metrics", timeout=DEADLINE).text.splitlines()
    return [next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)) for name in names]


def engine_at(url: str) -> tuple[int, int]:
    """How many requests the engine computes, and how many tokens it has generated so far."""
    running, tokens = metric_values(url, "vllm:num_requests_running{", "vllm:generation_tokens_total{")
    return int(running), int(tokens)


def hang_up(served: Served, body: dict[str, Any], **headers: str) -> int:
    """Ask, and hang up once the engine computes; returns how many tokens it generated by the time it stopped."""
    content = json.dumps(body).encode()
    lines = [f"{name}: {value}" for name, value in {"Content-Length": len(content), **headers}.items()]
    head = ["POST /v1/completions HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]
    before = engine_at(served.url)
    assert before[0] == 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE) as client:
        client.sendall("\r\n".join(head).encode() + content)
        until(lambda: engine_at(served.url)[1] > before[1], "the engine never computed it")
    until(lambda: engine_at(served.url)[0] == 0, "it is computed although nobody waits for it")
    return engine_at(served.url)[1] - before[1]


def _parent(process: psutil.Process) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return process.parent()
    return None


def engine_of(served: Served) -> psutil.Process:
    """The engine's process, which the fork server started, as it did that for grammars; waits until there is one.

    Its own title is no sign of it: now and then vLLM's library cannot set it.
    """
    engines: list[psutil.Process] = []

    def is_there() -> bool:
        members = psutil.Process(served.process.pid).children(recursive=True)
        served.members = list({*served.members, *members})
        forked = [member for member in members if FORK_SERVER in title(_parent(member))]
        engines[:] = [member for member in forked if name(member) not in {"", PROCESS_NAME}]
        return len(engines) == 1

    until(is_there, lambda: f"{engines} among {[title(member) for member in served.members]}\n{served.log}")
    return engines[0]
