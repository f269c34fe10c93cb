"""The control channel: real sockets, the service's end and the replicas' ends in one process."""

import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serve.replicas import config

from headway.errors import ServeError, UsageError
from headway.serve import runtime
from headway.serve.control_client import BUFFER_BYTES, SOCKET_VARIABLE, ControlClient, ControlLogStream
from headway.serve.control_messages import (
    MAX_MESSAGE_BYTES,
    Configuration,
    Deployed,
    Finished,
    LogText,
    StageDone,
    decode_from_replica,
    encode,
)
from headway.serve.middleware.request_id import RequestId
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.stack import middleware_stack
from headway.serve.process import control_server
from headway.serve.process.control_server import MAX_REPLICAS, MAX_STAGES, ControlServer

SECONDS = 60
"""A bound for hangs."""
CONFIGURATION = Configuration(config(), terminal=True)


class Channel:
    """A control server, and everything that it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.server = ControlServer(path, CONFIGURATION, self._write)
        self.blocked = False
        """Whether no text is taken."""
        self.refused: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_closed = False

    def _write(self, text: str) -> bool:
        (self.refused if self.blocked else self.texts).put(text)
        return not self.blocked

    def connect(self) -> ControlClient:
        """A replica that has got its configuration."""
        return ControlClient(self.path)

    def read(self, end: str) -> str:
        """Everything written up to a text that ends so."""
        text = ""
        while not text.endswith(end):
            text += self.texts.get(timeout=SECONDS)
        return text

    def close(self) -> str:
        """Close the server; returns what it wrote last."""
        if not self.is_closed:
            self.is_closed = True
            self.server.close()
        text = ""
        while not self.texts.empty():
            text += self.texts.get()
        return text


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    """A service's end of a channel."""
    channel = Channel(tmp_path / "control")
    yield channel
    channel.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[ControlClient, socket.socket]]:
    """A replica, and the other end of its connection, which nobody reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        accepted: list[socket.socket] = []

        def accept() -> None:
            accepted.append(listener.accept()[0])
            accepted[0].send(encode(CONFIGURATION))

        thread = threading.Thread(target=accept)
        thread.start()
        client = ControlClient(tmp_path / "silent")
        thread.join()
        yield client, accepted[0]
        client.close()
        accepted[0].close()


def received(connection: socket.socket) -> list[LogText]:
    """All lines that are in a connection."""
    lines = []
    while select.select([connection], [], [], 0)[0]:
        message = decode_from_replica(connection.recv(MAX_MESSAGE_BYTES))
        assert isinstance(message, LogText)
        lines.append(message)
    return lines


def test_a_replica_gets_the_configuration_when_it_connects(channel: Channel) -> None:
    """Also the second of a service."""
    for client in (channel.connect(), channel.connect()):
        assert client.configuration == CONFIGURATION


def test_ray_serve_gets_the_middleware_of_the_connected_process(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an environment variable leads to the configuration; the innermost comes first."""
    monkeypatch.setenv(SOCKET_VARIABLE, str(channel.path))
    lost = threading.Event()
    monkeypatch.setattr(runtime, "end_process", lost.set)
    runtime.replica_runtime.cache_clear()
    classes: list[Any] = [each.cls for each in middleware_stack()]
    assert (classes[0], classes[-1]) == (ServeBypass, RequestId)
    assert runtime.replica_runtime().config == CONFIGURATION.config
    channel.server.drain()
    assert channel.server.drained.wait(SECONDS)
    assert runtime.replica_runtime().draining
    runtime.replica_runtime.cache_clear()
    channel.close()
    assert lost.wait(SECONDS)


def test_lines_of_all_replicas_arrive_whole_and_in_order(channel: Channel) -> None:
    """What was sent before the end of a replica or of the channel arrives, too."""
    streams = [ControlLogStream(channel.connect()) for _ in range(2)]
    for number in range(100):
        for name, stream in enumerate(streams):
            stream.write(f"{name} {number}\n")
    lines = channel.close().splitlines()
    for name in range(2):
        assert [line for line in lines if line.startswith(f"{name} ")] == [f"{name} {n}" for n in range(100)]


@pytest.mark.parametrize("length", [100, 1000, 10_000, 100_000])
def test_a_full_buffer_drops_whole_lines_and_reports_how_many(
    silent: tuple[ControlClient, socket.socket], length: int
) -> None:
    """A service that does not read costs lines, and no request waits for it."""
    client, connection = silent
    stream, count = ControlLogStream(client), 3 * BUFFER_BYTES // length
    for number in range(count):
        stream.write(f"{number:0{length - 1}}\n")
    lines = received(connection)
    assert 0 < len(lines) < count
    assert {len(line.text) for line in lines} == {length}
    assert [int(line.text[-20:]) for line in lines] == list(range(len(lines)))
    stream.write("last\n")
    assert received(connection) == [LogText("last\n", dropped=count - len(lines))]


