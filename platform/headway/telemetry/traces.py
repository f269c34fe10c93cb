"""The trace that a process belongs to, as W3C `traceparent`.

One trace follows a run from `submit` through every attempt to the tokens that its model serves. It is passed on in the
environment as TRACEPARENT, in journal claims, in manifests and in HTTP headers.
"""

import os
import re
import secrets
from dataclasses import dataclass

TRACE_VARIABLE = "TRACEPARENT"
FORMAT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
"""Flag of a trace whose spans are recorded."""
NANOSECONDS = 1_000_000_000
"""Unit of span times, per second."""


@dataclass(frozen=True)
class Trace:
    """A trace context: the trace, and the span that is the parent of new spans."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = True
    """Whether spans of the trace are recorded."""

    @classmethod
    def new(cls) -> "Trace":
        """A trace with a new random ID."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def parse(cls, text: str | None) -> "Trace | None":
        """Parse a W3C `traceparent`; None for any other text."""
        match = FORMAT.fullmatch(text or "")
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if version == "00" and more:  # only later versions may have more fields
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def environment_trace() -> Trace | None:
    """The trace in this process's environment, if there is one."""
    return Trace.parse(os.environ.get(TRACE_VARIABLE))


def current_trace() -> Trace:
    """The trace in this process's environment, or a new one."""
    return environment_trace() or Trace.new()
