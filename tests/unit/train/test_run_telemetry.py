"""What rank 0 shows, and how long it stays for it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BATCH, Story, plan

from headway.runs import Run
from headway.telemetry import Trace, traces
from headway.telemetry.exposition import Exposition, Exposure
from headway.train.clock import Clock
from headway.train.preemption import IMMEDIATE, STOP, Preemption
from headway.train.run_telemetry import RunTelemetry


def made(exposure: Exposure | None, preemption: Preemption | None = None, grace: float = 60.0) -> RunTelemetry:
    """The instruments of this process."""
    launcher = SimpleNamespace(trace=str(Trace.new()), launch="launch-1")
    task: Any = SimpleNamespace(run="tale", launcher=launcher, exposure=exposure, grace=grace)
    return RunTelemetry(task, plan(), preemption or Preemption())


@pytest.fixture
def story() -> Story:
    """A run that was begun, and claimed."""
    story = Story(MemoryStore(), "tale")
    story.claim(1.0)
    return story


def begin(instruments: RunTelemetry, story: Story) -> Trace:
    """Begin the story's attempt."""
    run = Run(story.store, story.run)
    return instruments.begin(run, run.history(), Clock(time.time()))


def test_other_ranks_show_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, story: Story) -> None:
    """They learn the trace, which is on their log lines."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv(traces.FILE_VARIABLE, str(tmp_path / "spans.jsonl"))
    with made(Exposure(targets=str(tmp_path))) as instruments:
        trace = begin(instruments, story)
        assert trace == Trace.parse(instruments.task.launcher.trace)
        instruments.stepped(BATCH, 0.3)
        instruments.take("step.done", BATCH, {"loss": 2.0, "norm": 1.0, "learning_rate": 1e-3})
        instruments.linger()
    assert list(tmp_path.iterdir()) == []


def test_events_of_the_log_become_spans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, story: Story) -> None:
    """In the trace of the attempt, whether or not there are metrics; a save from its beginning to its end."""
    file = tmp_path / "spans.jsonl"
    monkeypatch.setenv(traces.FILE_VARIABLE, str(file))
    with made(None) as instruments:
        trace = begin(instruments, story)
        with instruments.during("restore"):
            pass
        instruments.take("attempt.started", BATCH, {"launch": 1.0, "build": 2.0, "total": 3.0})
        before = time.time()
        instruments.saving()
        instruments.take("checkpoint.committed", 3 * BATCH, {"at": 2 * BATCH})
        instruments.saving()
        instruments.take("checkpoint.failed", 3 * BATCH, {"problem": "no space"})
        instruments.take("attempt.ended", 3 * BATCH, {"outcome": "preempted", "reason": "asked to stop"})
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


def stayed(monkeypatch: pytest.MonkeyPatch, flag: Any, linger: float, grace: float = 20.0) -> float:
    """How long instruments would stay at the end of a run whose stop `flag` is such [s]; 0 if a signal comes then."""
    asked = [0.0]

    def stay(_: Exposition, seconds: float, leave: Callable[[], bool]) -> None:
        assert not leave()
        asked[0] = seconds
        flag.value += 1
        assert leave(), "a signal that comes now ends it"

    monkeypatch.setattr(Exposition, "linger", stay)
    preemption = Preemption(flag)
    with made(Exposure(address="127.0.0.1", linger=linger), preemption, grace) as instruments:
        assert preemption.level == flag.value  # the loop looks at it
        instruments.linger()
    return asked[0]


@pytest.mark.parametrize(
    ("level", "linger", "seconds"), [(0, 30.0, 30.0), (STOP, 30.0, 10.0), (STOP, 3.0, 3.0), (IMMEDIATE, 30.0, 0.0)]
)
def test_the_last_figures_stay_inside_the_grace(
    monkeypatch: pytest.MonkeyPatch, level: int, linger: float, seconds: float
) -> None:
    """Of a run that is done as long as was asked for, of one that was stopped for half of it, of one in a hurry not."""
    assert stayed(monkeypatch, SimpleNamespace(value=level), linger) == pytest.approx(seconds, abs=0.5)
