"""`headway serve` under overload, and with one tenant far beyond its quota.

    python -m bench.overload [--seconds 20] [--rounds 2] [--model DIR]

Overload: the peak is the rate of responses that start within a limit, with as many clients as the engine and the queue
hold, each sending its next request at once (closed loop). Then Poisson requests arrive at 1, 2 and 3 times that rate,
independent of responses (open loop), from another process: responses within the limit as a share of the peak, refusals,
and time to the first token. Neighbour: a tenant sends requests steadily, alone and while another sends ten times its
quota; the ratio of its times to the first token. Without a model, the quick start's is trained briefly and exported.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.serving import NAME, PROMPT, Server, free_port, train
from headway.serve.tenants.key_file import KeyStore

TOKENS = 64
END = b"data: [DONE]\n\n"
STREAMS, QUEUE = 16, 16
LIMIT_SECONDS = 2.0
"""Longest useful time to the first token [s]."""
LOADS = (1.0, 2.0, 3.0)
STEADY_PER_SECOND = 10.0
QUOTA_PER_MINUTE, FLOOD = 60, 10
"""Requests that the neighbour may send, and the factor by which it exceeds that."""


@dataclass
class Outcome:
    """Results of a number of requests."""

    seconds: float = 0.0
    offered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    firsts: list[float] = field(default_factory=list)
    """Times to the first token of complete responses [s]."""
    no_retry_after: int = 0
    """Refusals without a Retry-After header."""
    broken: int = 0

    @property
    def goodput(self) -> float:
        """Responses per second that start within the limit."""
        return sum(first <= LIMIT_SECONDS for first in self.firsts) / self.seconds

    @property
    def first_p95(self) -> float:
        """95th percentile of the time to the first token [s]."""
        return sorted(self.firsts)[int(0.95 * len(self.firsts))] if self.firsts else float("nan")


async def request(session: aiohttp.ClientSession, url: str, key: str, outcome: Outcome) -> None:
    """Send one streaming request, and record it in `outcome`."""
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    sent = time.perf_counter()
    outcome.offered += 1
    first, last = None, b""
    try:
        async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
            outcome.statuses[response.status] += 1
            if response.status != 200:
                outcome.no_retry_after += response.status == 429 and "Retry-After" not in response.headers
                return
            async for pieces in response.content.iter_any():  # not by line, to leave CPU time to the service
                first = first or time.perf_counter() - sent
                last = (last + pieces)[-len(END) :]
    except aiohttp.ClientError:
        pass
    if first is None or last != END:
        outcome.broken += 1
    else:
        outcome.firsts.append(first)


async def closed_loop(url: str, key: str, concurrency: int, seconds: float) -> Outcome:
    """`concurrency` clients, each sending its next request as soon as the last one ends."""
    outcome, began = Outcome(), time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            while time.perf_counter() - began < seconds:
                await request(session, url, key, outcome)

        await asyncio.gather(*(client() for _ in range(concurrency)))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def open_loop(url: str, key: str, per_second: float, seconds: float, seed: int) -> Outcome:
    """Poisson requests, sent without waiting for earlier ones."""
    outcome, began, random_ = Outcome(), time.perf_counter(), random.Random(seed)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as tasks:
        due = 0.0
        while (due := due + random_.expovariate(per_second)) < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tasks.create_task(request(session, url, key, outcome))
    outcome.seconds = time.perf_counter() - began
    return outcome


def run(loop: Callable[..., Awaitable[Outcome]], *arguments: Any) -> Outcome:
    """Run a loop of requests to its end; called in another process."""

    async def wait() -> Outcome:
        return await loop(*arguments)

    return asyncio.run(wait())


def overload(pool: ProcessPoolExecutor, url: str, key: str, seconds: float, seed: int) -> list[dict[str, Any]]:
    """Measure the peak, then loads up to three times as high."""
    peak = pool.submit(run, closed_loop, url, key, STREAMS + QUEUE, seconds).result()
    rows = [row("closed loop", peak, 1.0)]
    for load in LOADS:
        outcome = pool.submit(run, open_loop, url, key, load * peak.goodput, seconds, seed).result()
        rows.append(row(f"open loop x{load:g}", outcome, outcome.goodput / peak.goodput))
    return rows


def row(name: str, outcome: Outcome, share: float) -> dict[str, Any]:
    """A row of the table."""
    bad = sum(count for status, count in outcome.statuses.items() if status not in (200, 429))
    return {
        "load": name,
        "offered/s": outcome.offered / outcome.seconds,
        "goodput/s": outcome.goodput,
        "of peak": share,
        "429": outcome.statuses[429],
        "429 no retry": outcome.no_retry_after,
        "other errors": bad + outcome.broken,
        "first p95 ms": 1000 * outcome.first_p95,
    }


def neighbour(pool: ProcessPoolExecutor, url: str, keys: dict[str, str], seconds: float, seed: int) -> dict[str, Any]:
    """A steady tenant alone, and beside one that sends ten times its quota."""
    steady = (open_loop, url, keys["steady"], STEADY_PER_SECOND, seconds, seed)
    alone = pool.submit(run, *steady).result()
    per_second = FLOOD * QUOTA_PER_MINUTE / 60
    burst_seconds = QUOTA_PER_MINUTE / per_second + 1.0
    flood = pool.submit(run, open_loop, url, keys["loud"], per_second, seconds + burst_seconds, seed + 1)
    time.sleep(burst_seconds)  # until then the loud tenant is within its quota
    beside = pool.submit(run, *steady).result()
    loud = flood.result()
    return {
        "alone p50 ms": 1000 * statistics.median(alone.firsts),
        "beside p50 ms": 1000 * statistics.median(beside.firsts),
        "alone p95 ms": 1000 * alone.first_p95,
        "beside p95 ms": 1000 * beside.first_p95,
        "ratio p95": beside.first_p95 / alone.first_p95,
        "steady errors": sum(beside.statuses.values()) - beside.statuses[200] + beside.broken,
        "loud answered": loud.statuses[200],
        "loud 429": loud.statuses[429],
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    for line in (
        list(rows[0]),
        *([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ):
        print("".join(f"{cell:>15}" for cell in line))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a Hugging Face directory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loads: list[dict[str, Any]] = []
    neighbours: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ProcessPoolExecutor(2) as pool:
        model = options.model or train(Path(folder))
        key_store = KeyStore(Path(folder) / "keys.json")
        keys = {tenant: key_store.add(tenant) for tenant in ("all", "steady", "loud")}
        key_store.limit("loud", requests=QUOTA_PER_MINUTE)
        command = [
            sys.executable,
            "-m",
            "headway.cli",
            "serve",
            str(model),
            "--name",
            NAME,
            "--keys",
            str(key_store.path),
        ]
        command += ["--streams", str(STREAMS), "--queue", str(QUEUE), "--quiet"]
        server = Server("headway", command, free_port(), key=keys["all"])
        with server:
            url = f"http://127.0.0.1:{server.port}/v1/completions"
            pool.submit(run, closed_loop, url, keys["all"], STREAMS + QUEUE, 3.0).result()  # warm-up
            for number in range(options.rounds):
                neighbours.append(neighbour(pool, url, keys, options.seconds, 2 * number))
                loads += overload(pool, url, keys["all"], options.seconds, number)
    if options.json:
        print(json.dumps({"overload": loads, "neighbour": neighbours}, indent=1))
        return
    print_table(loads)
    print_table(neighbours)


if __name__ == "__main__":
    main()
