"""How the tests serve for real: `headway serve` as a process, asked by clients, signalled, killed."""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from tests.integration.training import DEADLINE

NAME = "tiny"
TAKEN: set[int] = set()
"""Ports that were given to a service."""


def free_port() -> int:
    """The default port, which Serve itself would take, too; else one that is given to nobody while a service starts."""
    for port in [8000, *random.sample(range(20_000, 30_000), 100)]:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            if port not in TAKEN:  # a service takes seconds to listen
                TAKEN.add(port)
                return port
    raise AssertionError("no port is free")


class Served:
    """A running `headway serve`."""

    def __init__(self, model: str | Path, *options: str, name: str = NAME) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "headway.cli", "serve", str(model), "--name", name, "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
    def said(self) -> str:
        """What it has said on standard error; all of it, once it has ended."""
        if self.process.poll() is not None:
            self._reader.join(DEADLINE)
        return "".join(self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What its log says of `name`."""
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
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
        raise AssertionError(self.said)

    @property
    def client(self) -> openai.OpenAI:
        """As an application has it."""
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)

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
        for member in self.members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def until(done: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Return once `done` says so; fail with `what` if it does not within so long [s]."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def title(process: psutil.Process) -> str:
    """What a process calls itself; nothing if it has gone."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def engine_at(url: str) -> tuple[int, int]:
    """How many requests the engine computes, and how many tokens it has generated so far."""
    lines = httpx.get(f"{url}/metrics", timeout=DEADLINE).text.splitlines()
    running, tokens = (
        next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
        for name in ("vllm:num_requests_running{", "vllm:generation_tokens_total{")
    )
    return int(running), int(tokens)


def engine_of(served: Served) -> psutil.Process:
    """The engine's process, at this moment."""
    members = psutil.Process(served.process.pid).children(recursive=True)
    served.members = list({*served.members, *members})
    [engine] = [member for member in members if "EngineCore" in title(member)]
    return engine
