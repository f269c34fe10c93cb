"""Telemetry: what a process says about itself. The one door to structlog, prometheus_client and opentelemetry.

All three are loaded when they are used, so that commands which say nothing start fast.
"""

from headway.telemetry.logs import Log, open_log
from headway.telemetry.traces import Span, Spans, Trace, current_trace, environment_trace

__all__ = ["Log", "Span", "Spans", "Trace", "current_trace", "environment_trace", "open_log"]
