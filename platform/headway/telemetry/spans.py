"""Spans of a process: started, recorded and exported with OpenTelemetry.

Spans go to the collector in OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT), and as JSON lines to the file in
HEADWAY_TRACES. If neither is set, spans cost next to nothing, and traces are passed on unchanged. No function here
raises, or waits for long: a missing collector costs spans, never a run.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headway.telemetry.traces import NANOSECONDS, SAMPLED, Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanContext

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]
Attributes = Mapping[str, AttributeValue | None]
"""Attributes by name. Attributes of value None are left out."""
NO_ATTRIBUTES: Attributes = {}
FILE_VARIABLE = "HEADWAY_TRACES"
COLLECTOR_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CLOSE_SECONDS = 2.0
"""Longest wait for the export of the last spans [s]."""
log = logging.getLogger("headway")


class Span:
    """A span that has not ended."""

    def __init__(self, trace: Trace, span: "OtelSpan | None" = None) -> None:
        """`span`: the OpenTelemetry span, if it is recorded."""
        self.trace = trace
        """Trace context of the span's children, in this process and in others."""
        self._span = span

    def set(self, attributes: Attributes = NO_ATTRIBUTES, **own: AttributeValue | None) -> None:
        """Set attributes; see `Spans.span`."""
        if self._span:
            self._span.set_attributes(_without_none(_full_names(attributes, own)))

    def fail(self, problem: str | BaseException) -> None:
        """Mark the span as failed."""
        if self._span:
            _set_error(self._span, problem)

    def end(self, moment: float | None = None) -> None:
        """End and record the span, at `moment` [s since 1970] or now."""
        if self._span:
            self._span.end(None if moment is None else int(moment * NANOSECONDS))


class Spans:
    """Records the spans of one process, or of one part of it."""

    def __init__(
        self, service: str, *, trace: Trace | None = None, on: bool = True, resource: Attributes = NO_ATTRIBUTES
    ) -> None:
        """`service`: service name, such as `headway-train`. `trace`: default parent of spans.

        `resource`: attributes of all spans, by full names, such as `{"headway.run.id": "first"}`. If `on` is false,
        no span is recorded.
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
        """Whether spans are recorded."""
        return self._tracer is not None

    def start_span(
        self,
        name: str,
        *,
        start: float | None = None,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        **own: AttributeValue | None,
    ) -> Span:
        """Start a span now, or at `start` [s since 1970]. It is recorded when the caller ends it."""
        parent = parent or self.trace
        if self._tracer is None:  # children of an unrecorded span get its parent
            return Span(parent or Trace.new())
        from opentelemetry import trace as api
        from opentelemetry.context import Context

        context = Context()
        if parent:
            context = api.set_span_in_context(api.NonRecordingSpan(_span_context(parent)), context)
        span = self._tracer.start_span(
            name,
            context,
            attributes=_without_none(_full_names(attributes, own)),
            links=[api.Link(_span_context(link)) for link in links],
            start_time=None if start is None else int(start * NANOSECONDS),
        )
        ids = span.get_span_context()
        trace_id, span_id = api.format_trace_id(ids.trace_id), api.format_span_id(ids.span_id)
        return Span(Trace(trace_id, span_id, ids.trace_flags.sampled), span)

    @contextlib.contextmanager
    def span(
        self,
        name: str,
        *,
        parent: Trace | None = None,
        links: Iterable[Trace] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        **own: AttributeValue | None,
    ) -> Iterator[Span]:
        """Record the block as a span, which fails if the block raises.

        `attributes` have full names, such as `gen_ai.request.model`. Keywords get the prefix `headway.`: `tokens` is
        recorded as `headway.tokens`.
        """
        span = self.start_span(name, parent=parent, links=links, attributes=_full_names(attributes, own))
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
        attributes: Attributes = NO_ATTRIBUTES,
        **own: AttributeValue | None,
    ) -> Trace:
        """Record a finished span from `start` to `end` [s since 1970]; returns its trace context.

        `problem` marks the span as failed. `attributes` and keywords are those of `span`.
        """
        span = self.start_span(name, start=start, parent=parent, links=links, attributes=_full_names(attributes, own))
        if problem is not None:
            span.fail(problem)
        span.end(max(start, end))
        return span.trace

    def close(self) -> None:
        """Export the recorded spans, waiting at most `CLOSE_SECONDS`. Later spans are lost."""
        provider, self._provider, self._tracer = self._provider, None, None
        if provider:  # in a thread, because the exporter itself waits longer for a missing collector
            shutdown = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
            shutdown.start()
            shutdown.join(CLOSE_SECONDS)
            if shutdown.is_alive():
                log.warning(
                    "headway: the collector did not accept the last spans within %.0f s; they are lost", CLOSE_SECONDS
                )


def _provider(service: str, resource: Attributes) -> "TracerProvider | None":
    """The tracer provider for the destinations in the environment; None if there are none."""
    file, collector = os.environ.get(FILE_VARIABLE), any(os.environ.get(name) for name in COLLECTOR_VARIABLES)
    disabled = os.environ.get("OTEL_TRACES_EXPORTER") == "none" or os.environ.get("OTEL_SDK_DISABLED") == "true"
    if not file and (not collector or disabled):
        return None
    try:
        from headway.telemetry.span_export import provider

        return provider(service, _without_none(resource), file=file, collector=collector and not disabled)
    except Exception as error:  # any failure of the exporter's set-up: the process goes on without spans
        log.warning("headway: no spans are recorded: %s", error)
        return None


def _span_context(trace: Trace) -> "SpanContext":
    """A trace context as an OpenTelemetry object."""
    from opentelemetry import trace as api

    flags = api.TraceFlags(SAMPLED if trace.sampled else 0)
    return api.SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)


def _full_names(full: Attributes, own: Attributes) -> Attributes:
    """All attributes by full names: `full` unchanged, `own` with the prefix `headway.`."""
    return {**full, **{f"headway.{name}": value for name, value in own.items()}}


def _without_none(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def _set_error(span: "OtelSpan", problem: str | BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    kind = type(problem).__name__ if isinstance(problem, BaseException) else None
    if kind:
        span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, str(problem) or kind))
