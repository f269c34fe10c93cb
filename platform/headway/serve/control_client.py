"""Control client: a replica's or a node's end of the control channel, a Unix-domain socket that keeps messages apart.

Sending never waits: a message that does not fit into the socket's buffer is dropped whole.
"""

import io
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from headway.errors import ServeError
from headway.serve.control_messages import (
    MAX_MESSAGE_BYTES,
    Configuration,
    Finished,
    FromReplica,
    FromService,
    LogText,
    decode_from_service,
    encode,
)

SOCKET_VARIABLE = "HEADWAY_CONTROL_SOCKET"
"""Environment variable: path of the service's socket. Ray Serve builds the middleware without arguments."""
BUFFER_BYTES = 2**20
"""How far a replica may be ahead of the service [bytes]; the kernel may allow less."""
CONNECT_SECONDS = 30.0
"""How long the service may take to send the configuration [s]."""
POLL_SECONDS = 0.05
"""Interval between looks at the number of requests in flight while the replica drains [s]."""


class ControlClient:
    """A connection to the service, which has sent the configuration."""

    def __init__(self, path: Path) -> None:
        """Connect to the socket at `path`, and wait for the configuration.

        Raises:
            ServeError: no service responds there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._socket.settimeout(CONNECT_SECONDS)
        try:
            self._socket.connect(str(path))
            message = self._receive()
        except OSError as error:
            raise ServeError(f"the service does not respond at {path}: {error}") from error
        if not isinstance(message, Configuration):
            raise ServeError(f"the service at {path} sent no configuration")
        self.configuration = message
        self._socket.settimeout(0)

    @classmethod
    def from_environment(cls) -> Self:
        """Connect to the service that started this process.

        Raises:
            ServeError: it does not respond.
        """
        return cls(Path(os.environ[SOCKET_VARIABLE]))

    def send(self, message: FromReplica) -> bool:
        """Send a message now, or drop it; returns whether it was sent."""
        try:
            packet = encode(message)
            if len(packet) > MAX_MESSAGE_BYTES:
                return False
            self._socket.send(packet)
        except (OSError, ValueError):  # the buffer is full, the service has ended, or the text is no Unicode
            return False
        return True

    def follow(
        self,
        on_drain: Callable[[], None],
        in_flight: Callable[[], int],
        *,
        finish: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait for `Drain` in a thread: it calls `on_drain`, and `finish` once `in_flight` is 0; then it reports that.

        A request must be counted in `in_flight` before it checks whether `on_drain` was called: then none is missed.
        `on_lost` is called when the service has ended.
        """
        follower = (on_drain, in_flight, finish, on_lost)
        threading.Thread(target=self._run, args=follower, name="control", daemon=True).start()

    def close(self) -> None:
        """Disconnect; the service keeps what was sent."""
        self._socket.close()

    def _run(
        self,
        on_drain: Callable[[], None],
        in_flight: Callable[[], int],
        finish: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        is_draining = is_finished = False
        while True:
            if poller.poll(POLL_SECONDS * 1000 if is_draining and not is_finished else None):
                if self._receive() is None:
                    on_lost()
                    return
                on_drain()
                is_draining = True
            if is_draining and not is_finished and in_flight() == 0:
                finish()
                is_finished = self.send(Finished())

    def _receive(self) -> FromService | None:
        """The next message; None if the service has ended."""
        try:
            packet = self._socket.recv(MAX_MESSAGE_BYTES)
        except ConnectionError:
            return None
        return decode_from_service(packet) if packet else None


class ControlLogStream(io.TextIOBase):
    """The stream of a replica's log: each line goes to the service, or is dropped whole."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._dropped = 0
        """Lines dropped since the last one that was sent; the next one reports them."""

    def write(self, text: str) -> int:
        """Write a line."""
        with self._lock:
            sent = self._client.send(LogText(text, self._dropped))
            self._dropped = 0 if sent else self._dropped + 1
        return len(text)
