"""What rank 0 shows of training while it goes on: `/metrics` and spans, over all attempts of its process.

Rank 0, and not the launcher beside it: only a rank knows loss, position and phases, and it knows them at each step
without a word passing between processes. What the launcher alone knows, that ranks hang or are gone, it writes to the
journal. On other ranks, and where nobody asked, nothing is shown, loaded or counted.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headway.recipe import Recipe
from headway.runs import History, Run, read_heartbeat
from headway.telemetry import Span, Spans, Trace
from headway.telemetry.exposition import Exposition
from headway.train.clock import Clock
from headway.train.preemption import IMMEDIATE, Preemption
from headway.train.task import Task

if TYPE_CHECKING:
    from headway.train.run_metrics import RunMetrics


class RunTelemetry:
    """The instruments of one rank. They outlive an attempt."""

    def __init__(self, task: Task, recipe: Recipe, preemption: Preemption) -> None:
        first = os.environ.get("RANK", "0") == "0"
        self.task, self.recipe, self.preemption = task, recipe, preemption
        self.spans = Spans(
            "headway-train",
            trace=Trace.parse(task.launcher.trace),
            on=first,
            resource={"headway.run.id": task.run, "slurm.job.id": os.environ.get("SLURM_JOB_ID")},
        )
        self.attempt = 0
        self._clock: Clock | None = None
        self._saving = 0.0
        """When the save on its way began [s since 1970]."""
        self._figures: RunMetrics | None = None
        self._exposition: Exposition | None = None
        if first and task.exposure:
            from headway.train import run_metrics

            self._figures = run_metrics.RunMetrics()
            registry = self._figures.shown.registry
            self._exposition = Exposition(task.exposure, registry, task.run, task.launcher.launch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Show nothing more."""
        self.spans.close()
        if self._exposition:
            self._exposition.close()

    def linger(self) -> None:
        """Show the last figures for a while, as far as whoever waits for the end has time; until the next signal."""
        self.spans.close()
        level = self.preemption.level
        if self._exposition and level < IMMEDIATE:
            self._exposition.linger(self._patience(), lambda: self.preemption.level > level)

    def begin(self, run: Run, history: History, clock: Clock) -> Trace:
        """An attempt begins, the last of `history`; returns the trace that it belongs to."""
        claim = history.attempts[-1].claim
        trace = Trace.parse(claim.holder.trace) or self.spans.trace or Trace.new()
        self.spans.trace, self.attempt, self._clock = trace, claim.seq, clock
        if self._figures and self._exposition:
            beat = read_heartbeat(run.store, run.name)
            seen = beat.tokens if beat else 0
            self._figures.begin(history, clock, budget=self.recipe.train.tokens, seen=seen, trace=trace)
            self._exposition.announce(run=run.name, recipe=self.recipe.name, attempt=str(claim.seq))
        return trace

    @contextmanager
    def during(self, phase: str) -> Iterator[Span]:
        """A span for the block, which is spent in `phase`."""
        with self.spans.span(f"train.{phase}", attempt=self.attempt) as span:
            yield span

    def stepped(self, tokens: int, seconds: float) -> None:
        """A batch of `tokens` was trained on."""
        if self._figures:
            self._figures.stepped(tokens, seconds)

    def saving(self) -> None:
        """A save begins."""
        self._saving = time.time()
        if self._figures:
            self._figures.saving()

    def stalled(self, seconds: float) -> None:
        """Training stood still for a save."""
        if self._figures:
            self._figures.stalled(seconds)

    def take(self, event: str, tokens: int, fields: Mapping[str, Any]) -> None:
        """Go on by an event of the log, at the position `tokens`."""
        if self._figures:
            self._figures.take(event, tokens, fields)
        if not self.spans.on:
            return
        now = time.time()
        if event == "checkpoint.committed":
            self._record("checkpoint", self._saving, now, tokens=fields["at"])
        elif event == "checkpoint.failed":
            self._record("checkpoint", self._saving, now, problem=fields["problem"])
        elif event == "attempt.started":
            stages = {f"stage.{stage}": seconds for stage, seconds in fields.items() if stage != "total"}
            self._record("startup", now - fields["total"], now, tokens=tokens, **stages)
        elif event == "attempt.ended" and self._clock:
            began = now - self._clock.spent()["drain"]
            self._record("drain", began, now, tokens=tokens, outcome=fields["outcome"])

    def _record(self, phase: str, start: float, end: float, *, problem: str | None = None, **own: Any) -> None:
        self.spans.record(f"train.{phase}", start, end, problem=problem, attempt=self.attempt, **own)

    def _patience(self) -> float:
        """How long the last figures may stay [s]: of a grace that runs, half is left to whoever waits for the end."""
        assert self.task.exposure
        since = self.preemption.since
        left = float("inf") if since is None else self.task.grace / 2 - (time.monotonic() - since)
        return min(self.task.exposure.linger, left)
