"""The figures of a training process for Prometheus, kept by the events of its attempts as the log has them.

They are those of rank 0, which learns all that the others know with each batch. They are gone with its process: that
is what Prometheus sees as a target that is down, and what stays true stands in the run store.
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
    """Counts over all attempts of this process."""

    def __init__(self) -> None:
        self.shown = TrainingMetrics()
        self._clock: Clock | None = None
        self._booked: dict[str, float] = {}
        """Seconds of the present clock that are counted, by phase."""
        self._asked = {"answered": 0, "failed": 0}
        """Requests to the store that are counted, by outcome."""
        self._exemplar: dict[str, str] | None = None
        self._seen = 0
        """Tokens at which the attempt before was last seen alive."""
        self._recovers = False
        """Whether an attempt came before this one."""
        self._blocked = self._saving = 0.0
        """How long training stood still for the save on its way [s], and when that began [s since 1970]."""

    def begin(self, history: History, clock: Clock, *, budget: int, seen: int, trace: Trace) -> None:
        """An attempt begins: the last of `history`."""
        self._clock, self._booked, self._seen, self._exemplar = clock, {}, seen, exemplar(trace)
        self._recovers = len(history.attempts) > 1
        self._blocked = 0.0
        self.shown.train.attempts.set(len(history.attempts))
        self.shown.train.budget.set(budget)
        self.shown.train.slow_ranks.set(0)
        newest = history.commits[-1] if history.commits else history.attempts[-1].claim
        self.shown.checkpoint.last_commit.set(newest.time)
        self.shown.checkpoint.position.set(history.tokens)
        if self._recovers and history.attempts[-2].outcome == "open":
            self.shown.recovery.preemptions["lost"].inc()

    def stepped(self, tokens: int, seconds: float) -> None:
        """A batch of `tokens` was trained on."""
        self.shown.train.tokens.inc(tokens)
        self.shown.train.step_duration.observe(seconds, self._exemplar)
        self.book()

    def saving(self) -> None:
        """A save begins."""
        self._saving = time.time()

    def stalled(self, seconds: float) -> None:
        """Training stood still for a save."""
        self._blocked += seconds

    def take(self, event: str, tokens: int, fields: Mapping[str, Any]) -> None:
        """Go on by an event at the position `tokens`."""
        self.shown.train.position.set(tokens)
        if event.startswith("checkpoint."):
            self._checkpoint(event, fields)
        elif event == "step.done":
            self.shown.train.loss.set(fields["loss"])
            self.shown.train.grad_norm.set(fields["norm"])
            self.shown.train.learning_rate.set(fields["learning_rate"])
        elif event == "evaluation.done":
            self.shown.train.held_out_loss.set(fields["held_out"])
        elif event == "batch.judged":
            self.shown.train.decisions[fields["action"]].inc()
        elif event in {"rank.slow", "rank.recovered"}:
            self.shown.train.slow_ranks.set(event == "rank.slow")
        elif event.startswith("attempt."):
            self._attempt(event, fields)

    def book(self) -> None:
        """Count what passed since the last time: seconds by phase, and what was asked of the store."""
        assert self._clock
        spent = self._clock.spent()
        for phase, seconds in spent.items():
            self.shown.train.phase_seconds[phase].inc(max(0.0, seconds - self._booked.get(phase, 0.0)))
        self._booked = spent
        asked = {
            "answered": sum(each.breaker.answered for each in bucket_breakers),
            "failed": sum(each.breaker.failed for each in bucket_breakers),
        }
        for outcome, requests in asked.items():
            self.shown.store.requests[outcome].inc(requests - self._asked[outcome])
        self._asked = asked
        self.shown.store.circuit_open.set(any(not each.breaker.closed for each in bucket_breakers))

    def _checkpoint(self, event: str, fields: Mapping[str, Any]) -> None:
        shown, now = self.shown.checkpoint, time.time()
        if event == "checkpoint.committed":
            shown.saves["committed"].inc()
            shown.save_duration["upload"].observe(now - self._saving, self._exemplar)
            shown.save_duration["block"].observe(self._blocked, self._exemplar)
            shown.last_commit.set(now)
            shown.position.set(fields["at"])
            self._blocked = 0.0
        elif event == "checkpoint.failed":
            shown.saves["failed"].inc()
        elif event == "checkpoint.damaged":
            shown.restores["damaged"].inc()
        elif event == "checkpoint.restored":
            shown.restores["verified"].inc()
            self.shown.train.replayed_tokens.inc(max(0, self._seen - fields["at"]))

    def _attempt(self, event: str, fields: Mapping[str, Any]) -> None:
        assert self._clock
        spent, recovery = self._clock.spent(), self.shown.recovery
        if event == "attempt.started" and self._recovers:
            for stage in ("queue", "startup", "restore"):
                recovery.duration[stage].observe(spent[stage], self._exemplar)
        elif event == "attempt.ended" and fields["outcome"] == "preempted":
            recovery.duration["drain"].observe(spent["drain"], self._exemplar)
            recovery.preemptions["saved"].inc()
        self.book()