def connection_of(client: ControlClient) -> socket.socket:
    """The socket of a replica."""
    return client._socket  # noqa: SLF001 - to see when it is full


@pytest.mark.parametrize("line", ["x" * MAX_MESSAGE_BYTES, "\ud800\n"], ids=["too long", "no Unicode"])
def test_a_line_that_cannot_be_sent_is_dropped(channel: Channel, line: str) -> None:
    """The next one says so."""
    stream = ControlLogStream(channel.connect())
    stream.write(line)
    for _ in range(2):
        stream.write("next\n")
    assert channel.close() == "headway: 1 lines of the log were dropped\nnext\nnext\n"


def test_lines_that_cannot_be_written_are_counted(channel: Channel) -> None:
    """Standard error may be blocked for a while."""
    stream, channel.blocked = ControlLogStream(channel.connect()), True
    for _ in range(3):
        stream.write("lost\n")
        while "lost" not in channel.refused.get(timeout=SECONDS):
            pass
    channel.blocked = False
    assert channel.read("\n") == "headway: 3 lines of the log were dropped\n"


def test_stages_of_a_start_are_known_at_once(channel: Channel) -> None:
    """A replica that starts again replaces them."""
    for seconds in (1.0, 2.0):
        client = channel.connect()
        assert client.send(StageDone("imports", seconds))
        ControlLogStream(client).write("done\n")
        channel.read("done\n")
        assert channel.server.stages == {"imports": seconds}


def test_a_replica_finishes_when_no_request_is_in_flight(channel: Channel) -> None:
    """The service waits for all of them; each has closed its server by then."""
    busy, idle = channel.connect(), channel.connect()
    in_flight, drained, finished = [2], [threading.Event(), threading.Event()], threading.Event()
    busy.follow(drained[0].set, lambda: in_flight[0], finish=finished.set)
    idle.follow(drained[1].set, lambda: 0)
    channel.server.drain()
    assert all(event.wait(SECONDS) for event in drained)
    for count in (2, 1):
        in_flight[0] = count
        ControlLogStream(busy).write("mark\n")
        channel.read("mark\n")
        assert not channel.server.drained.is_set()
        assert not finished.is_set()
    in_flight[0] = 0
    assert channel.server.drained.wait(SECONDS)
    assert finished.is_set()


def test_the_end_of_a_replica_is_noticed(channel: Channel) -> None:
    """Unless it has finished. Ray Serve's proxy, which takes no part in the start, may come and go."""
    proxy, finished, replica = channel.connect(), channel.connect(), channel.connect()
    for client in (finished, replica):
        assert client.send(StageDone("imports", 1.0))
    assert finished.send(Finished())
    for client in (proxy, finished):
        client.close()
    ControlLogStream(replica).write("mark\n")
    channel.read("mark\n")
    assert not channel.server.lost.is_set()
    replica.close()
    assert channel.server.lost.wait(SECONDS)


@pytest.mark.parametrize("failure", [None, "no model", "\u2028" * 10_000])
def test_a_node_reports_whether_the_replica_has_started(channel: Channel, failure: str | None) -> None:
    """With the replica's own words."""
    assert channel.connect().send(Deployed(failure))
    until(lambda: channel.server.deployed is not None)
    assert channel.server.deployed == Deployed(failure)


def test_a_replica_that_reports_nothing_is_waited_for(channel: Channel) -> None:
    """It may have requests in flight, until it has ended."""
    client = channel.connect()
    channel.server.drain()
    ControlLogStream(client).write("mark\n")
    channel.read("mark\n")
    assert not channel.server.drained.is_set()
    client.close()
    assert channel.server.drained.wait(SECONDS)


def test_a_replica_that_connects_to_a_draining_service_drains(channel: Channel) -> None:
    """It may have been starting when the service was asked to stop."""
    channel.server.drain()
    assert channel.server.drained.wait(SECONDS)
    drained = threading.Event()
    channel.connect().follow(drained.set, lambda: 1)
    assert drained.wait(SECONDS)
    ControlLogStream(channel.connect()).write("mark\n")
    channel.read("mark\n")
    assert not channel.server.drained.is_set()


def test_what_a_replica_sent_before_its_end_is_written(channel: Channel) -> None:
    """Even if it did not read all that it was sent."""
    client = channel.connect()
    channel.server.drain()
    assert select.select([connection_of(client)], [], [], SECONDS)[0]
    ControlLogStream(client).write("last\n")
    client.close()
    assert channel.read("last\n") == "last\n"
    assert channel.server.drained.wait(SECONDS)


