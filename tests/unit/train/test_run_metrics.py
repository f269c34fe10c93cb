"""What Prometheus sees of training: counted by the events of the log, over all attempts of a process."""

import time
from collections.abc import Callable

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BATCH, BUDGET, Story

from headway.errors import TransientError
from headway.objectstore.retry import MAX_FAILURES, BucketBreaker
from headway.runs import Run
from headway.telemetry import Trace
from headway.train import run_metrics as module
from headway.train.clock import Clock
from headway.train.run_metrics import RunMetrics

Value = Callable[..., float | None]


@pytest.fixture
def story() -> Story:
    """A run that was begun."""
    return Story(MemoryStore(), "tale")


@pytest.fixture
def figures() -> RunMetrics:
    """The figures of a process that has just begun."""
    return RunMetrics()


@pytest.fixture
def value(figures: RunMetrics) -> Value:
    """The value of a series now, by its name without `headway_`, and its labels."""

    def now(name: str, **labels: str) -> float | None:
        return figures.shown.registry.get_sample_value(f"headway_{name}", labels)

    return now


def begin(figures: RunMetrics, story: Story, clock: Clock | None = None, seen: int = 0) -> None:
    """Begin the story's attempt."""
    history = Run(story.store, story.run).history()
    figures.begin(history, clock or Clock(time.time()), budget=BUDGET, seen=seen, trace=Trace.new())


def step(figures: RunMetrics, position: int, loss: float = 2.0) -> None:
    """Train on a batch that ends at `position`."""
    figures.stepped(BATCH, 0.3)
    figures.take("step.done", position, {"loss": loss, "norm": 0.5, "learning_rate": 1e-3})


def test_steps_are_counted(figures: RunMetrics, story: Story, value: Value) -> None:
    """Tokens of this process, the run's position, and the last batch as it was."""
    story.claim(1.0)
    begin(figures, story)
    step(figures, 4 * BATCH)
    step(figures, 5 * BATCH, loss=float("inf"))
    assert value("train_tokens_total") == 2 * BATCH
    assert (value("train_position_tokens"), value("train_budget_tokens")) == (5 * BATCH, BUDGET)
    assert (value("train_loss"), value("train_grad_norm")) == (float("inf"), 0.5)
    assert value("train_step_duration_seconds_count") == 2
    assert value("train_step_duration_seconds_bucket", le="0.25") == 0
    assert value("train_step_duration_seconds_bucket", le="0.5") == 2
    figures.take("evaluation.done", 5 * BATCH, {"held_out": 2.5})
    assert value("train_held_out_loss") == 2.5


def test_seconds_are_those_of_the_ledger(figures: RunMetrics, story: Story, value: Value) -> None:
    """By phase; they never fall, and go on from one attempt of the process to the next."""
    story.claim(1.0)
    clock = Clock(time.time() - 30.0, (time.time() - 50.0, time.time() - 30.0))
    begin(figures, story, clock)
    step(figures, BATCH)
    clock.enter("step")
    step(figures, 2 * BATCH)
    assert value("train_phase_seconds_total", phase="startup") == pytest.approx(clock.spent()["startup"])
    assert value("train_phase_seconds_total", phase="queue") == pytest.approx(20.0, abs=0.1)
    startup, stepping = clock.spent()["startup"], value("train_phase_seconds_total", phase="step")
    story.claim(2.0)
    begin(figures, story, Clock(time.time() - 5.0))
    figures.book()
    assert value("train_phase_seconds_total", phase="startup") == pytest.approx(startup + 5.0, abs=0.1)
    assert value("train_phase_seconds_total", phase="step") == stepping


def test_saves_are_counted_by_how_they_ended(figures: RunMetrics, story: Story, value: Value) -> None:
    """And timed: for training, which stood still, and to the commit."""
    story.claim(1.0)
    begin(figures, story)
    assert value("checkpoint_last_commit_timestamp_seconds") == 1.0, "nothing is safe since then"
    before = time.time()
    figures.saving()
    figures.stalled(0.2)
    figures.stalled(0.4)
    figures.take("checkpoint.staged", 2 * BATCH, {})
    figures.take("checkpoint.committed", 3 * BATCH, {"at": 2 * BATCH})
    figures.take("checkpoint.failed", 3 * BATCH, {"problem": "no space"})
    assert [value("checkpoint_saves_total", outcome=outcome) for outcome in ("committed", "failed")] == [1, 1]
    assert value("checkpoint_save_duration_seconds_sum", stage="block") == pytest.approx(0.6)
    assert value("checkpoint_save_duration_seconds_count", stage="upload") == 1
    assert value("checkpoint_position_tokens") == 2 * BATCH
    committed = value("checkpoint_last_commit_timestamp_seconds")
    assert committed
    assert before <= committed <= time.time()
    figures.saving()
    figures.take("checkpoint.committed", 4 * BATCH, {"at": 4 * BATCH})
    assert value("checkpoint_save_duration_seconds_sum", stage="block") == pytest.approx(0.6), "it counts anew"


