"""`headway serve` against bare vLLM and Ray Serve LLM: the cost of everything around the engine.

    python -m bench.serving [--rounds 5] [--model DIR] [--peers]

All servers run at once with the same model and engine settings, and get load in turn, so only one works at a time.
`headway serve` has API keys and quotas, so that a request passes all middleware. With one request at a time: the time
to the first token. With 8, 32 and 64 concurrent requests: tokens per second, and the time between tokens. Figures are
medians of the rounds, and ratios within a round. Without a model, the quick start's is trained briefly and exported.
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
"""Concurrency, requests, tokens per response."""
PROMPT = "import os\n\n\ndef main() -> None:\n"
RECIPE = "jobs/recipes/quickstart.yaml"
READY_SECONDS = 240.0


@dataclass
class Round:
    """Results of one server under one load in one round."""

    first: float
    """Median time to the first token [s]."""
    throughput: float
    """Tokens per second, of all requests together."""
    between: float
    """95th percentile of the time between two chunks of a stream [s]; under load a chunk may hold several tokens."""


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
                url, headers = f"http://127.0.0.1:{self.port}/v1/models", {"Authorization": f"Bearer {self.key}"}
                urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5).close()
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                sys.exit(f"{self.name} did not start: {' '.join(self.command)}")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    async def load(self, concurrency: int, requests: int, tokens: int) -> Round:
        """Send `requests`, `concurrency` at a time."""
        pending = iter(range(requests))
        firsts: list[float] = []
        gaps: list[float] = []
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def client() -> None:
                for _ in pending:
                    await self._stream(session, tokens, firsts, gaps)

            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(concurrency)))
            seconds = time.perf_counter() - began
        return Round(statistics.median(firsts), requests * tokens / seconds, sorted(gaps)[int(0.95 * len(gaps))])

    async def _stream(
        self, session: aiohttp.ClientSession, tokens: int, firsts: list[float], gaps: list[float]
    ) -> None:
        body = {"model": NAME, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        sent = last = time.perf_counter()
        chunks, text = 0, b""
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        async with session.post(url, json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                now = time.perf_counter()
                (gaps if chunks else firsts).append(now - (last if chunks else sent))
                last, chunks, text = now, chunks + 1, line
        computed = json.loads(text.removeprefix(b"data: "))["usage"]["completion_tokens"]
        if computed != tokens:
            raise RuntimeError(f"{self.name} ended a stream after {computed} of {tokens} tokens")


def free_port() -> int:
    """A free port below 32768: the kernel assigns ports above that to other processes while a server starts."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


def train(folder: Path) -> Path:
    """Train the quick start's model briefly, and export it."""
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
    """The environment of `headway serve`'s engine on a CPU, for all servers."""
    from headway.serve import ServeConfig
    from headway.serve.engine.vllm_engine import OFFLINE_ENVIRONMENT, cpu_environment

    return {**OFFLINE_ENVIRONMENT, **cpu_environment(ServeConfig(folder=model, name=NAME))}


def bare_vllm(model: Path) -> Server:
    """The server of vLLM, with the engine settings of `headway serve` on a CPU."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", NAME, "--max-num-seqs", "64", "--enforce-eager", "--seed", "0"]
    command += ["--distributed-executor-backend", "uni", "--disable-uvicorn-access-log"]
    return Server("bare vLLM", command, free_port(), environment(model))


def headway_serve(model: Path, folder: Path) -> Server:
    """`headway serve`, with a tenant whose quotas are never exhausted."""
    from headway.serve.tenants.key_file import KeyStore

    keys = KeyStore(folder / "keys.json")
    key = keys.add("bench")
    keys.limit("bench", requests=10**9, tokens=10**9)
    command = [sys.executable, "-m", "headway.cli", "serve", str(model), "--name", NAME, "--keys", str(keys.path)]
    return Server("headway", command, free_port(), key=key)


def peers(model: Path) -> list[Server]:
    """Ray Serve LLM with its defaults, and with direct streaming."""
    command = [sys.executable, "-m", "bench.ray_serve_llm", "--name", NAME, "--model", str(model)]
    variables = environment(model) | {"PYTHONPATH": str(Path.cwd())}
    return [
        Server("Ray Serve LLM", command, free_port(), variables),
        Server("- direct", [*command, "--direct"], free_port(), variables),
    ]


async def measure(servers: Sequence[Server], rounds: int) -> None:
    """Load all servers in turn; the first round warms up."""
    for number in range(rounds + 1):
        for concurrency, requests, tokens in LOADS:
            for server in servers if number % 2 else servers[::-1]:
                result = await server.load(concurrency, requests, tokens)
                if number:
                    server.rounds[concurrency].append(result)


def comparison(server: Server, base: Server) -> list[dict[str, Any]]:
    """One row per load: medians, and ratios to `base` within a round."""
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
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a Hugging Face directory")
    parser.add_argument("--peers", action="store_true", help="add Ray Serve LLM to the table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        model = options.model or train(Path(folder))
        with ExitStack() as stack:
            configurations = [
                bare_vllm(model),
                headway_serve(model, Path(folder)),
                *(peers(model) if options.peers else []),
            ]
            servers = [stack.enter_context(server) for server in configurations]
            asyncio.run(measure(servers, options.rounds))
    rows = [row for server in servers for row in comparison(server, servers[0])]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for line in (
        list(rows[0]),
        *([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ):
        print("".join(f"{cell:>16}" for cell in line))


if __name__ == "__main__":
    main()
