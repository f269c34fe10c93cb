"""Standard output and error of work that goes on whatever happens to them.

A terminal may be stopped (Ctrl-S) or gone, a disk full, and the reader of a pipe asleep. Then text is lost, and nothing
else: what matters is in the run store.
"""

import atexit
import io
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

CAPACITY_CHARACTERS = 2**20
"""How far a stream may be behind [characters]; more text is dropped."""
PATIENCE_SECONDS = 1.0
"""How long all flushes of a stream may wait together [s], where they may wait at all."""


class OutputStream(io.TextIOBase):
    """A text stream that a thread writes to a file. `write` neither waits nor raises an error of the file.

    A process that is forked from this one has an empty stream to the same file.
    """

    def __init__(self, stream: TextIO, *, patience: float) -> None:
        """Write to the file of `stream`. `patience`: how long all flushes may wait together [s]."""
        self._descriptor, self._encoding, self._terminal = stream.fileno(), stream.encoding, stream.isatty()
        self._patience = patience
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._texts: list[str] = []
        """Texts that the thread has not taken yet."""
        self._waiting = 0
        """Characters that are not written yet."""
        self._running = False
        """Whether the thread of this process has started."""

    def write(self, text: str) -> int:
        """Write `text` soon, and return its length; 0 if it is dropped, because too much text waits already."""
        if not isinstance(text, str):
            raise TypeError(f"text is a str, not {type(text).__name__}")
        with self._changed:
            if self._waiting and self._waiting + len(text) > CAPACITY_CHARACTERS:
                return 0
            if not self._running:
                try:
                    threading.Thread(target=self._run, name="output", daemon=True).start()
                except RuntimeError:  # no more threads, or the interpreter ends
                    return 0
                self._running = True
            self._texts.append(text)
            self._waiting += len(text)
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Wait until all text is written, or patience is over."""
        begin = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, self._patience)
        self._patience = max(0.0, self._patience - (time.monotonic() - begin))

    def finish(self) -> None:
        """The process is about to end: flush, and let later flushes wait too."""
        self._patience = PATIENCE_SECONDS
        self.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the file; what it lacks is written as its escape in Python."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What is done with characters that the encoding lacks."""
        return "backslashreplace"

    def fileno(self) -> int:
        """File descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the file was a terminal when the stream was opened."""
        return self._terminal

    def writable(self) -> bool:
        """Always."""
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts)
                text = "".join(self._texts)
                self._texts.clear()
            with suppress(OSError):  # the disk is full, or whoever read it has gone
                self._write_all(text.encode(self._encoding, "backslashreplace"))
            with self._changed:
                self._waiting -= len(text)
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that shares the file has set O_NONBLOCK
                select.select([], [self._descriptor], [])


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error.

    Without this, the next file that is opened would become standard output.
    """
    for descriptor, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def protect_messages() -> None:
    """Make standard error a stream that fails no command, and holds it up for a moment at most.

    Standard output escapes the characters that its encoding lacks.
    """
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        with suppress(OSError):  # a terminal that has gone; it is noticed when there is a result
            sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = OutputStream(sys.stderr, patience=PATIENCE_SECONDS)
    atexit.register(finish_output)


def protect_work() -> None:
    """Make standard output and error streams that neither fail nor hold up the work of this process."""
    open_standard_streams()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal with `stty tostop` stops who prints in the background
    sys.stdout, sys.stderr = (OutputStream(stream, patience=0.0) for stream in (sys.stdout, sys.stderr))
    atexit.register(finish_output)


def finish_output() -> None:
    """Write what is still to be written, before the process ends."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, OutputStream):
            stream.finish()
        else:
            stream.flush()
