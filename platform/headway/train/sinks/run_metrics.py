"""Prometheus metrics of a training process, updated by the events of its attempts.

Rank 0 serves them, because it has the figures of all ranks. They disappear with its process: Prometheus then sees a
target that is down. What must last is in the run store.
"""

import time
from typing import assert_never

from headway.events.training_events import (
    AttemptClaimed,
    AttemptEnded,
    AttemptEvent,
    AttemptStarted,
    BatchEvent,
    BatchJudged,
    BatchSkipped,
    CheckpointCommitted,
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointRefused,
    CheckpointRestored,
    CheckpointStaged,
    CheckpointUntidy,
    EnvironmentChanged,
    EvaluationDone,
    RankRecovered,
    RankSlow,
    RestoreEvent,
    RestoreNothingSound,
    RollbackRequested,
    SaveEvent,
    SaveStarted,
    StallEnded,
    StepDone,
    StepTimed,
    TrainingEvent,
)
from headway.objectstore.retry import bucket_breakers
from headway.runs import History
from headway.telemetry import Trace
from headway.telemetry.training_metrics import TrainingMetrics, exemplar
from headway.train.clock import Clock


class RunMetrics:
    """Updates the metric families over all attempts of this process."""

    def __init__(self) -> None:
        self.families = TrainingMetrics()
        self._clock: Clock | None = None
        self._counted_seconds: dict[str, float] = {}
        """Seconds of the present clock that are already counted, by phase."""
        self._counted_requests = {"answered": 0, "failed": 0}
        """Store requests that are already counted, by outcome."""
        self._exemplar: dict[str, str] | None = None
        self._last_position = 0
        """Position of the previous attempt in its last heartbeat [tokens]."""
        self._is_recovery = False
        """Whether the run had an attempt before this one."""
        self._stall_seconds = self._save_start = 0.0
        """Stall of the save in progress so far [s], and its start [s since 1970]."""

    def begin_attempt(self, history: History, clock: Clock, *, budget: int, last_position: int, trace: Trace) -> None:
        """Begin the attempt that is last in `history`; `last_position` is that of the last heartbeat [tokens]."""
        self._clock, self._counted_seconds = clock, {}
        self._last_position, self._exemplar = last_position, exemplar(trace)
        self._is_recovery = len(history.attempts) > 1
        self._stall_seconds = 0.0
        train, checkpoint = self.families.train, self.families.checkpoint
        train.attempts.set(len(history.attempts))
        train.budget.set(budget)
        train.slow_ranks.set(0)
        newest = history.commits[-1] if history.commits else history.attempts[-1].claim
        checkpoint.last_commit.set(newest.time)
        checkpoint.position.set(history.tokens)
        if self._is_recovery and history.attempts[-2].outcome == "open":
            self.families.recovery.preemptions["lost"].inc()

    def handle(self, event: TrainingEvent, tokens: int) -> None:
        """Update the families by an event at the position `tokens`."""
        self.families.train.position.set(tokens)
        if isinstance(event, BatchEvent):
            self._on_batch(event)
        elif isinstance(event, SaveEvent):
            self._on_save(event)
        elif isinstance(event, RestoreEvent):
            self._on_restore(event)
        elif isinstance(event, AttemptEvent):
            self._on_attempt(event)
        elif isinstance(event, RankSlow):
            self.families.train.slow_ranks.set(1)
        elif isinstance(event, RankRecovered):
            self.families.train.slow_ranks.set(0)
        else:
            assert_never(event)

    def count(self) -> None:
        """Count seconds by phase and requests to the store since the last call."""
        assert self._clock
        seconds_by_phase = self._clock.seconds_by_phase()
        for phase, seconds in seconds_by_phase.items():
            new = max(0.0, seconds - self._counted_seconds.get(phase, 0.0))
            self.families.train.phase_seconds[phase].inc(new)
        self._counted_seconds = seconds_by_phase
        breakers = list(bucket_breakers.values())
        requests = {
            "answered": sum(each.successes for each in breakers),
            "failed": sum(each.failures for each in breakers),
        }
        for outcome, number in requests.items():
            self.families.store.requests[outcome].inc(number - self._counted_requests[outcome])
        self._counted_requests = requests
        self.families.store.circuit_open.set(any(not each.closed for each in breakers))

    def _on_batch(self, event: BatchEvent) -> None:
        train = self.families.train
        match event:
            case StepTimed():
                train.tokens.inc(event.tokens)
                train.step_duration.observe(event.seconds, self._exemplar)
                self.count()
            case StepDone():
                train.loss.set(event.loss)
                train.grad_norm.set(event.norm)
                train.learning_rate.set(event.learning_rate)
            case EvaluationDone():
                train.held_out_loss.set(event.held_out)
            case BatchJudged():
                train.decisions[event.action].inc()
            case BatchSkipped():
                pass
            case _:
                assert_never(event)

    def _on_save(self, event: SaveEvent) -> None:
        checkpoint, now = self.families.checkpoint, time.time()
        match event:
            case SaveStarted():
                self._save_start = now
            case StallEnded():
                self._stall_seconds += event.seconds
            case CheckpointCommitted():
                checkpoint.saves["committed"].inc()
                checkpoint.save_duration["upload"].observe(now - self._save_start, self._exemplar)
                checkpoint.save_duration["block"].observe(self._stall_seconds, self._exemplar)
                checkpoint.last_commit.set(now)
                checkpoint.position.set(event.at)
                self._stall_seconds = 0.0
            case CheckpointFailed():
                checkpoint.saves["failed"].inc()
            case CheckpointStaged() | CheckpointRefused() | CheckpointUntidy():
                pass
            case _:
                assert_never(event)

    def _on_restore(self, event: RestoreEvent) -> None:
        restores = self.families.checkpoint.restores
        match event:
            case CheckpointRestored():
                restores["verified"].inc()
                self.families.train.replayed_tokens.inc(max(0, self._last_position - event.at))
            case CheckpointDamaged():
                restores["damaged"].inc()
            case RollbackRequested() | RestoreNothingSound() | EnvironmentChanged():
                pass
            case _:
                assert_never(event)

    def _on_attempt(self, event: AttemptEvent) -> None:
        assert self._clock
        seconds, recovery = self._clock.seconds_by_phase(), self.families.recovery
        match event:
            case AttemptStarted():
                for stage in ("queue", "startup", "restore") if self._is_recovery else ():
                    recovery.duration[stage].observe(seconds[stage], self._exemplar)
            case AttemptEnded():
                if event.outcome == "preempted":
                    recovery.duration["drain"].observe(seconds["drain"], self._exemplar)
                    recovery.preemptions["saved"].inc()
            case AttemptClaimed():
                pass
            case _:
                assert_never(event)
        self.count()
