"""Control server: the service's end of the control channel, to which its node and all processes of replicas connect.

Who connects gets the configuration, and `Drain` if the service is stopping. Messages of replicas are read
every `READ_SECONDS`: to be woken by each line of their log would cost more than the line.
"""

import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from headway.errors import UsageError
from headway.serve.control_messages import (
    MAX_MESSAGE_BYTES,
    Configuration,
    Deployed,
    Drain,
    Finished,
    FromService,
    LogText,
    StageDone,
    decode_from_replica,
    encode,
)

READ_SECONDS = 0.05
"""Interval between reads of the replicas' messages [s]."""
MAX_REPLICAS = 16
"""Most connections at a time; Ray Serve's own proxy has one, too."""
MAX_STAGES = 32
"""Most stages of a start."""
MAX_READ_MESSAGES, MAX_READ_CHARACTERS = 10_000, 2**20
"""Most messages of a replica, and most text of its log, in one read."""


class ReplicaConnection:
    """One process of a replica, as the service sees it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self.is_open = True
        """Whether the other end is there, as far as is known."""
        self.is_draining = False
        """Whether it was told to drain."""
        self.is_finished = False
        """Whether all its requests are complete, after it was told to drain."""
        self.is_essential = False
        """Whether it has reported a stage of the start: the service cannot go on without it."""

    def send(self, message: FromService) -> None:
        """Send a message; a replica that takes none has ended."""
        try:
            self.connection.send(encode(message))
        except OSError:
            self.is_open = False

    def receive(self) -> bytes | None:
        """The next packet; None if there is none now."""
        try:
            packet = self.connection.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # it ended with a message unread, and is read on: the error is reported once
            return self.receive()
        self.is_open = packet != b""
        return packet or None


class ControlServer:
    """Tells replicas what to do, and gathers what they report."""

    def __init__(self, path: Path, configuration: Configuration, write_log: Callable[[str], int]) -> None:
        """Listen at `path`. `write_log` gets the text of the log; it must not wait, and returns 0 if it drops it.

        Raises:
            UsageError: the path is too long for a socket.
        """
        self._configuration, self._write_log = configuration, write_log
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            raise UsageError(
                f"{path} cannot be a socket ({error}); set TMPDIR to a folder with a short path"
            ) from error
        path.chmod(0o600)
        self._listener.listen(MAX_REPLICAS)
        self._listener.settimeout(0)
        self._replicas: list[ReplicaConnection] = []
        self.stages: dict[str, float] = {}
        """Seconds of each stage of the replica's start so far."""
        self.drained = threading.Event()
        """Set while all have been told to drain and have finished."""
        self.lost = threading.Event()
        """Set once a process has ended without which the service cannot go on."""
        self.deployed: Deployed | None = None
        """Whether the replica has started, as the node reports it; None: it is starting."""
        self._dropped = 0
        """Lines and malformed messages that were dropped and are not reported yet."""
        self._draining = self._closing = False
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Tell all replicas, also those that connect later, to refuse new requests."""
        self._draining = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Read what the replicas have sent, and stop."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for each in (self._listener, *(replica.connection for replica in self._replicas)):
            each.close()
        os.close(self._wake)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        closing = False
        while not closing:
            if (self._wake, select.POLLIN) in poller.poll(READ_SECONDS * 1000):
                os.eventfd_read(self._wake)
            closing, draining = self._closing, self._draining
            self._accept()
            for replica in self._replicas:
                if draining and not replica.is_draining:
                    replica.send(Drain())
                    replica.is_draining = True
            self._read()
            drained = draining and all(replica.is_finished for replica in self._replicas)
            (self.drained.set if drained else self.drained.clear)()

    def _accept(self) -> None:
        """Accept the replicas that connect now, and send each the configuration."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # there is none, or it has gone again
                return
            if len(self._replicas) == MAX_REPLICAS:
                connection.close()
                continue
            replica = ReplicaConnection(connection)
            replica.send(self._configuration)
            self._replicas.append(replica)

    def _read(self) -> None:
        """Read what the replicas have sent, write their log, and forget those that have ended."""
        texts: list[str] = []
        for replica in self._replicas:
            self._read_replica(replica, texts)
        note = f"headway: {self._dropped} lines of the log were dropped\n" if self._dropped else ""
        if text := note + "".join(texts):
            self._dropped = 0 if self._write_log(text) else self._dropped + len(texts)
        for replica in self._replicas:
            if not replica.is_open:
                replica.connection.close()
                if replica.is_essential and not replica.is_finished:
                    self.lost.set()
        self._replicas = [replica for replica in self._replicas if replica.is_open]

    def _read_replica(self, replica: ReplicaConnection, texts: list[str]) -> None:
        """Read what one replica has sent, within bounds; append its log to `texts`."""
        characters = 0
        for _ in range(MAX_READ_MESSAGES):
            packet = replica.receive()
            if packet is None:
                return
            try:
                message = decode_from_replica(packet)
            except ValueError:
                self._dropped += 1
                continue
            match message:
                case LogText(text, dropped):
                    texts.append(text)
                    self._dropped += dropped
                    characters += len(text)
                case StageDone(stage, seconds):
                    replica.is_essential = True
                    if stage in self.stages or len(self.stages) < MAX_STAGES:
                        self.stages = {**self.stages, stage: seconds}
                case Deployed():
                    self.deployed = message
                case Finished():
                    replica.is_finished = True
            if characters >= MAX_READ_CHARACTERS:
                return
