"""The writer to standard error, which may be blocked."""

import os
import sys
import time
from contextlib import suppress

import pytest

from headway.serve.process import stderr_writer
from headway.serve.process.stderr_writer import CAPACITY_CHARACTERS, StderrWriter


def test_all_text_is_written_by_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    """However long it is."""
    writer = StderrWriter()
    long = "x" * (CAPACITY_CHARACTERS + 1) + "\n"
    assert writer.write(long)
    writer.close()
    assert capfd.readouterr().err == long


def test_text_keeps_its_order(capfd: pytest.CaptureFixture[str]) -> None:
    """Each piece follows the one before."""
    writer = StderrWriter()
    for number in range(1000):
        assert writer.write(f"{number}\n")
    writer.close()
    assert capfd.readouterr().err == "".join(f"{number}\n" for number in range(1000))


def test_a_blocked_standard_error_costs_text_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded; once it is read, the writer goes on."""
    reading, writing = os.pipe()
    monkeypatch.setattr(stderr_writer, "CLOSE_SECONDS", 0.01)
    piece = "x" * (CAPACITY_CHARACTERS // 4)
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        writer, accepted = StderrWriter(), 0
        while writer.write(piece):
            accepted += 1
        assert accepted == 4
        assert len(reader.read(accepted * len(piece))) == accepted * len(piece)
        while not writer.write(piece):  # the thread is about to see that all was read
            time.sleep(0)
        writer.close()
        assert len(reader.read(len(piece))) == len(piece)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_standard_error_that_nobody_has_open_costs_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        writer = StderrWriter()
        assert writer.write("lost\n")
        writer.close()
        with suppress(BrokenPipeError):
            stream.close()
