"""Telemetry: logs, metrics and traces of a process. The one door to structlog, prometheus_client and opentelemetry.

All three are imported on first use, so that commands without telemetry start fast.
"""

from headway.telemetry.logs import Log, open_log
from headway.telemetry.spans import Span, Spans
from headway.telemetry.traces import Trace, current_trace, environment_trace

__all__ = ["Log", "Span", "Spans", "Trace", "current_trace", "environment_trace", "open_log"]
