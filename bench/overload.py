"""`headway serve` when more is asked of it than it can do, and when one tenant asks for far more than its quota.

    python -m bench.overload [--seconds 20] [--rounds 2] [--model DIR]

Overload: the peak is what as many clients get as there are places, in the queue too, who ask as fast as they are
answered (closed loop): answers per second that began within a limit. Then requests come at 1, 2 and 3 times that rate
at random (Poisson), whether those before were answered or not (open loop), from a process of their own: answers within
the limit as a share of the peak, what was refused and how, and how soon those let in began. Neighbour: a tenant asks
steadily, alone and while another asks at ten times its quota; the time to its first token, as a ratio within a round.
Without a model, the quick start's is trained for a moment and exported.
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
from headway.serve.tenants import KeyStore

TOKENS = 64
END = b"data: [DONE]\n\n"
STREAMS, QUEUE = 16, 16
LIMIT_SECONDS = 2.0
"""An answer that begins later is of no use."""
LOADS = (1.0, 2.0, 3.0)
STEADY_PER_SECOND = 10.0
QUOTA_PER_MINUTE, FLOOD = 60, 10
"""What the neighbour may ask, and how many times that it asks."""


@dataclass
class Outcome:
    """What came of a number of requests."""

    seconds: float = 0.0
    offered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    firsts: list[float] = field(default_factory=list)
    """Time to the first token of each that was answered whole [s]."""
    untold: int = 0
    """Refusals that do not say when to come again."""
    broken: int = 0

    @property
    def goodput(self) -> float:
        """Answers a second that began within the limit."""
        return sum(first <= LIMIT_SECONDS for first in self.firsts) / self.seconds

    @property
    def first_p95(self) -> float:
        """95th percentile of the time to the first token [s]."""
        return sorted(self.firsts)[int(0.95 * len(self.firsts))] if self.firsts else float("nan")


async def ask(session: aiohttp.ClientSession, url: str, key: str, outcome: Outcome) -> None:
    """One stream, to its end; noted in `outcome`."""
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    asked = time.perf_counter()
    outcome.offered += 1
    first, last = None, b""
    try:
        async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
            outcome.statuses[answer.status] += 1
            if answer.status != 200:
                outcome.untold += answer.status == 429 and "Retry-After" not in answer.headers
                return
            async for pieces in answer.content.iter_any():  # not by line: that takes from the service's two cores
                first = first or time.perf_counter() - asked
                last = (last + pieces)[-len(END) :]
    except aiohttp.ClientError:
        pass
    if first is None or last != END:
        outcome.broken += 1
    else:
        outcome.firsts.append(first)


async def closed(url: str, key: str, at_a_time: int, seconds: float) -> Outcome:
    """So many at a time, each as soon as the one before was answered."""
    outcome, began = Outcome(), time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            while time.perf_counter() - began < seconds:
                await ask(session, url, key, outcome)

        await asyncio.gather(*(client() for _ in range(at_a_time)))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def opened(url: str, key: str, per_second: float, seconds: float, seed: int) -> Outcome:
    """Requests that come at random, whatever becomes of those before."""
    outcome, began, dice = Outcome(), time.perf_counter(), random.Random(seed)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as tasks:
        due = 0.0
        while (due := due + dice.expovariate(per_second)) < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tasks.create_task(ask(session, url, key, outcome))
    outcome.seconds = time.perf_counter() - began
    return outcome


def run(kind: Callable[..., Awaitable[Outcome]], *given: Any) -> Outcome:
    """In a process of its own."""

    async def wait() -> Outcome:
        return await kind(*given)

    return asyncio.run(wait())


def overload(pool: ProcessPoolExecutor, url: str, key: str, seconds: float, seed: int) -> list[dict[str, Any]]:
    """The peak, and then more than that."""
    peak = pool.submit(run, closed, url, key, STREAMS + QUEUE, seconds).result()
    rows = [row("closed loop", peak, 1.0)]
    for load in LOADS:
        done = pool.submit(run, opened, url, key, load * peak.goodput, seconds, seed).result()
        rows.append(row(f"open loop x{load:g}", done, done.goodput / peak.goodput))
    return rows


def row(name: str, done: Outcome, share: float) -> dict[str, Any]:
    """A line of the table."""
    bad = sum(count for status, count in done.statuses.items() if status not in (200, 429))
    return {
        "load": name,
        "offered/s": done.offered / done.seconds,
        "goodput/s": done.goodput,
        "of peak": share,
        "429": done.statuses[429],
        "429 untold": done.untold,
        "other errors": bad + done.broken,
        "first p95 ms": 1000 * done.first_p95,
    }


def neighbour(pool: ProcessPoolExecutor, url: str, keys: dict[str, str], seconds: float, seed: int) -> dict[str, Any]:
    """A steady tenant alone, and beside one that asks for ten times its quota."""
    steady = (opened, url, keys["steady"], STEADY_PER_SECOND, seconds, seed)
    alone = pool.submit(run, *steady).result()
    per_second = FLOOD * QUOTA_PER_MINUTE / 60
    used_up = QUOTA_PER_MINUTE / per_second + 1.0
    flood = pool.submit(run, opened, url, keys["loud"], per_second, seconds + used_up, seed + 1)
    time.sleep(used_up)  # until then it is within its quota
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


def shown(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    for line in (
        list(rows[0]),
        *([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ):
        print("".join(f"{cell:>15}" for cell in line))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a Hugging Face directory")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    loads: list[dict[str, Any]] = []
    neighbours: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ProcessPoolExecutor(2) as pool:
        model = chosen.model or train(Path(folder))
        roll = KeyStore(Path(folder) / "keys.json")
        keys = {tenant: roll.add(tenant) for tenant in ("all", "steady", "loud")}
        roll.limit("loud", requests=QUOTA_PER_MINUTE)
        command = [sys.executable, "-m", "headway.cli", "serve", str(model), "--name", NAME, "--keys", str(roll.path)]
        command += ["--streams", str(STREAMS), "--queue", str(QUEUE), "--quiet"]
        server = Server("headway", command, free_port(), key=keys["all"])
        with server:
            url = f"http://127.0.0.1:{server.port}/v1/completions"
            pool.submit(run, closed, url, keys["all"], STREAMS + QUEUE, 3.0).result()  # warms up
            for number in range(chosen.rounds):
                neighbours.append(neighbour(pool, url, keys, chosen.seconds, 2 * number))
                loads += overload(pool, url, keys["all"], chosen.seconds, number)
    if chosen.json:
        print(json.dumps({"overload": loads, "neighbour": neighbours}, indent=1))
        return
    shown(loads)
    shown(neighbours)


if __name__ == "__main__":
    main()
