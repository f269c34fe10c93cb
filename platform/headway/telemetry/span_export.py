"""Exports spans: as JSON lines to a file, as OTLP over HTTP to a collector. Imported only if spans are recorded."""

import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

import headway
from headway.telemetry.traces import NANOSECONDS

log = logging.getLogger("headway")


def provider(
    service: str, resource: Mapping[str, object], *, file: str | None = None, collector: bool = False
) -> TracerProvider:
    """A tracer provider for `service` that exports to a file, a collector, or both."""
    own = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service,
        "service.version": headway.__version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "host.name": socket.gethostname(),
    }
    tracing = TracerProvider(resource=Resource.create({**own, **resource}), shutdown_on_exit=False)  # type: ignore[dict-item]
    if file:
        tracing.add_span_processor(SimpleSpanProcessor(FileExporter(Path(file))))
    if collector:
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # `CollectorExporter` warns, once
        tracing.add_span_processor(BatchSpanProcessor(CollectorExporter()))
    return tracing


class FileExporter(SpanExporter):
    """Appends one JSON line per span to a file, which several processes may share."""

    def __init__(self, path: Path) -> None:
        """Create the file at `path` if it does not exist.

        Raises:
            OSError: it cannot be created.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append `spans`, each with one write."""
        try:
            for span in spans:
                os.write(self._file, json_line(span).encode())
        except OSError as error:
            log.warning("headway: spans were not written to the file in HEADWAY_TRACES: %s", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


class CollectorExporter(OTLPSpanExporter):
    """Sends spans to a collector. Warns once if the collector does not accept them."""

    _warned = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans to the collector."""
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS and not self._warned and not self._shutdown:
            self._warned = True
            log.warning("headway: the collector at %s does not accept spans; they are lost", self._endpoint)
        return result


def json_line(span: ReadableSpan) -> str:
    """A span as a line of JSON."""
    context, status = span.get_span_context(), span.status
    document = {
        "trace_id": format_trace_id(context.trace_id) if context else None,
        "span_id": format_span_id(context.span_id) if context else None,
        "parent": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "start": (span.start_time or 0) / NANOSECONDS,
        "end": (span.end_time or 0) / NANOSECONDS,
        "attributes": dict(span.attributes or {}),
        "links": [
            {"trace_id": format_trace_id(link.context.trace_id), "span_id": format_span_id(link.context.span_id)}
            for link in span.links
        ],
        "status": status.status_code.name.lower(),
        "problem": status.description,
        "resource": {key: value for key, value in span.resource.attributes.items() if not key.startswith("telemetry.")},
    }
    return json.dumps(document, default=str) + "\n"
