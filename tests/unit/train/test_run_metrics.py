"""Prometheus metrics follow the events, over all attempts of a process."""

import time
from collections.abc import Callable

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BATCH, BUDGET, Story

from headway.errors import TransientError
from headway.events.training_events import (
    AttemptEnded,
    AttemptStarted,
    BatchJudged,
    CheckpointCommitted,
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointRestored,
    CheckpointStaged,
    EvaluationDone,
    RankRecovered,
    RankSlow,
    SaveStarted,
    StallEnded,
    StepDone,
    StepTimed,
)
from headway.objectstore.breaker import CircuitBreaker
from headway.objectstore.retry import MAX_FAILURES, RESET_SECONDS
from headway.runs import Run
from headway.telemetry import Trace
from headway.train.clock import Clock
from headway.train.sinks import run_metrics as module
from headway.train.sinks.run_metrics import RunMetrics

Value = Callable[..., float | None]


@pytest.fixture
def story() -> Story:
    """An empty run."""
    return Story(MemoryStore(), "tale")


@pytest.fixture
def metrics() -> RunMetrics:
    """The metrics of a new process."""
    return RunMetrics()


@pytest.fixture
def value(metrics: RunMetrics) -> Value:
    """Reads a series by its labels and its name without `headway_`."""

    def now(name: str, **labels: str) -> float | None:
        return metrics.families.registry.get_sample_value(f"headway_{name}", labels)

    return now


def begin(metrics: RunMetrics, story: Story, clock: Clock | None = None, last_position: int = 0) -> None:
    """Begin the newest attempt of the story."""
    history = Run(story.store, story.run).history()
    metrics.begin_attempt(
        history, clock or Clock(time.time()), budget=BUDGET, last_position=last_position, trace=Trace.new()
    )


def step(metrics: RunMetrics, position: int, loss: float = 2.0) -> None:
    """Train on a batch that ends at `position`."""
    metrics.handle(StepTimed(tokens=BATCH, seconds=0.3), position)
    metrics.handle(StepDone(loss=loss, norm=0.5, learning_rate=1e-3, tokens_per_second=BATCH / 0.3), position)


def test_steps_are_counted(metrics: RunMetrics, story: Story, value: Value) -> None:
    """Tokens of this process, position of the run, and figures of the last step."""
    story.claim(1.0)
    begin(metrics, story)
    step(metrics, 4 * BATCH)
    step(metrics, 5 * BATCH, loss=float("inf"))
    assert value("train_tokens_total") == 2 * BATCH
    assert (value("train_position_tokens"), value("train_budget_tokens")) == (5 * BATCH, BUDGET)
    assert (value("train_loss"), value("train_grad_norm")) == (float("inf"), 0.5)
    assert value("train_step_duration_seconds_count") == 2
    assert value("train_step_duration_seconds_bucket", le="0.25") == 0
    assert value("train_step_duration_seconds_bucket", le="0.5") == 2
    metrics.handle(EvaluationDone(held_out=2.5), 5 * BATCH)
    assert value("train_held_out_loss") == 2.5


def test_seconds_are_those_of_the_ledger(metrics: RunMetrics, story: Story, value: Value) -> None:
    """By phase; they never fall, and continue from attempt to attempt."""
    story.claim(1.0)
    clock = Clock(time.time() - 30.0, (time.time() - 50.0, time.time() - 30.0))
    begin(metrics, story, clock)
    step(metrics, BATCH)
    clock.enter("step")
    step(metrics, 2 * BATCH)
    assert value("train_phase_seconds_total", phase="startup") == pytest.approx(clock.seconds_by_phase()["startup"])
    assert value("train_phase_seconds_total", phase="queue") == pytest.approx(20.0, abs=0.1)
    startup, stepping = clock.seconds_by_phase()["startup"], value("train_phase_seconds_total", phase="step")
    story.claim(2.0)
    begin(metrics, story, Clock(time.time() - 5.0))
    metrics.count()
    assert value("train_phase_seconds_total", phase="startup") == pytest.approx(startup + 5.0, abs=0.1)
    assert value("train_phase_seconds_total", phase="step") == stepping


