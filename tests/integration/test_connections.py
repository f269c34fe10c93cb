"""Clients that hold on to what they have: idle connections, half a request, an answer that is never read.

HEADWAY_CONNECTIONS sets how many connections are opened.
"""

import json
import os
import resource
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import pytest

from tests.integration.serving import ASK, STREAMS, Limited, title
from tests.integration.training import DEADLINE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("limits")]

CONNECTIONS = int(os.environ.get("HEADWAY_CONNECTIONS", "10000"))
SPARE_FILES = 500
"""What this process and the replica need besides."""
MOST_BYTES = 64 * 1024
"""What a connection on which nothing happens may cost the replica."""


@dataclass(frozen=True)
class Target:
    """The service that clients hold on to, and the process of it that listens."""

    limited: Limited
    replica: psutil.Process

    @property
    def head(self) -> bytes:
        """The head of a request, but for its length and its end."""
        lines = ["POST /v1/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
        return "\r\n".join([*lines, f"Authorization: Bearer {self.limited.tenants.key['free']}", ""]).encode()

    @property
    def stalled(self) -> list[bytes]:
        """What is sent before a connection falls silent: nothing, half a line, half a head, half a body."""
        return [b"", b"POST /v1/comp", self.head, self.head + b'Content-Length: 100\r\n\r\n{"model"']

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.limited.served.port), timeout=DEADLINE)

    def ask(self) -> None:
        """A short request, on a connection of its own; it is answered."""
        self.limited.post(json=ASK).raise_for_status()


@pytest.fixture
def target(limited: Limited) -> Target:
    """The limited service."""
    [replica] = [member for member in limited.served.members if "ServeReplica" in title(member)]
    return Target(limited, replica)


def connections(replica: psutil.Process) -> int:
    """How many files it has open."""
    return replica.num_fds()


def test_idle_connections_cost_memory_and_nothing_else(target: Target) -> None:
    """Ten thousand, a part of each kind silent in the middle of a request: everybody else is answered."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, stalled = min(CONNECTIONS, hard - SPARE_FILES), target.stalled
    replica = target.replica
    assert replica.rlimit(psutil.RLIMIT_NOFILE)[0] == hard  # type: ignore[attr-defined, unused-ignore]
    target.ask()
    files, memory = connections(replica), replica.memory_info().rss
    with ExitStack() as opened:
        for number in range(count):
            connection = opened.enter_context(target.connect())
            connection.sendall(stalled[number % len(stalled)] if number % 10 == 0 else b"")
            if number % 500 == 0:
                target.ask()
        until(lambda: connections(replica) >= files + count - 50, "not all are connected")
        for _ in range(50):
            target.ask()
        each = (replica.memory_info().rss - memory) / count
        print(f"\n{count} connections: {each / 1024:.1f} KiB of the replica's memory each")  # noqa: T201 - the figure
        assert each < MOST_BYTES
    until(lambda: connections(replica) <= files + 50, "connections are left")
    target.ask()


def test_who_is_silent_takes_no_place(target: Target) -> None:
    """As many as there are places and more, each silent somewhere in its request: all others are answered."""
    with ExitStack() as opened:
        for sent in target.stalled:
            for _ in range(8):
                opened.enter_context(target.connect()).sendall(sent)
        for _ in range(10):
            target.ask()


def test_half_sent_bodies_take_so_much_memory_and_no_more(target: Target) -> None:
    """Eight times as many as there is room for: the rest is told to come again, and short requests are answered."""
    replica, size = target.replica, 2**20 - 2**16
    target.ask()
    memory = replica.memory_info().rss
    with ExitStack() as opened:
        sockets = [opened.enter_context(target.connect()) for _ in range(8 * 64)]
        for each in sockets:
            each.sendall(target.head + f"Content-Length: {size + 1}\r\n\r\n".encode() + b" " * size)
        target.ask()
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
    target.ask()


def test_who_never_reads_is_given_up(target: Target) -> None:
    """Streams that fill every place and all buffers, and that nobody reads: they end, and others are answered.

    While they wait, the replica's memory does not grow with what they were to be sent.
    """
    served, replica = target.limited.served, target.replica
    many = {
        "prompt": ["a " * 450] * 120,
        "stream": True,
        "echo": True,
        "logprobs": 3,
    }  # much to send, little to compute
    body = json.dumps(ASK | many).encode()
    memory, before = replica.memory_info().rss, len(served.events("request.unread"))
    with ExitStack() as opened:
        for _ in range(STREAMS):
            reader = opened.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", served.port))
            reader.sendall(target.head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: len(served.events("request.unread")) == before + STREAMS, "a stream was not given up")
        target.ask()
        grown = replica.memory_info().rss - memory
        print(f"\ntwo streams that nobody reads: {grown / 2**20:.1f} MiB of the replica's memory")  # noqa: T201 - the figure
        assert grown < 64 * 2**20
    target.ask()
