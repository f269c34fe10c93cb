"""Both ends of the log pipe."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.serve.process.log_pipe import CAPACITY_BYTES, LogPipe, LogPipeWriter


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[LogPipeWriter, int]]:
    """A replica's writer, and a descriptor to read its FIFO with."""
    path = tmp_path / "log"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield LogPipeWriter(path), descriptor
    os.close(descriptor)


@pytest.mark.parametrize("length", [100, 1000, 10_000, 100_000])
def test_a_full_pipe_drops_whole_lines(fifo: tuple[LogPipeWriter, int], length: int) -> None:
    """What was accepted arrives whole, however slowly it is read."""
    writer, descriptor = fifo
    for number in range(3 * CAPACITY_BYTES // length):
        writer.write(f"{number:0{length - 1}}\n")
    assert writer.dropped_lines
    dropped, received = writer.dropped_lines, b""
    while select.select([descriptor], [], [], 0)[0]:
        received += os.read(descriptor, 777)
    writer.write("last\n")
    while select.select([descriptor], [], [], 0)[0]:
        received += os.read(descriptor, CAPACITY_BYTES)
    *lines, last = received.decode().splitlines()
    assert (last, {len(text) for text in lines}) == ("last", {length - 1})
    assert [int(text[-20:]) for text in lines] == list(range(3 * CAPACITY_BYTES // length - dropped))


def test_the_pipe_copies_lines_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All lines are there once the pipe is closed."""
    pipe = LogPipe(tmp_path / "log")
    writer = LogPipeWriter(tmp_path / "log")
    writer.write("one\n")
    writer.write("two\n")
    pipe.close()
    assert capfd.readouterr().err == "one\ntwo\n"
