"""Log pipe: replicas write their log to a FIFO, and a thread of the service copies it to standard error.

Lines that the service does not read in time are dropped, so logging never blocks a request.
"""

import fcntl
import io
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

CAPACITY_BYTES = 2**20
"""How far replicas may be ahead of the reader [bytes]."""
POLL_SECONDS = 0.05
"""Interval between two reads [s]. A blocking read would wake the thread for each line, which costs too much."""
CLOSE_SECONDS = 1.0
"""How long `close` waits for the thread [s]."""


class LogPipe:
    """The service's end: the FIFO, and the thread that reads it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        # Open for writing too: otherwise a read would see the end of the file when a replica ends.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, CAPACITY_BYTES)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy the rest and stop. Gives up after `CLOSE_SECONDS` if standard error is blocked."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(POLL_SECONDS)
            with suppress(BlockingIOError):
                while True:
                    sys.stderr.write(os.read(self._descriptor, CAPACITY_BYTES).decode(errors="replace"))
                    sys.stderr.flush()
        os.close(self._descriptor)


class LogPipeWriter(io.TextIOBase):
    """A replica's end of the FIFO."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._pending = b""
        """Rest of a line that did not fit; it is written before the next line."""
        self.dropped_lines = 0
        """Lines dropped because the FIFO was full."""

    def write(self, text: str) -> int:
        """Write a line, or drop it whole."""
        with self._lock:
            if self._pending:
                self._write_pending()
            if self._pending:
                self.dropped_lines += 1
            else:
                self._pending = text.encode()
                self._write_pending()
        return len(text)

    def _write_pending(self) -> None:
        with suppress(BlockingIOError):
            self._pending = self._pending[os.write(self._descriptor, self._pending) :]
