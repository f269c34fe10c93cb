"""Writes heartbeats and the log of an attempt to the run store, from rank 0."""

import time

from headway.errors import HeadwayError
from headway.events.event import LogEvent
from headway.events.training_events import (
    CheckpointStaged,
    HeartbeatFailed,
    StepDone,
    SummaryFailed,
    TrainingEvent,
)
from headway.reports.summary import SummaryBuilder
from headway.runs import Heartbeat, Holder
from headway.runs.background_writer import BackgroundWriter
from headway.runs.liveness import RunSummary
from headway.train.clock import Clock
from headway.train.sinks.attempt_log import AttemptLog

ROUTINE = (StepDone, CheckpointStaged)
"""Events that readers of the stored log can wait for; all others are written soon."""


class StoreWriter:
    """Writes that an attempt is alive, how far it is, and its log."""

    def __init__(
        self, attempt: int, clock: Clock, log: AttemptLog, summary: SummaryBuilder, *, holder: Holder, every: float
    ) -> None:
        """`every`: time between two heartbeats [s]."""
        self._attempt, self._clock, self._log, self._summary = attempt, clock, log, summary
        self._holder, self._every, self._tokens = holder, every, 0
        self._writer = BackgroundWriter(log.writer, self._heartbeat, every, on_error=self._on_error)

    def start(self) -> None:
        """Write from now on."""
        self._writer.start()

    def close(self) -> None:
        """Stop, and write the last heartbeat and the rest of the log."""
        self._writer.close()

    def handle(self, event: TrainingEvent, tokens: int) -> None:
        """Remember the position for the next heartbeat, and write an event that is not routine soon."""
        self._tokens = tokens
        if isinstance(event, LogEvent) and not isinstance(event, ROUTINE):
            self._writer.notify()

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            attempt=self._attempt,
            holder=self._holder,
            phase=self._clock.phase,
            tokens=self._tokens,
            time=time.time(),
            every=self._every,
            summary=self._build_summary(),
        )

    def _on_error(self, error: Exception) -> None:
        """Log it, no more: if the store stays down, the next checkpoint fails."""
        self._log.write(HeartbeatFailed(error=str(error)))

    def _build_summary(self) -> RunSummary | None:
        """The summary of the run for the heartbeat; None if its history cannot be read."""
        try:
            return self._summary.build()
        except (HeadwayError, OSError, ValueError) as error:
            self._log.write(SummaryFailed(error=str(error)))
            return None
