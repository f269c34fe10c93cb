"""Telemetry: what a process says about itself. The one door to structlog, prometheus_client and opentelemetry.

All three are loaded when they are used, so that commands which say nothing start fast.
"""

from headway.telemetry.logs import Log, open_log
from headway.telemetry.traces import Span, Spans, Trace, given, here

__all__ = ["Log", "Span", "Spans", "Trace", "given", "here", "open_log"]
