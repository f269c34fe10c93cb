"""The event bus of an attempt with its sinks: summary, metrics, spans, log, heartbeat and progress bar."""

import sys
from types import TracebackType
from typing import Self

from headway.events.training_events import StepDone, StepTimed
from headway.reports.summary import SummaryBuilder
from headway.runs import Holder, Run
from headway.telemetry import Trace
from headway.train.clock import Clock
from headway.train.sinks.attempt_log import AttemptLog
from headway.train.sinks.event_bus import EventBus
from headway.train.sinks.progress_bar import ProgressBar
from headway.train.sinks.run_telemetry import RunTelemetry
from headway.train.sinks.store_writer import StoreWriter


class Reporter(EventBus):
    """The bus of one rank in one attempt. As a context it runs the sinks that have to be started."""

    def __init__(
        self,
        run: Run,
        attempt: int,
        rank: int,
        clock: Clock,
        *,
        holder: Holder,
        budget: int,
        heartbeat_seconds: float,
        quiet: bool,
        telemetry: RunTelemetry,
        trace: Trace,
    ) -> None:
        """Subscribe the sinks. The log comes after summary and metrics, so they agree with every line that is shown."""
        super().__init__()
        self.summary_builder = SummaryBuilder(run, attempt, budget)
        log = AttemptLog(run, attempt, rank, clock, quiet=quiet, trace=trace)
        self._running: list[ProgressBar | StoreWriter] = []
        """Sinks that have a terminal or a thread while the attempt runs, in the order of their starts."""
        if rank == 0:
            self.subscribe(lambda event, _: self.summary_builder.handle(event))
        telemetry.subscribe_to(self)
        self.subscribe(log.handle)
        if rank == 0:
            if sys.stderr.isatty() and not quiet:
                self._running.append(ProgressBar(budget))
            self._running.append(
                StoreWriter(attempt, clock, log, self.summary_builder, holder=holder, every=heartbeat_seconds)
            )
        for sink in self._running:
            self.subscribe(sink.handle)

    def __enter__(self) -> Self:
        for sink in self._running:
            sink.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in reversed(self._running):
            sink.close()

    def step(self, tokens: int, loss: float, norm: float, rate: float, seconds: float) -> None:
        """Report a step that took `seconds` and ended at `tokens`, with the learning rate `rate`."""
        batch = tokens - self.tokens
        self.tokens = tokens
        self.emit(StepTimed(tokens=batch, seconds=seconds))
        speed = round(batch / seconds, 1)
        self.emit(StepDone(loss=loss, norm=norm, learning_rate=rate, tokens_per_second=speed))
