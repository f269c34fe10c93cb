"""Whatever bytes are sent to a real service, no error is its own, its memory has an end, and others go on.

HEADWAY_FUZZ sets how many requests are sent, HEADWAY_FUZZ_SEED draws others. With a thousand of them or more it is also
measured for how long the event loop is held.
"""

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from headway.serve.config import ServeConfig
from tests.integration.fuzzed_requests import FuzzedRequest, fuzzed_requests
from tests.integration.serving import Served, title
from tests.integration.training import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]
COUNT = int(os.environ.get("HEADWAY_FUZZ", "300"))
SEED = os.environ.get("HEADWAY_FUZZ_SEED", "20261127")
WARM_UP = 150
"""Requests before memory is measured: they load what is loaded late."""
AT_LENGTH = 1000
"""Requests from which on it is measured how long others wait."""
AT_A_TIME, BATCH = 4, 100
MAX_ERROR_BYTES = 16_000
"""Longest error, its head included [bytes]."""
MAX_GROWTH = 100 * 2**20
"""Memory that requests may take beyond the room for bodies [bytes]."""
MAX_HELD_SECONDS = 0.25
"""How long the event loop may be held [s]."""
PATIENCE_SECONDS = 1.0
"""How long a client waits that has sent only a part, or what the service may take for a part [s]."""
LATE = b"deadline_exceeded"
"""In the response to a request that asked to be given up so early."""
STATUS = re.compile(rb"(?:^|\n)HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Exchange:
    """A request that was sent, and what became of it."""

    request: str
    """Its path, its length and its end."""
    statuses: list[int]
    """Statuses of the responses."""
    start: float
    end: float


def exchange(port: int, request: FuzzedRequest) -> Exchange:
    """Send a request over a connection of its own, and read until the service closes it; judge what came."""
    start, received = time.monotonic(), bytearray()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        with suppress(ConnectionError):  # it does not read to the end of what it has refused
            connection.sendall(request.content[: request.sent_bytes])
        connection.settimeout(DEADLINE if request.is_sound else PATIENCE_SECONDS)
        while part := connection.recv(2**16):
            received += part
    statuses = [int(code) for code in STATUS.findall(received)]
    place = (request.path, request.content[:600], bytes(received[-600:]))
    assert statuses or not request.is_sound, place
    assert max(statuses, default=0) < 500 or LATE in received, place
    assert min(statuses, default=200) < 400 or len(received) <= MAX_ERROR_BYTES * len(statuses), place
    label = f"{request.path}, {len(request.content)} bytes ending in {request.content[-100:]!r}"
    return Exchange(label, statuses, start, time.monotonic())


PROBE = """
import json, os, select, socket, sys, time

def computed():
    seconds = {}
    for thread in os.listdir(f"/proc/{sys.argv[2]}/task"):
        try:
            with open(f"/proc/{sys.argv[2]}/task/{thread}/schedstat") as file:
                seconds[thread] = int(file.read().split()[0]) / 1e9
        except OSError:
            pass
    return seconds

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
seen = []
while not select.select([sys.stdin], [], [], 0.01)[0]:
    before, start = computed(), time.monotonic()
    connection.sendall(b"GET /ping HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    assert connection.recv(2**16).startswith(b"HTTP/1.1 200"), "no ping"
    waited = time.monotonic() - start
    if waited > 0.05:
        held = max(seconds - before.get(thread, seconds) for thread, seconds in computed().items())
        seen.append((min(waited, held), waited, start))
print(json.dumps(sorted(seen)[-20:]))
"""
"""Asks a replica for something every 10 ms until its standard input ends; prints the waits that were longest.

The event loop was held for no longer than the wait, nor than the thread that computed most meanwhile: what is longer is
the machine's doing, which has other processes to run.
"""


@dataclass(frozen=True)
class Wait:
    """How long somebody else waited for a replica [s]."""

    held: float
    """How long a thread of the replica computed meanwhile."""
    waited: float
    start: float


@contextmanager
def probed(service: Served, waits: list[Wait]) -> Iterator[None]:
    """Fill in the longest waits of somebody else during the block, the longest at last."""
    words = [sys.executable, "-c", PROBE, str(service.port), str(processes(service)[1].pid)]
    probe = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield
        waits += [Wait(*each) for each in json.loads(probe.communicate(timeout=DEADLINE)[0])]
    finally:
        probe.kill()
        probe.wait()


def processes(service: Served) -> list[psutil.Process]:
    """The service's own process and its replica's."""
    main = psutil.Process(service.process.pid)
    return [main, *(each for each in main.children(recursive=True) if "ServeReplica" in title(each))]


def peak_bytes(process: psutil.Process, *, reset: bool = False) -> int:
    """The most memory that a process has had since the last reset [bytes]."""
    folder = Path(f"/proc/{process.pid}")
    if reset:
        (folder / "clear_refs").write_text("5", encoding="ascii")
    [line] = [line for line in (folder / "status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_whatever_bytes_are_sent_the_service_is_not_at_fault(service: Served) -> None:
    """No error of its own, no long one, no traceback, no memory without end; at length, others never wait long."""
    rows = json.loads((Path(service.model) / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    requests = fuzzed_requests(SEED, rows)
    waits: list[Wait] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:

        def send(count: int) -> list[Exchange]:
            """Send the next requests, some of them at a time: a pool takes all that it is given at once."""
            batches = [min(BATCH, count - sent) for sent in range(0, count, BATCH)]
            send_batch = partial(pool.map, partial(exchange, service.port))
            return [each for size in batches for each in send_batch(itertools.islice(requests, size))]

        send(WARM_UP)
        members = processes(service)
        assert len(members) == 2
        before = [peak_bytes(member, reset=True) for member in members]
        with probed(service, waits) if COUNT >= AT_LENGTH else nullcontext():
            exchanges = send(COUNT)
    growth = [peak_bytes(member) - size for member, size in zip(members, before, strict=True)]
    print(f"\n{report(exchanges, growth, waits)}")  # noqa: T201 - the figures
    assert sum(growth) <= MAX_GROWTH + AT_A_TIME * ServeConfig.model_fields["max_body_bytes"].default
    assert not [each for each in waits if each.held > MAX_HELD_SECONDS]
    assert "Traceback" not in service.log
    assert not service.events("request.failed")
    assert not service.events("engine.died")
    assert httpx.get(f"{service.url}/health", timeout=DEADLINE).is_success


def report(exchanges: list[Exchange], growth: list[int], waits: list[Wait]) -> str:
    """The figures, and what was going on during the longest waits."""
    statuses = Counter(code for each in exchanges for code in each.statuses)
    lines = [f"{len(exchanges)} requests: {dict(sorted(statuses.items()))}"]
    lines += [f"service and replica grew by {[size // 2**20 for size in growth]} MiB"]
    for wait in reversed(waits[-8:]):
        there = [each for each in exchanges if each.start < wait.start + wait.waited and each.end > wait.start]
        kinds = [(each.request, each.statuses) for each in there]
        lines += [f"held for {1000 * wait.held:.0f} ms, a wait of {1000 * wait.waited:.0f} ms: {kinds}"]
    return "\n".join(lines)
