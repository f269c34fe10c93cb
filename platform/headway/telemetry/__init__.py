"""Telemetry: what a process says about itself. The one door to structlog."""

from headway.telemetry.logs import Log, open_log

__all__ = ["Log", "open_log"]
