"""Traces: one story from `submit` through every attempt to the tokens that the model serves, told in spans.

A trace travels as W3C `traceparent`: in the environment as TRACEPARENT, in claims and manifests, in HTTP headers.
Spans go to a collector, if OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names one, and as JSON lines to the
file that HEADWAY_TRACES names. Where neither is set, spans cost next to nothing, and traces are passed on as they came.
Nothing here ever fails or waits long: a collector that is gone costs spans, never a run.
"""

import contextlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as Recorded
    from opentelemetry.trace import SpanContext

Present = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]
Value = Present | None
"""Of an attribute; None leaves it out."""
Attributes = Mapping[str, Value]
NONE: Attributes = {}
VARIABLE = "TRACEPARENT"
FILE_VARIABLE = "HEADWAY_TRACES"
COLLECTOR_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FORMAT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
"""The flag of a trace whose spans are kept."""
CLOSE_SECONDS = 2.0
"""How long a process that ends waits for its last spans to be taken [s]."""
NANOSECONDS = 1_000_000_000
log = logging.getLogger("headway")


@dataclass(frozen=True)
class Trace:
    """A place in a trace: which one, and the span there that what follows hangs from."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = True
    """Whether spans of it are kept."""

    @classmethod
    def new(cls) -> "Trace":
        """A trace of its own."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def parse(cls, text: str | None) -> "Trace | None":
        """A trace from a W3C `traceparent`; None if `text` is none."""
        found = FORMAT.fullmatch(text or "")
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "00" and more:  # later versions may say more; this one does not
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def environment_trace() -> Trace | None:
    """The trace that this process was started in, by its environment."""
    return Trace.parse(os.environ.get(VARIABLE))


def current_trace() -> Trace:
    """The trace that this process was started in, or a new one."""
    return environment_trace() or Trace.new()


class Span:
    """A span that has not ended."""

    def __init__(self, trace: Trace, recorded: "Recorded | None" = None) -> None:
        self.trace = trace
        """Where what happens inside the span belongs: the parent of its children, here and in other processes."""
        self._recorded = recorded

    def set(self, attributes: Attributes = NONE, **own: Value) -> None:
        """Say more about it, as `Spans.span` does."""
        if self._recorded:
            self._recorded.set_attributes(_present(_named(attributes, own)))

    def fail(self, problem: str | BaseException) -> None:
        """Say that what it stands for went wrong."""
        if self._recorded:
            _fail(self._recorded, problem)

    def end(self, moment: float | None = None) -> None:
        """Record it, as ended at `moment` [s since 1970], or now."""
        if self._recorded:
            self._recorded.end(None if moment is None else int(moment * NANOSECONDS))


class Spans:
    """The spans of one process, or of one part of it: where they go, and whose they are."""

    def __init__(
        self, service: str, *, trace: Trace | None = None, on: bool = True, resource: Attributes = NONE
    ) -> None:
        """`service`: as people look for it, such as `headway-train`. `trace`: what spans hang from that name no parent.

        `resource` says what all spans have in common, in full names: `{"headway.run.id": "first"}`. Where not `on`,
        nothing is recorded, as if nobody had asked.
        """
        self.trace = trace
        self._provider = _provider(service, resource) if on else None
        self._tracer = self._provider.get_tracer("headway") if self._provider else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    def begin(
        self,
        name: str,
        *,
        start: float | None = None,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
        attributes: Attributes = NONE,
        **own: Value,
    ) -> Span:
        """A span that began now, or at `start` [s since 1970], for whoever ends it; it is not recorded before that."""
        parent = parent or self.trace
        if self._tracer is None:  # what comes after hangs from what came before, as if this process were not there
            return Span(parent or Trace.new())
        from opentelemetry import trace as api
        from opentelemetry.context import Context

        context = Context()
        if parent:
            context = api.set_span_in_context(api.NonRecordingSpan(_context(parent)), context)
        recorded = self._tracer.start_span(
            name,
            context,
            attributes=_present(_named(attributes, own)),
            links=[api.Link(_context(link)) for link in links],
            start_time=None if start is None else int(start * NANOSECONDS),
        )
        place = recorded.get_span_context()
        trace_id, span_id = api.format_trace_id(place.trace_id), api.format_span_id(place.span_id)
        return Span(Trace(trace_id, span_id, place.trace_flags.sampled), recorded)

    @contextlib.contextmanager
    def span(
        self,
        name: str,
        *,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
        attributes: Attributes = NONE,
        **own: Value,
    ) -> Iterator[Span]:
        """Record the block as a span; one that raises has failed.

        `attributes` have their full names, such as `gen_ai.request.model`; of our `own`, `tokens` is recorded as
        `headway.tokens`.
        """
        span = self.begin(name, parent=parent, links=links, attributes=_named(attributes, own))
        try:
            yield span
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            span.end()

    def record(
        self,
        name: str,
        start: float,
        end: float,
        *,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
        problem: str | BaseException | None = None,
        attributes: Attributes = NONE,
        **own: Value,
    ) -> Trace:
        """Record a span that is over, from `start` to `end` [s since 1970]; returns its place in the trace.

        `problem`: what went wrong, if anything did. `attributes` and `own` are those of `span`.
        """
        span = self.begin(name, start=start, parent=parent, links=links, attributes=_named(attributes, own))
        if problem is not None:
            span.fail(problem)
        span.end(max(start, end))
        return span.trace

    def close(self) -> None:
        """Hand over what was recorded; waits for that a few seconds at most. Spans that come later are lost."""
        provider, self._provider, self._tracer = self._provider, None, None
        if provider:  # from a thread: the exporter itself would wait for a collector that is gone
            ending = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
            ending.start()
            ending.join(CLOSE_SECONDS)
            if ending.is_alive():
                log.warning("headway: the collector did not take the last spans in %.0f s; is it there?", CLOSE_SECONDS)


def _provider(service: str, resource: Attributes) -> "TracerProvider | None":
    """Where spans go, by the environment; None if nowhere."""
    file, collector = os.environ.get(FILE_VARIABLE), any(os.environ.get(name) for name in COLLECTOR_VARIABLES)
    refused = os.environ.get("OTEL_TRACES_EXPORTER") == "none" or os.environ.get("OTEL_SDK_DISABLED") == "true"
    if not file and (not collector or refused):
        return None
    try:
        from headway.telemetry import span_export

        return span_export.provider(service, _present(resource), file=file, collector=collector and not refused)
    except Exception as error:  # whatever the exporter makes of its environment: work goes on without spans
        log.warning("headway: no spans are recorded: %s", error)
        return None


def _context(trace: Trace) -> "SpanContext":
    """A place in a trace as opentelemetry has it."""
    from opentelemetry import trace as api

    flags = api.TraceFlags(SAMPLED if trace.sampled else 0)
    return api.SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)


def _named(full: Attributes, own: Attributes) -> dict[str, Value]:
    """Attributes by their full names."""
    return {**full, **{f"headway.{name}": value for name, value in own.items()}}


def _present(attributes: Attributes) -> dict[str, Present]:
    """Attributes without those that are left out."""
    return {name: value for name, value in attributes.items() if value is not None}


def _fail(recorded: "Recorded", problem: str | BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    kind = type(problem).__name__ if isinstance(problem, BaseException) else None
    if kind:
        recorded.set_attribute("error.type", kind)
    recorded.set_status(Status(StatusCode.ERROR, str(problem) or kind))
