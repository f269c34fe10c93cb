"""Clients that hold on to what they have: idle connections, half a request, an answer that is never read.

HEADWAY_CONNECTIONS sets how many connections are opened.
"""

import json
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.serving import NAME, Served, title, until
from tests.integration.training import DEADLINE

pytestmark = pytest.mark.slow

CONNECTIONS = int(os.environ.get("HEADWAY_CONNECTIONS", "10000"))
SPARE_FILES = 500
"""What this process and the replica need besides."""
MOST_BYTES = 64 * 1024
"""What a connection on which nothing happens may cost the replica."""
ASK: dict[str, Any] = {"model": NAME, "prompt": "a", "max_tokens": 2}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STALLED = {
    "nothing": b"",
    "half a line": b"POST /v1/comp",
    "half a head": HEAD,
    "half a body": HEAD + b'Content-Length: 100\r\n\r\n{"model"',
}
"""What is sent before a connection falls silent."""


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Served]:
    """One service, that computes two requests at a time and lets two wait; bodies have 64 MiB."""
    begun = Served(exported, "--streams", "2", "--queue", "2", "--body-mib", "1")
    try:
        begun.await_ready()
        yield begun
    finally:
        begun.clean_up()


def replica_of(served: Served) -> psutil.Process:
    """The process that listens."""
    [replica] = [member for member in served.members if "ServeReplica" in title(member)]
    return replica


def connect(served: Served) -> socket.socket:
    """A connection."""
    return socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE)


def ask(served: Served) -> httpx.Response:
    """A short request, on a connection of its own."""
    return httpx.post(f"http://127.0.0.1:{served.port}/v1/completions", json=ASK, timeout=DEADLINE)


def connections(replica: psutil.Process) -> int:
    """How many files it has open."""
    return replica.num_fds()


def test_idle_connections_cost_memory_and_nothing_else(served: Served) -> None:
    """Ten thousand, a part of each kind silent in the middle of a request: everybody else is answered."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(CONNECTIONS, hard - SPARE_FILES)
    replica = replica_of(served)
    assert replica.rlimit(psutil.RLIMIT_NOFILE)[0] == hard  # type: ignore[attr-defined, unused-ignore]
    ask(served).raise_for_status()
    files, memory = connections(replica), replica.memory_info().rss
    with ExitStack() as opened:
        for number in range(count):
            connection = opened.enter_context(connect(served))
            connection.sendall(list(STALLED.values())[number % len(STALLED)] if number % 10 == 0 else b"")
            if number % 500 == 0:
                ask(served).raise_for_status()
        until(lambda: connections(replica) >= files + count - 50, "not all are connected")
        for _ in range(50):
            ask(served).raise_for_status()
        each = (replica.memory_info().rss - memory) / count
        print(f"\n{count} connections: {each / 1024:.1f} KiB of the replica's memory each")  # noqa: T201 - the figure
        assert each < MOST_BYTES
    until(lambda: connections(replica) <= files + 50, "connections are left")
    ask(served).raise_for_status()


def test_who_is_silent_takes_no_place(served: Served) -> None:
    """As many as there are places and more, each silent somewhere in its request: all others are answered."""
    with ExitStack() as opened:
        for sent in STALLED.values():
            for _ in range(8):
                opened.enter_context(connect(served)).sendall(sent)
        for _ in range(10):
            ask(served).raise_for_status()


def test_half_sent_bodies_take_so_much_memory_and_no_more(served: Served) -> None:
    """Eight times as many as there is room for: the rest is told to come again, and short requests are answered."""
    replica, size = replica_of(served), 2**20 - 2**16
    ask(served).raise_for_status()
    memory = replica.memory_info().rss
    with ExitStack() as opened:
        sockets = [opened.enter_context(connect(served)) for _ in range(8 * 64)]
        for each in sockets:
            each.sendall(HEAD + f"Content-Length: {size + 1}\r\n\r\n".encode() + b" " * size)
        ask(served).raise_for_status()
        grown = replica.memory_info().rss - memory
        print(f"\n{len(sockets)} half-sent bodies: {grown / 2**20:.0f} MiB of the replica's memory")  # noqa: T201 - the figure
        assert grown < 300 * 2**20
        for each in sockets:
            each.sendall(b" ")
        answers = [each.recv(4096).decode() for each in sockets]
        heads = [answer.splitlines()[0].split()[1] for answer in answers]
        assert set(heads) <= {"400", "429"}
        assert heads.count("429") >= 6 * 64
        assert all("retry-after: 1" in answer.lower() for answer in answers if " 429 " in answer.splitlines()[0])
    ask(served).raise_for_status()


def test_who_never_reads_is_given_up(served: Served) -> None:
    """Streams that fill every place and all buffers, and that nobody reads: they end, and others are answered.

    While they wait, the replica's memory does not grow with what they were to be sent.
    """
    replica = replica_of(served)
    many = {
        "prompt": ["a " * 450] * 120,
        "stream": True,
        "echo": True,
        "logprobs": 20,
    }  # much to send, little to compute
    body = json.dumps(ASK | many).encode()
    memory = replica.memory_info().rss
    with ExitStack() as opened:
        for _ in range(2):
            reader = opened.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", served.port))
            reader.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: len(served.events("request.unread")) == 2, "a stream was not given up")
        ask(served).raise_for_status()
        grown = replica.memory_info().rss - memory
        print(f"\ntwo streams that nobody reads: {grown / 2**20:.1f} MiB of the replica's memory")  # noqa: T201 - the figure
        assert grown < 64 * 2**20
    ask(served).raise_for_status()
    assert served.stop() == 0
