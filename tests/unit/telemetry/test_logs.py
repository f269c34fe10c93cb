"""Log lines have the bound fields, on the stream and in the sink."""

import json

import pytest

from headway.telemetry import open_log


def test_every_line_has_the_bound_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Stream and sink get the same line; fields of value None are left out."""
    sink = list[str]()
    log = open_log(sink.append, run="first", rank=0, trace_id=None)
    log.info("step.done", loss=2.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert sink == [line]
    event = json.loads(line)
    assert {key: event[key] for key in sorted(event) if key != "timestamp"} == {
        "event": "step.done", "level": "info", "loss": 2.5, "rank": 0, "run": "first"
    }  # fmt: skip


def test_a_quiet_log_shows_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """The sink still gets every event."""
    sink = list[str]()
    log = open_log(sink.append, quiet=True)
    log.info("step.done")
    log.warning("batch.judged")
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["event"], len(sink)) == ("batch.judged", 2)
