"""Prometheus metrics of a training process, updated by the log events of its attempts.

Rank 0 serves them, because it has the figures of all ranks. They disappear with its process: Prometheus then sees a
target that is down. What must last is in the run store.
"""

import time
from collections.abc import Mapping
from typing import Any

from headway.objectstore.retry import bucket_breakers
from headway.runs import History
from headway.telemetry import Trace
from headway.telemetry.metrics import TrainingMetrics, exemplar
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

    def on_step(self, tokens: int, seconds: float) -> None:
        """Count a step over `tokens`."""
        self.families.train.tokens.inc(tokens)
        self.families.train.step_duration.observe(seconds, self._exemplar)
        self.count()

    def on_save(self) -> None:
        """Record that a save starts."""
        self._save_start = time.time()

    def on_stall(self, seconds: float) -> None:
        """Record that training stood still for a save."""
        self._stall_seconds += seconds

    def on_event(self, event: str, tokens: int, fields: Mapping[str, Any]) -> None:
        """Update the families by an event at the position `tokens`."""
        train = self.families.train
        train.position.set(tokens)
        if event.startswith("checkpoint."):
            self._on_checkpoint_event(event, fields)
        elif event == "step.done":
            train.loss.set(fields["loss"])
            train.grad_norm.set(fields["norm"])
            train.learning_rate.set(fields["learning_rate"])
        elif event == "evaluation.done":
            train.held_out_loss.set(fields["held_out"])
        elif event == "batch.judged":
            train.decisions[fields["action"]].inc()
        elif event in {"rank.slow", "rank.recovered"}:
            train.slow_ranks.set(event == "rank.slow")
        elif event.startswith("attempt."):
            self._on_attempt_event(event, fields)

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

    def _on_checkpoint_event(self, event: str, fields: Mapping[str, Any]) -> None:
        checkpoint, now = self.families.checkpoint, time.time()
        if event == "checkpoint.committed":
            checkpoint.saves["committed"].inc()
            checkpoint.save_duration["upload"].observe(now - self._save_start, self._exemplar)
            checkpoint.save_duration["block"].observe(self._stall_seconds, self._exemplar)
            checkpoint.last_commit.set(now)
            checkpoint.position.set(fields["at"])
            self._stall_seconds = 0.0
        elif event == "checkpoint.failed":
            checkpoint.saves["failed"].inc()
        elif event == "checkpoint.damaged":
            checkpoint.restores["damaged"].inc()
        elif event == "checkpoint.restored":
            checkpoint.restores["verified"].inc()
            self.families.train.replayed_tokens.inc(max(0, self._last_position - fields["at"]))

    def _on_attempt_event(self, event: str, fields: Mapping[str, Any]) -> None:
        assert self._clock
        seconds, recovery = self._clock.seconds_by_phase(), self.families.recovery
        if event == "attempt.started" and self._is_recovery:
            for stage in ("queue", "startup", "restore"):
                recovery.duration[stage].observe(seconds[stage], self._exemplar)
        elif event == "attempt.ended" and fields["outcome"] == "preempted":
            recovery.duration["drain"].observe(seconds["drain"], self._exemplar)
            recovery.preemptions["saved"].inc()
        self.count()