@pytest.mark.parametrize(
    "packet",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"kind":"unknown"}',
        b'{"kind":"drain"}',
        b'{"kind":"deployed","failure":1}',
        b'{"kind":"log_text","text":"","dropped":-1}',
        b'{"kind":"log_text","text":"","dropped":9223372036854775808}',
        b'{"kind":"log_text","text":"","dropped":' + b"9" * 4000 + b"}",
        b'{"kind":"stage_done","stage":"x","seconds":NaN}',
        b'{"kind":"stage_done","stage":"' + b"x" * 65 + b'","seconds":1}',
        b'{"kind":"log_text","text":"' + b"x" * MAX_MESSAGE_BYTES + b'"}',
    ],
    ids=lambda packet: packet[:30].decode(errors="replace"),
)
def test_a_malformed_message_is_dropped_and_counted(channel: Channel, packet: bytes) -> None:
    """The replica's next message is read as ever."""
    client = channel.connect()
    connection_of(client).send(packet)
    ControlLogStream(client).write("next\n")
    assert channel.read("next\n") == "headway: 1 lines of the log were dropped\nnext\n"
    assert channel.server.stages == {}


def test_a_replica_that_sends_an_empty_packet_is_disconnected(channel: Channel) -> None:
    """It cannot be told from one that has ended."""
    client = channel.connect()
    connection_of(client).send(b"")
    assert select.select([connection_of(client)], [], [], SECONDS)[0]
    assert connection_of(client).recv(1) == b""
    assert not client.send(Finished())


def test_stages_and_replicas_are_bounded(channel: Channel) -> None:
    """The first ones stay."""
    clients = [channel.connect() for _ in range(MAX_REPLICAS)]
    with pytest.raises(ServeError, match="sent no configuration"):
        channel.connect()
    for number in range(MAX_STAGES + 1):
        clients[0].send(StageDone(str(number), 1.0))
    ControlLogStream(clients[0]).write("mark\n")
    channel.read("mark\n")
    assert list(channel.server.stages) == [str(number) for number in range(MAX_STAGES)]
    clients.pop().close()
    clients[0].send(StageDone("0", 2.0))
    until(lambda: channel.server.stages["0"] == 2.0)
    assert channel.connect()


def until(condition: Callable[[], bool]) -> None:
    """Return once the condition is true."""
    pause = threading.Event()
    for _ in range(SECONDS * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition is never true")


@pytest.mark.parametrize(("name", "limit"), [("MAX_READ_MESSAGES", 5), ("MAX_READ_CHARACTERS", 10)])
def test_one_replica_cannot_keep_the_service_reading(tmp_path: Path, name: str, limit: int) -> None:
    """A read takes so much of each; the rest waits for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_server, name, limit)
        channel = Channel(tmp_path / "control")
        packet = encode(LogText("a\n"))
        client = channel.connect()
        for _ in range(100):
            connection_of(client).send(packet)
        pieces: list[str] = []
        while sum(map(len, pieces)) < 200:
            pieces.append(channel.texts.get(timeout=SECONDS))
        assert max(map(len, pieces)) <= 10
        channel.close()


def test_only_the_owner_may_connect(channel: Channel) -> None:
    """The folder of a service is its owner's, too."""
    assert channel.path.stat().st_mode & 0o777 == 0o600


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """The message says what to do."""
    folder = tmp_path / ("x" * 108)
    folder.mkdir()
    with pytest.raises(UsageError, match="TMPDIR"):
        ControlServer(folder / "control", CONFIGURATION, lambda _: True)


def test_a_replica_notices_the_end_of_its_service(channel: Channel) -> None:
    """Its thread ends; no other can connect."""
    client, drained, lost = channel.connect(), threading.Event(), threading.Event()
    client.follow(drained.set, lambda: 0, on_lost=lost.set)
    channel.close()
    channel.path.unlink()
    assert lost.wait(SECONDS)
    until(lambda: not any(thread.name == "control" for thread in threading.enumerate()))
    assert not client.send(Finished())
    assert not drained.is_set()
    with pytest.raises(ServeError, match="does not respond"):
        channel.connect()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_replica_notices_that_its_service_was_killed(silent: tuple[ControlClient, socket.socket]) -> None:
    """The service had not read its last line."""
    client, connection = silent
    lost = threading.Event()
    client.follow(lambda: None, lambda: 0, on_lost=lost.set)
    ControlLogStream(client).write("unread\n")
    connection.close()
    assert lost.wait(SECONDS)
    assert not client.send(Finished())