def test_saves_are_counted_by_how_they_ended(metrics: RunMetrics, story: Story, value: Value) -> None:
    """Their durations are measured too: the stall of training, and the time to the commit."""
    story.claim(1.0)
    begin(metrics, story)
    assert value("checkpoint_last_commit_timestamp_seconds") == 1.0, "nothing has been saved since"
    before = time.time()
    metrics.handle(SaveStarted(), 2 * BATCH)
    metrics.handle(StallEnded(seconds=0.2), 2 * BATCH)
    metrics.handle(StallEnded(seconds=0.4), 2 * BATCH)
    metrics.handle(CheckpointStaged(), 2 * BATCH)
    metrics.handle(CheckpointCommitted(at=2 * BATCH), 3 * BATCH)
    metrics.handle(CheckpointFailed(problem="no space"), 3 * BATCH)
    assert [value("checkpoint_saves_total", outcome=outcome) for outcome in ("committed", "failed")] == [1, 1]
    assert value("checkpoint_save_duration_seconds_sum", stage="block") == pytest.approx(0.6)
    assert value("checkpoint_save_duration_seconds_count", stage="upload") == 1
    assert value("checkpoint_position_tokens") == 2 * BATCH
    committed = value("checkpoint_last_commit_timestamp_seconds")
    assert committed
    assert before <= committed <= time.time()
    metrics.handle(SaveStarted(), 4 * BATCH)
    metrics.handle(CheckpointCommitted(at=4 * BATCH), 4 * BATCH)
    assert value("checkpoint_save_duration_seconds_sum", stage="block") == pytest.approx(0.6), (
        "it starts at 0 for each save"
    )


def test_the_next_attempt_reports_the_cost_of_a_kill(metrics: RunMetrics, story: Story, value: Value) -> None:
    """The killed attempt counts as lost, and its unsaved tokens as replayed."""
    story.claim(1.0)
    story.commit(2.0, 3 * BATCH)
    story.claim(4.0)
    clock = Clock(time.time() - 3.0)
    begin(metrics, story, clock, last_position=5 * BATCH)
    assert value("preemptions_total", outcome="lost") == 1
    assert value("train_attempts") == 2
    assert value("checkpoint_position_tokens") == 3 * BATCH
    assert value("checkpoint_last_commit_timestamp_seconds") == 2.0
    metrics.handle(CheckpointDamaged(at=4 * BATCH, problem="a bit"), 0)
    metrics.handle(CheckpointRestored(at=3 * BATCH, manifest="m"), 3 * BATCH)
    assert [value("checkpoint_restores_total", outcome=outcome) for outcome in ("damaged", "verified")] == [1, 1]
    assert value("train_replayed_tokens_total") == 2 * BATCH
    metrics.handle(AttemptStarted(stages={}, total=3.0), 4 * BATCH)
    assert value("recovery_duration_seconds_sum", stage="startup") == pytest.approx(3.0, abs=0.2)
    assert value("recovery_duration_seconds_count", stage="drain") == 0


def test_a_preemption_that_saved_is_counted_once(metrics: RunMetrics, story: Story, value: Value) -> None:
    """The next attempt does not count it again; the first attempt is no recovery."""
    story.claim(1.0)
    begin(metrics, story)
    metrics.handle(AttemptStarted(stages={}, total=3.0), BATCH)
    assert value("recovery_duration_seconds_count", stage="startup") == 0
    metrics.handle(AttemptEnded(outcome="preempted", reason="asked to stop"), BATCH)
    story.end(2.0, "preempted", BATCH)
    story.claim(3.0)
    begin(metrics, story)
    assert [value("preemptions_total", outcome=outcome) for outcome in ("saved", "lost")] == [1, 0]
    assert value("recovery_duration_seconds_count", stage="drain") == 1
    metrics.handle(AttemptEnded(outcome="done", reason="budget reached"), BATCH)
    assert value("preemptions_total", outcome="saved") == 1


def test_requests_to_the_store_are_counted(
    metrics: RunMetrics, story: Story, value: Value, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try counts once, over all buckets; an open circuit is shown."""
    buckets = [CircuitBreaker(name, MAX_FAILURES, RESET_SECONDS) for name in ("one", "two")]
    monkeypatch.setattr(module, "bucket_breakers", {each.name: each for each in buckets})

    def fail() -> None:
        raise TransientError("busy")

    story.claim(1.0)
    begin(metrics, story)
    buckets[0].call(lambda: None)
    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match="busy"):
            buckets[1].call(fail)
    with pytest.raises(TransientError, match="circuit open"):
        buckets[1].call(fail)
    for position in (BATCH, 2 * BATCH):
        step(metrics, position)
        assert [value("store_requests_total", outcome=outcome) for outcome in ("answered", "failed")] == [
            1,
            MAX_FAILURES,
        ]
        assert value("store_circuit_open") == 1


def test_decisions_and_slow_ranks_are_shown(metrics: RunMetrics, story: Story, value: Value) -> None:
    """A rank that has recovered is no longer slow."""
    story.claim(1.0)
    begin(metrics, story)
    metrics.handle(BatchJudged(batch=0, action="skip", reason="loss nan"), BATCH)
    assert [value("train_decisions_total", action=action) for action in ("skip", "rollback", "stop")] == [1, 0, 0]
    metrics.handle(RankSlow(rank=1, host="far", factor=2.0, cost=1.5, phase="data"), BATCH)
    assert value("train_slow_ranks") == 1
    metrics.handle(RankRecovered(), BATCH)
    assert value("train_slow_ranks") == 0
