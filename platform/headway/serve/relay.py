"""What replicas log, on the standard error of the service: they write to a FIFO, a thread here reads it."""

import fcntl
import os
import select
import sys
import threading
from pathlib import Path

CAPACITY = 2**20
"""What replicas may be ahead of the reader [bytes]."""
POLL_SECONDS = 0.2


class Relay:
    """A FIFO, and the thread that reads it until it is closed."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._file = os.open(path, os.O_RDWR)  # also for writing: replicas come and go, and it does not end with them
        fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, CAPACITY)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is left, and end; whoever does not read standard error is not waited for long."""
        self._closing.set()
        self._thread.join(POLL_SECONDS * 5)

    def _run(self) -> None:
        while (ready := select.select([self._file], [], [], POLL_SECONDS)[0]) or not self._closing.is_set():
            if ready:
                sys.stderr.write(os.read(self._file, CAPACITY).decode(errors="replace"))
                sys.stderr.flush()
        os.close(self._file)
