"""Metrics and spans of the training on rank 0, over all attempts of its process.

Rank 0 serves them, not the launcher, because only a rank knows loss, position and phases at each step. The launcher
writes what only it knows, such as hung or lost ranks, to the journal. Other ranks, and runs without telemetry, export,
import and count nothing.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headway.recipe import Recipe
from headway.runs import History, Holder, Run, read_heartbeat
from headway.telemetry import Span, Spans, Trace
from headway.telemetry.metrics_server import MetricsConfig, MetricsServer
from headway.train.clock import Clock
from headway.train.host.preemption import IMMEDIATE, Preemption
from headway.train.sinks.attempt_spans import AttemptSpans
from headway.train.sinks.event_bus import EventBus

if TYPE_CHECKING:
    from headway.train.sinks.run_metrics import RunMetrics


class RunTelemetry:
    """The telemetry of one rank. It outlives an attempt."""

    def __init__(
        self,
        recipe: Recipe,
        preemption: Preemption,
        *,
        run: str,
        launcher: Holder,
        exposure: MetricsConfig | None,
        grace: float,
    ) -> None:
        """`run`, `launcher`, `exposure` and `grace` are those of the `Task`."""
        first = os.environ.get("RANK", "0") == "0"
        self.recipe, self.preemption, self.grace = recipe, preemption, grace
        self.spans = Spans(
            "headway-train",
            trace=Trace.parse(launcher.trace),
            on=first,
            resource={"headway.run.id": run, "slurm.job.id": os.environ.get("SLURM_JOB_ID")},
        )
        self.attempt = 0
        self._clock: Clock | None = None
        self._metrics: RunMetrics | None = None
        self._server: MetricsServer | None = None
        self._linger_seconds = 0.0
        if first and exposure:
            from headway.train.sinks import run_metrics

            self._metrics = run_metrics.RunMetrics()
            self._server = MetricsServer(exposure, self._metrics.families.registry, run, launcher.launch)
            self._linger_seconds = exposure.linger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving metrics, and flush the spans."""
        self.spans.close()
        if self._server:
            self._server.close()

    def linger(self) -> None:
        """Serve the last metrics for a while, so that they are scraped; a further signal ends it."""
        self.spans.close()
        level = self.preemption.level
        if self._server and level < IMMEDIATE:
            self._server.linger(self._linger_limit(), lambda: self.preemption.level > level)

    def begin_attempt(self, run: Run, history: History, clock: Clock) -> Trace:
        """Begin the attempt that is last in `history`; returns its trace."""
        claim = history.attempts[-1].claim
        trace = Trace.parse(claim.holder.trace) or self.spans.trace or Trace.new()
        self.spans.trace, self.attempt, self._clock = trace, claim.seq, clock
        if self._metrics and self._server:
            heartbeat = read_heartbeat(run.store, run.name)
            self._metrics.begin_attempt(
                history,
                clock,
                budget=self.recipe.train.tokens,
                last_position=heartbeat.tokens if heartbeat else 0,
                trace=trace,
            )
            self._server.announce(run=run.name, recipe=self.recipe.name, attempt=str(claim.seq))
        return trace

    @contextmanager
    def span(self, phase: str) -> Iterator[Span]:
        """Record a span for the block, which runs in `phase`."""
        with self.spans.span(f"train.{phase}", attempt=self.attempt) as span:
            yield span

    def subscribe_to(self, events: EventBus) -> None:
        """Have metrics and spans follow the events of the present attempt."""
        if self._metrics:
            events.subscribe(self._metrics.handle)
        if self.spans.on and self._clock:
            events.subscribe(AttemptSpans(self.spans, self.attempt, self._clock).handle)

    def _linger_limit(self) -> float:
        """How long to serve the last metrics [s]: after a stop request, at most half of the grace period."""
        since = self.preemption.since
        rest = float("inf") if since is None else self.grace / 2 - (time.monotonic() - since)
        return min(self._linger_seconds, rest)
