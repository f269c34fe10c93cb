"""Telemetry of rank 0: what it exports, and how long it lingers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BATCH, Story, plan

from headway.events.training_events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    CheckpointFailed,
    SaveStarted,
    StepTimed,
)
from headway.runs import Run, this_process
from headway.telemetry import Trace
from headway.telemetry.metrics_server import MetricsConfig, MetricsServer
from headway.telemetry.spans import FILE_VARIABLE
from headway.train.clock import Clock
from headway.train.host.preemption import IMMEDIATE, STOP, Preemption
from headway.train.sinks.event_bus import EventBus
from headway.train.sinks.run_telemetry import RunTelemetry

TRACE = Trace.new()
"""The trace of the launch."""


def make_telemetry(
    exposure: MetricsConfig | None, preemption: Preemption | None = None, grace: float = 60.0
) -> RunTelemetry:
    """The telemetry of this process."""
    launcher = this_process("launch-1", TRACE)
    return RunTelemetry(
        plan(), preemption or Preemption(), run="tale", launcher=launcher, exposure=exposure, grace=grace
    )


@pytest.fixture
def story() -> Story:
    """A run with one attempt."""
    story = Story(MemoryStore(), "tale")
    story.claim(1.0)
    return story


def begin(telemetry: RunTelemetry, story: Story) -> Trace:
    """Begin the attempt of the story."""
    run = Run(story.store, story.run)
    return telemetry.begin_attempt(run, run.history(), Clock(time.time()))


def test_other_ranks_export_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, story: Story) -> None:
    """They only know the trace, for their log lines."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "spans.jsonl"))
    with make_telemetry(MetricsConfig(targets=str(tmp_path))) as telemetry:
        trace = begin(telemetry, story)
        assert trace == TRACE
        events = EventBus()
        telemetry.subscribe_to(events)
        events.emit(StepTimed(tokens=BATCH, seconds=0.3))
        events.emit(SaveStarted())
        events.emit(CheckpointCommitted(at=BATCH))
        telemetry.linger()
    assert list(tmp_path.iterdir()) == []


def test_events_become_spans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, story: Story) -> None:
    """They belong to the trace of the attempt, and need no metrics; a save lasts from its start to its commit."""
    file = tmp_path / "spans.jsonl"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with make_telemetry(None) as telemetry:
        trace = begin(telemetry, story)
        with telemetry.span("restore"):
            pass
        events = EventBus()
        telemetry.subscribe_to(events)
        events.emit(AttemptStarted(stages={"launch": 1.0, "build": 2.0}, total=3.0))
        before = time.time()
        events.emit(SaveStarted())
        events.emit(CheckpointCommitted(at=2 * BATCH))
        events.emit(SaveStarted())
        events.emit(CheckpointFailed(problem="no space"))
        events.emit(AttemptEnded(outcome="preempted", reason="asked to stop"))
    spans = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = ["train.restore", "train.startup", "train.checkpoint", "train.checkpoint", "train.drain"]
    assert [span["name"] for span in spans] == names
    assert {(span["trace_id"], span["parent"]) for span in spans} == {(trace.trace_id, trace.span_id)}
    assert {span["attributes"]["headway.attempt"] for span in spans} == {1}
    assert {span["resource"]["headway.run.id"] for span in spans} == {"tale"}
    _, startup, committed, failed, drain = spans
    assert startup["end"] - startup["start"] == pytest.approx(3.0, abs=1e-3)
    assert startup["attributes"]["headway.stage.build"] == 2.0
    assert before <= committed["start"] <= committed["end"] <= failed["start"]
    assert (committed["attributes"]["headway.tokens"], committed["status"]) == (2 * BATCH, "unset")
    assert (failed["status"], failed["problem"]) == ("error", "no space")
    assert drain["attributes"]["headway.outcome"] == "preempted"


def linger_seconds(monkeypatch: pytest.MonkeyPatch, level: Any, linger: float, grace: float = 20.0) -> float:
    """How long telemetry would linger with the stop level `level` [s]; 0 if not at all."""
    lingered = [0.0]

    def linger_for(_: MetricsServer, seconds: float, leave: Callable[[], bool]) -> None:
        assert not leave()
        lingered[0] = seconds
        level.value += 1
        assert leave(), "a further signal ends it"

    monkeypatch.setattr(MetricsServer, "linger", linger_for)
    preemption = Preemption(level)
    with make_telemetry(MetricsConfig(address="127.0.0.1", linger=linger), preemption, grace) as telemetry:
        assert preemption.level == level.value  # the loop reads it
        telemetry.linger()
    return lingered[0]


@pytest.mark.parametrize(
    ("level", "linger", "seconds"), [(0, 30.0, 30.0), (STOP, 30.0, 10.0), (STOP, 3.0, 3.0), (IMMEDIATE, 30.0, 0.0)]
)
def test_the_last_metrics_stay_within_the_grace(
    monkeypatch: pytest.MonkeyPatch, level: int, linger: float, seconds: float
) -> None:
    """A finished run lingers as configured, a stopped one for half of the grace, an immediate stop not at all."""
    assert linger_seconds(monkeypatch, SimpleNamespace(value=level), linger) == pytest.approx(seconds, abs=0.5)
