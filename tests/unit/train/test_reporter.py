"""What an attempt emits reaches its sinks: the log, the heartbeat, the progress bar."""

import json
import time
from collections.abc import Callable, Iterable

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BATCH, BUDGET, Story, plan

from headway.errors import StoreError
from headway.events.event import LogEvent
from headway.events.training_events import (
    AttemptClaimed,
    AttemptEnded,
    CheckpointCommitted,
    CheckpointFailed,
    CheckpointStaged,
    RankSlow,
    SaveStarted,
    StallEnded,
    StepDone,
    StepTimed,
    TrainingEvent,
)
from headway.objectstore import Buffer
from headway.runs import Run, read_heartbeat, this_process
from headway.runs.background_writer import BackgroundWriter
from headway.runs.run_log import read_lines
from headway.telemetry import Trace
from headway.train.clock import Clock
from headway.train.host.preemption import Preemption
from headway.train.sinks.event_bus import EventBus
from headway.train.sinks.progress_bar import ProgressBar
from headway.train.sinks.reporter import Reporter
from headway.train.sinks.run_telemetry import RunTelemetry

SLOW = RankSlow(rank=1, host="far", factor=2.0, cost=1.5, phase="data")
Report = Callable[..., Reporter]


class ReadOnlyStore(MemoryStore):
    """Refuses to write objects once it is `full`."""

    full = False

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, or fail."""
        if self.full:
            raise StoreError("no space")
        super().put(key, parts)


@pytest.fixture
def store() -> ReadOnlyStore:
    """A store with a run that has been claimed."""
    store = ReadOnlyStore()
    Story(store, "tale").claim(1.0)
    return store


@pytest.fixture
def report(store: ReadOnlyStore) -> Report:
    """Makes the reporter of a rank."""

    def of(rank: int = 0) -> Reporter:
        run, clock, launcher = Run(store, "tale"), Clock(time.time()), this_process("launch-1", Trace.new())
        telemetry = RunTelemetry(plan(), Preemption(), run="tale", launcher=launcher, exposure=None, grace=60.0)
        return Reporter(
            run,
            1,
            rank,
            clock,
            holder=launcher,
            budget=BUDGET,
            heartbeat_seconds=3600.0,
            quiet=False,
            telemetry=telemetry,
            trace=telemetry.begin_attempt(run, run.history(), clock),
        )

    return of


def stored(store: MemoryStore) -> list[LogEvent]:
    """The events in the stored log."""
    return [line.event for line in read_lines(store, "tale")]


def test_every_handler_gets_every_event_in_order() -> None:
    """With the position at which it happens."""
    bus, handled = EventBus(), list[tuple[str, TrainingEvent, int]]()
    for name in ("first", "second"):
        bus.subscribe(lambda event, tokens, name=name: handled.append((name, event, tokens)))  # type: ignore[misc]
    claimed, staged = AttemptClaimed(ranks=1), CheckpointStaged()
    bus.emit(claimed)
    bus.tokens = BATCH
    bus.emit(staged)
    assert handled == [
        ("first", claimed, 0), ("second", claimed, 0), ("first", staged, BATCH), ("second", staged, BATCH)
    ]  # fmt: skip


def test_rank_0_stores_what_it_logs(report: Report, store: ReadOnlyStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines on standard error and in the store are the same; what only metrics are for is in neither."""
    with report() as reporter:
        for event in (AttemptClaimed(ranks=1), SaveStarted(), StallEnded(seconds=1.0), SLOW):
            reporter.emit(event)
        reporter.step(BATCH, loss=2.5, norm=1.0, rate=1e-3, seconds=2.0)
    done = StepDone(loss=2.5, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0)
    assert stored(store) == [AttemptClaimed(ranks=1), SLOW, done]
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in shown] == ["attempt.claimed", "rank.slow", "step.done"]
    assert [(line["phase"], line["tokens"]) for line in shown] == [("startup", 0), ("data", 0), ("startup", BATCH)]
    assert {line["trace_id"] for line in shown} != {None}


def test_other_ranks_show_warnings_only(
    report: Report, store: ReadOnlyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """They store neither log nor heartbeat."""
    with report(rank=1) as reporter:
        reporter.emit(CheckpointCommitted(at=BATCH))
        reporter.emit(CheckpointFailed(problem="no space"))
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["event"], json.loads(line)["rank"]) == ("checkpoint.failed", 1)
    assert stored(store) == []
    assert read_heartbeat(store, "tale") is None


def test_the_heartbeat_says_how_far_the_attempt_is(report: Report, store: ReadOnlyStore) -> None:
    """Position, losses, a slow rank and the outcome, as of the last event."""
    with report() as reporter:
        reporter.step(3 * BATCH, loss=2.5, norm=1.0, rate=1e-3, seconds=2.0)
        reporter.emit(SLOW)
        reporter.emit(AttemptEnded(outcome="preempted", reason="asked to stop"))
    heartbeat = read_heartbeat(store, "tale")
    assert heartbeat
    assert heartbeat.summary
    assert (heartbeat.tokens, heartbeat.summary.loss, heartbeat.summary.outcome) == (3 * BATCH, 2.5, "preempted")
    assert heartbeat.summary.slow == "rank 1 on far takes 2.0 times as long as the others"


@pytest.mark.parametrize(
    ("event", "soon"),
    [
        (StepDone(loss=2.5, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0), False),
        (CheckpointStaged(), False),
        (StepTimed(tokens=BATCH, seconds=1.0), False),
        (StallEnded(seconds=1.0), False),
        (CheckpointCommitted(at=BATCH), True),
        (SLOW, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_routine_is_published_soon(
    report: Report, monkeypatch: pytest.MonkeyPatch, event: TrainingEvent, *, soon: bool
) -> None:
    """Steps and staged saves wait, so that a run makes few requests; so does what is not logged."""
    notified = list[bool]()
    monkeypatch.setattr(BackgroundWriter, "notify", lambda _: notified.append(True))
    report().emit(event)
    assert notified == [True] * soon


def test_a_store_that_fails_is_a_warning(
    report: Report, store: ReadOnlyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attempt goes on; the line says neither phase nor position, which are not the problem's."""
    with report() as reporter:
        store.full = True
        reporter.emit(CheckpointCommitted(at=BATCH))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failures = [line for line in lines if line["event"] == "heartbeat.failed"]
    assert failures
    for line in failures:
        assert (line["level"], line["error"]) == ("warning", "no space")
        assert not {"phase", "tokens"} & line.keys()


def test_the_bar_moves_with_steps_and_prints_what_else_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """But no warnings, which the log prints on the same terminal."""
    bar = ProgressBar(BUDGET)
    bar.handle(StepDone(loss=2.5, norm=1.0, learning_rate=1e-3, tokens_per_second=1234.5), 4 * BATCH)
    bar.handle(CheckpointCommitted(at=BATCH), 4 * BATCH)
    bar.handle(CheckpointFailed(problem="no space"), 4 * BATCH)
    bar.handle(SaveStarted(), 4 * BATCH)
    assert capsys.readouterr().err.split() == ["checkpoint.committed", "at", "4,000", "tokens", "at=1000"]
    (task,) = bar.progress.tasks
    assert (task.completed, task.fields) == (4 * BATCH, {"loss": "2.500", "speed": "1,234"})
