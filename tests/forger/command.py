"""Runs a command of Headway, in this process or as one of its own, and tells what it took."""

import io
import json
import re
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from headway.cli import main

LIMIT_SECONDS = 60.0
"""After which a command counts as one that hangs [s]."""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys."""


class Hang(BaseException):
    """A command has run into its limit."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    failure: str = ""
    """Its traceback, or that it hung."""
    bytes_read: int = 0
    reads: int = 0
    memory: int = 0
    """Most memory of a command in a process of its own [bytes]."""

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)

    def faults(self) -> Iterator[str]:
        """What no command may do, whatever the store is."""
        if self.failure:
            yield self.failure
        if "Traceback" in self.err:
            yield f"a traceback:\n{self.err}"
        if self.code not in {0, 1, 2}:
            yield f"exit code {self.code}:\n{self.err}"
        if found := RAW.search(self.out + self.err):
            yield f"a raw control character {found[0]!r} in its output"
        if "--json" in self.words and (self.code == 0 or self.out):
            yield from self._json_faults()

    def _json_faults(self) -> Iterator[str]:
        """JSON that another parser refuses."""
        texts = self.out.splitlines() if self.words[0] == "logs" else [self.out]
        for text in texts:
            try:
                json.loads(text, parse_constant=_refuse)
            except ValueError as error:
                yield f"no JSON: {error}: {text:.200}"


def in_process(words: Sequence[str]) -> Outcome:
    """Run a command here."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    code, failure = 0, ""
    read, calls = _reads()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with deadline():
                main(list(words))
        except SystemExit as exit_request:
            code = int(exit_request.code or 0)
        except BaseException:
            failure = traceback.format_exc(limit=-6)
    read_after, calls_after = _reads()
    return Outcome(tuple(words), code, _text(out), _text(err), failure, read_after - read, calls_after - calls)


def as_process(words: Sequence[str]) -> Outcome:
    """Run a command as users do."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headway.cli", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate(timeout=LIMIT_SECONDS)
        return Outcome(tuple(words), -1, out.decode(), err.decode(), "it hung")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    return Outcome(tuple(words), process.returncode, out.decode(), err.decode(), memory=memory)


@contextmanager
def deadline() -> Iterator[None]:
    """Raises `Hang` in this thread after the limit. SIGALRM belongs to pytest-timeout."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGUSR1, stop)
    thread = threading.main_thread().ident
    assert thread
    timer = threading.Timer(LIMIT_SECONDS, signal.pthread_kill, (thread, signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def _reads() -> tuple[int, int]:
    """The bytes that this process has read, and in how many calls."""
    with open("/proc/self/io", encoding="ascii") as file:  # noqa: PTH123 - it is no file of anybody's
        fields = dict(line.split(": ") for line in file)
    return int(fields["rchar"]), int(fields["syscr"])


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