def test_what_a_kill_cost_is_told_by_the_next_attempt(figures: RunMetrics, story: Story, value: Value) -> None:
    """It was lost without a word; what it had trained on and not saved is trained on again."""
    story.claim(1.0)
    story.commit(2.0, 3 * BATCH)
    story.claim(4.0)
    clock = Clock(time.time() - 3.0)
    begin(figures, story, clock, seen=5 * BATCH)
    assert value("preemptions_total", outcome="lost") == 1
    assert value("train_attempts") == 2
    assert value("checkpoint_position_tokens") == 3 * BATCH
    assert value("checkpoint_last_commit_timestamp_seconds") == 2.0
    figures.take("checkpoint.damaged", 0, {"at": 4 * BATCH, "problem": "a bit"})
    figures.take("checkpoint.restored", 3 * BATCH, {"at": 3 * BATCH})
    assert [value("checkpoint_restores_total", outcome=outcome) for outcome in ("damaged", "verified")] == [1, 1]
    assert value("train_replayed_tokens_total") == 2 * BATCH
    figures.take("attempt.started", 4 * BATCH, {"total": 3.0})
    assert value("recovery_duration_seconds_sum", stage="startup") == pytest.approx(3.0, abs=0.2)
    assert value("recovery_duration_seconds_count", stage="drain") == 0


def test_a_preemption_that_saved_says_so(figures: RunMetrics, story: Story, value: Value) -> None:
    """The next attempt does not count it again; the first attempt at a run recovers nothing."""
    story.claim(1.0)
    begin(figures, story)
    figures.take("attempt.started", BATCH, {"total": 3.0})
    assert value("recovery_duration_seconds_count", stage="startup") == 0
    figures.take("attempt.ended", BATCH, {"outcome": "preempted", "reason": "asked to stop"})
    story.end(2.0, "preempted", BATCH)
    story.claim(3.0)
    begin(figures, story)
    assert [value("preemptions_total", outcome=outcome) for outcome in ("saved", "lost")] == [1, 0]
    assert value("recovery_duration_seconds_count", stage="drain") == 1
    figures.take("attempt.ended", BATCH, {"outcome": "done", "reason": "budget reached"})
    assert value("preemptions_total", outcome="saved") == 1


def test_requests_to_the_store_are_counted(
    figures: RunMetrics, story: Story, value: Value, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try once, over all buckets, and whether any is left in peace for now."""
    buckets = [BucketBreaker("one"), BucketBreaker("two")]
    monkeypatch.setattr(module, "made", buckets)

    def fail() -> None:
        raise TransientError("busy")

    story.claim(1.0)
    begin(figures, story)
    buckets[0].call(lambda: None)
    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match="busy"):
            buckets[1].call(fail)
    with pytest.raises(TransientError, match="left in peace"):
        buckets[1].call(fail)
    for position in (BATCH, 2 * BATCH):
        step(figures, position)
        assert [value("store_requests_total", outcome=outcome) for outcome in ("answered", "failed")] == [
            1,
            MAX_FAILURES,
        ]
        assert value("store_circuit_open") == 1


def test_decisions_and_slow_ranks_are_shown(figures: RunMetrics, story: Story, value: Value) -> None:
    """A rank that recovers is slow no more."""
    story.claim(1.0)
    begin(figures, story)
    figures.take("batch.judged", BATCH, {"action": "skip", "reason": "loss nan"})
    assert [value("train_decisions_total", action=action) for action in ("skip", "rollback", "stop")] == [1, 0, 0]
    figures.take("rank.slow", BATCH, {"rank": 1, "host": "far", "factor": 2.0})
    assert value("train_slow_ranks") == 1
    figures.take("rank.recovered", BATCH, {})
    assert value("train_slow_ranks") == 0
