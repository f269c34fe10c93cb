"""Telemetry sinks of a replica: metrics, spans and a log, one of each for a process.

Ray writes a replica's standard error to files of its own, so the log goes to the service through a pipe (`log_pipe`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from headway.serve.config import ServeConfig
from headway.serve.process.log_pipe import LogPipeWriter
from headway.telemetry import Log, Spans, Trace, open_log

if TYPE_CHECKING:
    from headway.telemetry.serving_metrics import ServingMetrics

LOG_VARIABLE = "HEADWAY_SERVE_LOG"
"""Environment variable: the FIFO that the service reads the log from."""
TERMINAL_VARIABLE = "HEADWAY_SERVE_TERMINAL"
"""Environment variable: set if the service's standard error is a terminal."""
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class TelemetrySinks:
    """Where a replica's telemetry goes, and the model that it describes."""

    metrics: "ServingMetrics"
    spans: Spans
    log: Log
    model: str
    """Model name that clients use."""
    price_per_second: float
    """Price of the device per second."""
    run_trace: Trace | None
    """Trace of the run that trained the model."""


def open_sinks(config: ServeConfig, **options: Any) -> TelemetrySinks:
    """Open the sinks of this process; `options` are those of `ServingMetrics`."""
    from headway.telemetry.serving_metrics import ServingMetrics

    labels: dict[str, Any] = {
        "model": config.name,
        "version": config.version,
        "role": config.role,
        "device": config.device,
        "quantization": config.quantization,
    }
    resource = {f"headway.{name}": value for name, value in labels.items()}
    stream = cast("TextIO", LogPipeWriter(Path(os.environ[LOG_VARIABLE]))) if LOG_VARIABLE in os.environ else None
    return TelemetrySinks(
        metrics=ServingMetrics(**options, **labels),
        spans=Spans("headway-serve", resource=resource),
        log=open_log(stream=stream, terminal=TERMINAL_VARIABLE in os.environ, quiet=config.quiet, **labels),
        model=config.name,
        price_per_second=config.price / SECONDS_PER_HOUR,
        run_trace=Trace.parse(config.trace),
    )
