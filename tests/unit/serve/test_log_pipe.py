"""Both ends of the FIFO by which the log reaches the service."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.serve.log_pipe import CAPACITY, LogPipe, LogPipeWriter


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[LogPipeWriter, int]]:
    """A replica's end, and a file from which the service would read."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield LogPipeWriter(path), reading
    os.close(reading)


@pytest.mark.parametrize("length", [100, 1000, 10_000, 100_000])
def test_a_service_that_does_not_read_holds_nobody_up(fifo: tuple[LogPipeWriter, int], length: int) -> None:
    """What is too much is dropped by the line; what was taken arrives whole, however slowly it is read."""
    line, reading = fifo
    for number in range(3 * CAPACITY // length):
        line.write(f"{number:0{length - 1}}\n")
    assert line.dropped
    dropped, heard = line.dropped, b""
    while select.select([reading], [], [], 0)[0]:
        heard += os.read(reading, 777)
    line.write("last\n")
    while select.select([reading], [], [], 0)[0]:
        heard += os.read(reading, CAPACITY)
    *taken, last = heard.decode().splitlines()
    assert (last, {len(text) for text in taken}) == ("last", {length - 1})
    assert [int(text[-20:]) for text in taken] == list(range(3 * CAPACITY // length - dropped))


def test_what_replicas_say_is_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All of it, once the relay is closed."""
    relay = LogPipe(tmp_path / "log")
    line = LogPipeWriter(tmp_path / "log")
    line.write("one\n")
    line.write("two\n")
    relay.close()
    assert capfd.readouterr().err == "one\ntwo\n"
