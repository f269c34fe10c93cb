"""Telemetry sinks of a replica: metrics, spans and a log, one of each for a process.

Ray writes a replica's standard error to files of its own, so the log goes to the service, over the control channel.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from headway.serve.config import ServeConfig
from headway.serve.control_client import ControlClient, ControlLogStream
from headway.serve.control_messages import StageDone
from headway.telemetry import Log, Spans, Trace, open_log

if TYPE_CHECKING:
    from headway.telemetry.serving_metrics import ServingMetrics

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
    control: ControlClient | None = None
    """The connection to the service; None: this process belongs to none."""

    def report_stage(self, stage: str, seconds: float) -> None:
        """Tell the service that a stage of the start has ended after so long [s]."""
        if self.control:
            self.control.send(StageDone(stage, seconds))


def open_sinks(config: ServeConfig, control: ControlClient | None = None, **options: Any) -> TelemetrySinks:
    """Open the sinks of this process; `options` are those of `ServingMetrics`.

    `control`: the connection to the service, which gets the log; None: this process writes it to standard error.
    """
    from headway.telemetry.serving_metrics import ServingMetrics

    labels: dict[str, Any] = {
        "model": config.name,
        "version": config.version,
        "role": config.role,
        "device": config.device,
        "quantization": config.quantization,
    }
    resource = {f"headway.{name}": value for name, value in labels.items()}
    stream = cast("TextIO", ControlLogStream(control)) if control else None
    terminal = control.configuration.terminal if control else None
    return TelemetrySinks(
        metrics=ServingMetrics(**options, **labels),
        spans=Spans("headway-serve", resource=resource),
        log=open_log(stream=stream, terminal=terminal, quiet=config.quiet, **labels),
        model=config.name,
        price_per_second=config.price / SECONDS_PER_HOUR,
        run_trace=Trace.parse(config.trace),
        control=control,
    )
