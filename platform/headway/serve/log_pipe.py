"""What replicas log, on the standard error of the service: they write to a FIFO, of which a thread here reads.

What the service does not read in time is dropped: requests wait for nobody who reads about them.
"""

import fcntl
import io
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

CAPACITY = 2**20
"""What replicas may be ahead of the reader [bytes]."""
PAUSE_SECONDS = 0.05
"""Between two looks: a reader who waited for each line would be woken by each, which takes longer than to write it."""
CLOSE_SECONDS = 1.0


class LogPipe:
    """A FIFO, and the thread that reads it until it is closed."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for writing, too: it does not end with a replica
        fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, CAPACITY)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is left, and end; whoever does not read standard error is not waited for long."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(PAUSE_SECONDS)
            with suppress(BlockingIOError):
                while True:
                    sys.stderr.write(os.read(self._file, CAPACITY).decode(errors="replace"))
                    sys.stderr.flush()
        os.close(self._file)


class LogPipeWriter(io.TextIOBase):
    """A replica's end of the FIFO."""

    def __init__(self, fifo: Path) -> None:
        self._file = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._left = b""
        """Of a line for which there was not room enough; it goes before the next."""
        self.dropped = 0
        """Lines that were not read in time."""

    def write(self, text: str) -> int:
        """Hand over a line or drop it, never a part of it."""
        with self._lock:
            if self._left:
                self._push()
            if self._left:
                self.dropped += 1
            else:
                self._left = text.encode()
                self._push()
        return len(text)

    def _push(self) -> None:
        with suppress(BlockingIOError):
            self._left = self._left[os.write(self._file, self._left) :]
