"""Streams of output whose file may be blocked, full, closed or without Unicode."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.output_stream import CAPACITY_CHARACTERS, OutputStream

PIECE = "x" * (CAPACITY_CHARACTERS // 4)


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.TextIOWrapper]]:
    """A pipe: its reader, and its writer."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", encoding="utf-8") as writer:
        yield reader, writer


def test_all_text_is_written_in_order_by_the_end(tmp_path: Path) -> None:
    """However long it is."""
    path = tmp_path / "output"
    texts = [*(f"{number}\n" for number in range(1000)), "x" * (CAPACITY_CHARACTERS + 1)]
    with path.open("w") as file:
        stream = OutputStream(file, patience=0.0)
        for text in texts[:-1]:
            assert stream.write(text) == len(text)
        stream.finish()
        assert stream.write(texts[-1])
        stream.flush()
    assert path.read_text() == "".join(texts)


def test_a_blocked_file_costs_text_and_no_time(pipe: tuple[io.BufferedReader, io.TextIOWrapper]) -> None:
    """What waits is bounded; once it is read, the stream goes on."""
    reader, writer = pipe
    stream, accepted = OutputStream(writer, patience=0.0), 0
    while stream.write(PIECE):
        accepted += 1
        stream.flush()  # does not wait
    assert accepted == 4
    assert len(reader.read(accepted * len(PIECE))) == accepted * len(PIECE)
    while not stream.write(PIECE):  # the thread is about to see that all was read
        time.sleep(0)
    assert len(reader.read(len(PIECE))) == len(PIECE)


def test_all_flushes_together_wait_for_a_blocked_file_as_long_as_the_patience(
    pipe: tuple[io.BufferedReader, io.TextIOWrapper],
) -> None:
    """The second waits no more."""
    stream = OutputStream(pipe[1], patience=0.05)
    stream.write(PIECE)
    stream.flush()
    waits: list[float | None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Condition, "wait_for", lambda _, __, timeout=None: waits.append(timeout))
        stream.flush()
    assert waits == [0.0]
    pipe[0].read(len(PIECE))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("target", ["nobody reads", "full disk", "closed"])
def test_a_file_that_cannot_be_written_costs_text_only(
    target: str, pipe: tuple[io.BufferedReader, io.TextIOWrapper]
) -> None:
    """The stream goes on."""
    with contextlib.ExitStack() as files:
        file = pipe[1] if target == "nobody reads" else files.enter_context(Path("/dev/full").open("w"))
        stream = OutputStream(file, patience=1.0)
        if target == "closed":
            files.close()
        pipe[0].close()
        for _ in range(3):
            assert stream.write("lost\n") == 5
            stream.flush()
        assert stream.write(PIECE * 4), "what cannot be written does not wait"


def test_text_that_the_encoding_lacks_is_written_as_escapes(tmp_path: Path) -> None:
    """A progress bar on a terminal with ASCII is ugly, and no more."""
    path = tmp_path / "output"
    with path.open("w", encoding="ascii") as file:
        stream = OutputStream(file, patience=1.0)
        stream.write("é\ud800\n")
        stream.flush()
    assert path.read_text() == "\\xe9\\ud800\n"


def test_a_file_that_does_not_wait_is_written_whole(pipe: tuple[io.BufferedReader, io.TextIOWrapper]) -> None:
    """Another process that shares a terminal may have set O_NONBLOCK on it."""
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    stream = OutputStream(writer, patience=1.0)
    stream.write(PIECE)
    assert reader.read(len(PIECE)) == PIECE.encode()


def test_a_forked_process_writes_what_it_wrote_itself(pipe: tuple[io.BufferedReader, io.TextIOWrapper]) -> None:
    """It has no thread yet, and nothing of what waits in its parent."""
    reader, writer = pipe
    stream = OutputStream(writer, patience=1.0)
    stream.write("parent\n")
    stream.flush()
    if not (child := os.fork()):
        stream.write("child\n")
        stream.finish()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader.fileno(), 100) == b"parent\nchild\n"


def test_bytes_are_refused_at_once(pipe: tuple[io.BufferedReader, io.TextIOWrapper]) -> None:
    """Click finds out by this that the stream takes text."""
    with pytest.raises(TypeError, match="str"):
        OutputStream(pipe[1], patience=0.0).write(b"")  # type: ignore[arg-type]


def test_it_stands_in_for_standard_error(
    pipe: tuple[io.BufferedReader, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`print` and tracebacks find what they look for."""
    stream = OutputStream(pipe[1], patience=1.0)
    monkeypatch.setattr(sys, "stderr", stream)
    with contextlib.redirect_stdout(stream):
        print("text", flush=True)  # noqa: T201
    assert os.read(pipe[0].fileno(), 100) == b"text\n"
    assert (stream.writable(), stream.isatty(), stream.fileno()) == (True, False, pipe[1].fileno())


def test_a_closed_standard_output_is_no_file_that_is_opened_later() -> None:
    """Python has no stream there, and the number is free: the next file would get all that C libraries print."""
    script = """
import os, sys
os.closerange(0, 3)
sys.stdin = sys.stdout = sys.stderr = None
from headway.output_stream import finish_output, protect_work
protect_work()
assert os.open("/dev/null", os.O_RDONLY) == 3
print("nowhere")
print("nowhere", file=sys.stderr, flush=True)
assert sys.stdin.read() == ""
finish_output()
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9


def test_a_message_in_ascii_is_escaped() -> None:
    """The encoding may come from PYTHONIOENCODING."""
    script = (
        "from headway.output_stream import *; protect_messages(); print('\u00e9'); print('\u00e9', file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    written = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert (written.stdout, written.stderr) == (b"\\xe9\n", b"\\xe9\n")


def test_a_process_in_the_background_of_a_terminal_is_not_stopped_for_printing() -> None:
    """As it would be after `stty tostop`."""
    script = """
import os, pty, sys, termios
leader, terminal = pty.fork()
if leader:
    os.read(terminal, 100)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]))
attributes = termios.tcgetattr(1)
attributes[3] |= termios.TOSTOP
termios.tcsetattr(1, termios.TCSANOW, attributes)
if printer := os.fork():
    status = os.waitpid(printer, os.WUNTRACED)[1]
    print(flush=True)
    os._exit(1 if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status))
from headway.output_stream import finish_output, protect_work
os.setpgid(0, 0)
protect_work()
print("text")
finish_output()
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
