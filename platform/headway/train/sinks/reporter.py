"""Reports of a running attempt: log events, a progress bar on a terminal, and a heartbeat in the run store."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from headway.errors import HeadwayError
from headway.reports.summary import SummaryBuilder
from headway.runs import Heartbeat, Holder, Run
from headway.runs.liveness import RunSummary
from headway.runs.publisher import Publisher
from headway.runs.run_log import LogWriter
from headway.telemetry import Log, Trace, open_log
from headway.train.clock import Clock
from headway.train.sinks.run_telemetry import RunTelemetry

ROUTINE_EVENTS = {"step.done", "checkpoint.staged"}
"""Events that readers of the stored log can wait for; all others are published soon."""
UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


class TokensColumn(ProgressColumn):
    """Tokens done and budget, in the budget's unit."""

    def render(self, task: Task) -> Text:
        """Render the column of `task`."""
        budget = task.total or 0
        unit, name = next(((u, n) for u, n in UNITS if budget >= u), (1, ""))
        return Text(f"{task.completed / unit:,.1f}/{budget / unit:,.1f}{name} tokens")


class Reporter:
    """Reports for one rank during one attempt."""

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
        self.run, self.attempt, self.clock, self.holder = run, attempt, clock, holder
        self.heartbeat_seconds, self.is_rank0, self.telemetry = heartbeat_seconds, rank == 0, telemetry
        self.tokens = 0
        self.summary_builder = SummaryBuilder(run, attempt, budget)
        self._writer = LogWriter(run.store, run.name, attempt)
        self.log: Log = open_log(
            self._writer.add if self.is_rank0 else None,
            quiet=quiet or (self.is_rank0 and sys.stderr.isatty()),
            level="info" if self.is_rank0 else "warning",
            run=run.name,
            attempt=attempt,
            rank=rank,
            trace_id=trace.trace_id,
        )
        self._bar = _bar(budget) if self.is_rank0 and sys.stderr.isatty() and not quiet else None
        self._publisher = Publisher(self._writer, self._heartbeat, heartbeat_seconds, on_error=self._on_publish_error)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        if self.is_rank0:
            self._publisher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_rank0:
            self._publisher.close()
        if self._bar:
            self._bar.stop()

    def event(self, name: str, **fields: object) -> None:
        """Log an event."""
        self._record(name, fields)
        self.log.info(name, phase=self.clock.phase, tokens=self.tokens, **fields)
        if name not in ROUTINE_EVENTS:
            self._publisher.notify()
        if self._bar and name != "step.done":
            details = " ".join(f"{key}={value}" for key, value in fields.items())
            self._bar.console.print(f"[dim]{name}[/dim] at {self.tokens:,} tokens {details}", highlight=False)

    def warn(self, name: str, **fields: object) -> None:
        """Log a warning about a problem that was dealt with; `fields` may override rank and phase."""
        self._record(name, fields)
        self.log.warning(name, **{"phase": self.clock.phase, "tokens": self.tokens, **fields})
        self._publisher.notify()

    def step(self, tokens: int, loss: float, norm: float, rate: float, seconds: float) -> None:
        """Log a step that ended at `tokens`."""
        speed = (tokens - self.tokens) / seconds
        self.telemetry.on_step(tokens - self.tokens, seconds)
        self.tokens = tokens
        self.event("step.done", loss=loss, norm=norm, learning_rate=rate, tokens_per_second=round(speed, 1))
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=tokens, loss=f"{loss:.3f}", speed=f"{speed:,.0f}")

    def _record(self, name: str, fields: Mapping[str, object]) -> None:
        self.summary_builder.handle(name, fields)
        self.telemetry.on_event(name, self.tokens, fields)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            attempt=self.attempt,
            holder=self.holder,
            phase=self.clock.phase,
            tokens=self.tokens,
            time=time.time(),
            every=self.heartbeat_seconds,
            summary=self._summary(),
        )

    def _on_publish_error(self, error: Exception) -> None:
        """Log it, no more: if the store stays down, the next checkpoint fails."""
        self.log.warning("heartbeat.failed", error=str(error))

    def _summary(self) -> RunSummary | None:
        """The summary of the run for the heartbeat; None if its history cannot be read."""
        try:
            return self.summary_builder.build()
        except (HeadwayError, OSError, ValueError) as error:
            self.log.warning("summary.failed", error=str(error))
            return None


def _bar(budget: int) -> Progress:
    bar = Progress(
        BarColumn(bar_width=20),
        TokensColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[speed]} tokens/s"),
        Remaining(),
        console=Console(stderr=True),
    )
    bar.add_task("training", total=budget, loss="-", speed="-")
    return bar
