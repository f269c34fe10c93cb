"""`headway serve` beside bare vLLM, and Ray Serve LLM: what all that stands around the engine costs.

    python -m bench.serving [--rounds 5] [--model DIR] [--peers]

All serve the same model with the same engine settings at once, and are asked in turn, so only one of them works at a
time; `headway serve` with API keys and quotas, so that a request passes every link. One request at a time: the time to
the first token. 8, 32 and 64 at a time, as fast as they are answered: tokens per second, and the time between tokens.
Medians of the rounds, and ratios within a round. Without a model, the quick start's is trained for a moment and
exported.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

NAME = "bench"
LOADS = ((1, 30, 32), (8, 192, 64), (32, 256, 64), (64, 320, 64))
"""Requests at a time, requests, tokens of each answer."""
PROMPT = "import os\n\n\ndef main() -> None:\n"
RECIPE = "jobs/recipes/quickstart.yaml"
READY_SECONDS = 240.0


@dataclass
class Round:
    """What one server did under one load in one round."""

    first: float
    """Median time to the first token [s]."""
    throughput: float
    """Tokens per second, of all requests together."""
    between: float
    """95th percentile of the time between two pieces of a stream [s]; under load a piece may hold several tokens."""


@dataclass
class Server:
    """A server under test."""

    name: str
    command: Sequence[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    key: str = "none"
    rounds: dict[int, list[Round]] = field(default_factory=lambda: {load[0]: [] for load in LOADS})

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [*self.command, "--port", str(self.port)],
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with suppress(urllib.error.URLError, OSError):
                url, known = f"http://127.0.0.1:{self.port}/v1/models", {"Authorization": f"Bearer {self.key}"}
                urllib.request.urlopen(urllib.request.Request(url, headers=known), timeout=5).close()
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                sys.exit(f"{self.name} did not start: {' '.join(self.command)}")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    async def ask(self, at_a_time: int, requests: int, tokens: int) -> Round:
        """Send so many requests, so many at a time."""
        left = iter(range(requests))
        firsts: list[float] = []
        gaps: list[float] = []
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def client() -> None:
                for _ in left:
                    await self._stream(session, tokens, firsts, gaps)

            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(at_a_time)))
            took = time.perf_counter() - began
        return Round(statistics.median(firsts), requests * tokens / took, sorted(gaps)[int(0.95 * len(gaps))])

    async def _stream(
        self, session: aiohttp.ClientSession, tokens: int, firsts: list[float], gaps: list[float]
    ) -> None:
        body = {"model": NAME, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        asked = last = time.perf_counter()
        seen, text = 0, b""
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        async with session.post(url, json=body) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                now = time.perf_counter()
                (gaps if seen else firsts).append(now - (last if seen else asked))
                last, seen, text = now, seen + 1, line
        computed = json.loads(text.removeprefix(b"data: "))["usage"]["completion_tokens"]
        if computed != tokens:
            raise RuntimeError(f"{self.name} ended a stream after {computed} of {tokens} tokens")


def free_port() -> int:
    """A port that nobody uses now, and that is given to nobody while a server starts: those are from 32768 on."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def train(folder: Path) -> Path:
    """The quick start's model, trained for a moment."""
    short = ["train.tokens=65536", "train.schedule.decay_tokens=null", "evaluation.every_tokens=65536"]
    headway = [sys.executable, "-m", "headway.cli"]
    store = ["--store", str(folder / "store"), "--quiet"]
    train = [*headway, "train", RECIPE, *short, f"data.path={folder}/data", "--run", "bench", "--nproc", "1", *store]
    subprocess.run([*headway, "data", "build", RECIPE, f"data.path={folder}/data", "--quiet"], check=True)
    subprocess.run(train, check=True, stderr=subprocess.DEVNULL)
    export = [*headway, "export", "bench", "--to", str(folder / "model"), "--dtype", "bfloat16", *store]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def environment(model: Path) -> dict[str, str]:
    """That of `headway serve`'s engine on a CPU, for all."""
    from headway.serve import ServeConfig
    from headway.serve.engine import QUIET, on_a_cpu

    return {**QUIET, **on_a_cpu(ServeConfig(folder=model, name=NAME))}


def bare(model: Path) -> Server:
    """Vllm's own server, with the engine settings of `headway serve` on a CPU."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", NAME, "--max-num-seqs", "64", "--enforce-eager", "--seed", "0"]
    command += ["--distributed-executor-backend", "uni", "--disable-uvicorn-access-log"]
    return Server("bare vLLM", command, free_port(), environment(model))


def ours(model: Path, folder: Path) -> Server:
    """`headway serve`, with a tenant whose quotas are never used up."""
    from headway.serve.tenants import KeyStore

    keys = KeyStore(folder / "keys.json")
    key = keys.add("bench")
    keys.limit("bench", requests=10**9, tokens=10**9)
    command = [sys.executable, "-m", "headway.cli", "serve", str(model), "--name", NAME, "--keys", str(keys.path)]
    return Server("headway", command, free_port(), key=key)


def peers(model: Path) -> list[Server]:
    """Ray Serve LLM, as it is, and with direct streaming."""
    command = [sys.executable, "-m", "bench.ray_serve_llm", "--name", NAME, "--model", str(model)]
    found = environment(model) | {"PYTHONPATH": str(Path.cwd())}
    return [
        Server("Ray Serve LLM", command, free_port(), found),
        Server("- direct", [*command, "--direct"], free_port(), found),
    ]


async def measure(servers: Sequence[Server], rounds: int) -> None:
    """All servers in turn; the first round warms up."""
    for number in range(rounds + 1):
        for at_a_time, requests, tokens in LOADS:
            for server in servers if number % 2 else servers[::-1]:
                done = await server.ask(at_a_time, requests, tokens)
                if number:
                    server.rounds[at_a_time].append(done)


def compared(server: Server, base: Server) -> list[dict[str, Any]]:
    """A row for each load: medians, and ratios to `base` within a round."""
    rows = []
    for load, rounds in server.rounds.items():
        pairs = list(zip(rounds, base.rounds[load], strict=True))
        rows.append(
            {
                "server": server.name,
                "at a time": load,
                "first token ms": 1000 * statistics.median(mine.first for mine in rounds),
                "added ms": 1000 * statistics.median(mine.first - other.first for mine, other in pairs),
                "tokens/s": statistics.median(mine.throughput for mine in rounds),
                "x bare": statistics.median(mine.throughput / other.throughput for mine, other in pairs),
                "between p95 ms": 1000 * statistics.median(mine.between for mine in rounds),
                "between x bare": statistics.median(mine.between / other.between for mine, other in pairs),
            }
        )
    return rows


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a Hugging Face directory")
    parser.add_argument("--peers", action="store_true", help="Ray Serve LLM in the same table")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        model = chosen.model or train(Path(folder))
        with ExitStack() as stack:
            asked = [bare(model), ours(model, Path(folder)), *(peers(model) if chosen.peers else [])]
            servers = [stack.enter_context(server) for server in asked]
            asyncio.run(measure(servers, chosen.rounds))
    rows = [row for server in servers for row in compared(server, servers[0])]
    if chosen.json:
        print(json.dumps(rows, indent=1))
        return
    for line in (
        list(rows[0]),
        *([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ):
        print("".join(f"{cell:>16}" for cell in line))


if __name__ == "__main__":
    main()
