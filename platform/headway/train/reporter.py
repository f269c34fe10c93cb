"""What an attempt says while it runs: events, a progress bar on a terminal, and a heartbeat in the store."""

import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from headway.errors import HeadwayError, StoreError
from headway.reports.summary import SummaryBuilder
from headway.runs import Heartbeat, Holder, Run, read_heartbeat, write_heartbeat
from headway.runs.liveness import RunSummary
from headway.runs.run_log import LogWriter
from headway.telemetry import Log, Trace, open_log
from headway.train.clock import Clock
from headway.train.run_telemetry import RunTelemetry

UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


class TokensColumn(ProgressColumn):
    """Tokens done of the budget, in the budget's unit."""

    def render(self, task: Task) -> Text:
        """The column of `task`."""
        budget = task.total or 0
        unit, name = next(((u, n) for u, n in UNITS if budget >= u), (1, ""))
        return Text(f"{task.completed / unit:,.1f}/{budget / unit:,.1f}{name} tokens")


class Reporter:
    """The voice of one rank during one attempt."""

    def __init__(
        self,
        run: Run,
        attempt: int,
        rank: int,
        clock: Clock,
        *,
        holder: Holder,
        budget: int,
        every: float,
        quiet: bool,
        instruments: RunTelemetry,
        trace: Trace,
    ) -> None:
        self.run, self.attempt, self.clock, self.holder, self.every = run, attempt, clock, holder, every
        self.first, self.instruments = rank == 0, instruments
        self.tokens = 0
        self.tally = SummaryBuilder(run, attempt, budget)
        self._writer = LogWriter(run.store, run.name, attempt)
        self.log: Log = open_log(
            self._writer.add if self.first else None,
            quiet=quiet or (self.first and sys.stderr.isatty()),
            level="info" if self.first else "warning",
            run=run.name,
            attempt=attempt,
            rank=rank,
            trace_id=trace.trace_id,
        )
        self._bar = _bar(budget) if self.first and sys.stderr.isatty() and not quiet else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._pulse, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        if self.first:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.first:
            self._thread.join()
            self._beat()
        if self._bar:
            self._bar.stop()

    def event(self, name: str, **fields: object) -> None:
        """Say that something happened."""
        self._count(name, fields)
        self.log.info(name, phase=self.clock.phase, tokens=self.tokens, **fields)
        if self._bar and name != "step.done":
            told = " ".join(f"{key}={value}" for key, value in fields.items())
            self._bar.console.print(f"[dim]{name}[/dim] at {self.tokens:,} tokens {told}", highlight=False)

    def warn(self, name: str, **fields: object) -> None:
        """Say that something is wrong, but dealt with; `fields` may name another rank or phase than this one."""
        self._count(name, fields)
        self.log.warning(name, **{"phase": self.clock.phase, "tokens": self.tokens, **fields})

    def step(self, tokens: int, loss: float, norm: float, rate: float, seconds: float) -> None:
        """Say that a batch was trained on, up to `tokens`."""
        speed = (tokens - self.tokens) / seconds
        self.instruments.stepped(tokens - self.tokens, seconds)
        self.tokens = tokens
        self.event("step.done", loss=loss, norm=norm, learning_rate=rate, tokens_per_second=round(speed, 1))
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=tokens, loss=f"{loss:.3f}", speed=f"{speed:,.0f}")

    def _count(self, name: str, fields: Mapping[str, object]) -> None:
        self.tally.take(name, fields)
        self.instruments.take(name, self.tokens, fields)

    def _pulse(self) -> None:
        self._beat()
        while not self._ended.wait(self.every):
            self._beat()

    def _beat(self) -> None:
        """Write heartbeat and log; a store that fails here fails louder at the next checkpoint."""
        heartbeat = Heartbeat(
            attempt=self.attempt,
            holder=self.holder,
            phase=self.clock.phase,
            tokens=self.tokens,
            time=time.time(),
            every=self.every,
            summary=self._summary(),
        )
        try:
            last = read_heartbeat(self.run.store, self.run.name)
            if last is None or last.attempt <= self.attempt:  # a fenced attempt keeps quiet about its health
                write_heartbeat(self.run.store, self.run.name, heartbeat)
            self._writer.flush()
        except (StoreError, OSError) as error:
            self.log.warning("heartbeat.failed", error=str(error))

    def _summary(self) -> RunSummary | None:
        """What the run has come to; unknown if its past cannot be read, which is no reason not to be alive."""
        try:
            return self.tally.summary()
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
