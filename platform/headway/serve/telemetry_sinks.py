"""Where a replica tells what happens: metrics, spans and a log, one of each in a process.

Ray keeps what a replica prints in files of its own; the log goes to the service instead (`relay`).
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from headway.serve.config import ServeConfig
from headway.serve.log_pipe import LogPipeWriter
from headway.telemetry import Log, Spans, Trace, open_log

if TYPE_CHECKING:
    from headway.telemetry.serving_metrics import ServingMetrics

LOG = "HEADWAY_SERVE_LOG"
"""Environment: the FIFO that the service reads."""
TERMINAL = "HEADWAY_SERVE_TERMINAL"
"""Environment: set where a person reads it."""
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class TelemetrySinks:
    """Where what is told goes, and what all of it is about."""

    metrics: "ServingMetrics"
    spans: Spans
    log: Log
    model: str
    """What clients call it."""
    price: float
    """Of a second of the device."""
    origin: Trace | None
    """The trace of the run that made the model."""


@cache
def telemetry_sinks() -> TelemetrySinks:
    """Those of this process, for the endpoint that its environment names."""
    from headway.telemetry.serving_metrics import ServingMetrics

    endpoint = ServeConfig.here()
    about: dict[str, Any] = {
        "model": endpoint.name,
        "version": endpoint.version,
        "role": endpoint.role,
        "device": endpoint.device,
        "quantization": endpoint.quantization,
    }
    resource = {f"headway.{name}": value for name, value in about.items()}
    line = cast("TextIO", LogPipeWriter(Path(os.environ[LOG]))) if LOG in os.environ else None
    return TelemetrySinks(
        metrics=ServingMetrics(**about),
        spans=Spans("headway-serve", resource=resource),
        log=open_log(stream=line, terminal=TERMINAL in os.environ, quiet=endpoint.quiet, **about),
        model=endpoint.name,
        price=endpoint.price / SECONDS_PER_HOUR,
        origin=Trace.parse(endpoint.trace),
    )
