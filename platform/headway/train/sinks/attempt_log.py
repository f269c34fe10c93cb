"""The log of an attempt: lines on standard error, and rank 0's in the run store."""

import sys

from headway.events.event import LogEvent
from headway.events.training_events import StoreWriterEvent, TrainingEvent
from headway.runs import Run
from headway.runs.run_log import LogWriter
from headway.telemetry import Trace, open_log
from headway.train.clock import Clock


class AttemptLog:
    """Logs the events of one rank. Ranks other than 0 log only warnings, and store nothing."""

    def __init__(self, run: Run, attempt: int, rank: int, clock: Clock, *, quiet: bool, trace: Trace) -> None:
        self.writer = LogWriter(run.store, run.name, attempt)
        """Stores the lines, once somebody flushes it."""
        self._clock, is_rank0 = clock, rank == 0
        self._log = open_log(
            self.writer.add if is_rank0 else None,
            quiet=quiet or (is_rank0 and sys.stderr.isatty()),  # a terminal has the progress bar
            level="info" if is_rank0 else "warning",
            run=run.name,
            attempt=attempt,
            rank=rank,
            trace_id=trace.trace_id,
        )

    def handle(self, event: TrainingEvent, tokens: int) -> None:
        """Log an event, with the present phase and the position."""
        if isinstance(event, LogEvent):
            self._log.write(event, phase=self._clock.phase, tokens=tokens)

    def write(self, event: StoreWriterEvent) -> None:
        """Log a problem of the store writer, which may have it at any time, in any phase."""
        self._log.write(event)
