"""Log lines have the bound fields, on the stream and in the sink."""

import json

import pytest

from headway.events.training_events import CheckpointFailed, CheckpointStaged, EvaluationDone
from headway.telemetry import open_log


def test_every_line_has_the_bound_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Stream and sink get the same line; fields of value None are left out."""
    sink = list[str]()
    log = open_log(sink.append, run="first", rank=0, trace_id=None)
    log.write(EvaluationDone(held_out=2.5))
    (line,) = capsys.readouterr().err.splitlines()
    assert sink == [line]
    event = json.loads(line)
    assert {key: event[key] for key in sorted(event) if key != "timestamp"} == {
        "event": "evaluation.done", "held_out": 2.5, "level": "info", "rank": 0, "run": "first"
    }  # fmt: skip


def test_a_quiet_log_shows_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """The sink still gets every event."""
    sink = list[str]()
    log = open_log(sink.append, quiet=True)
    log.write(CheckpointStaged())
    log.write(CheckpointFailed(problem="no space"))
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["event"], len(sink)) == ("checkpoint.failed", 2)
