"""Where spans go: to a file as JSON lines, to a collector as OTLP over HTTP. Loaded only if they go somewhere."""

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
from opentelemetry.util.types import Attributes

import headway
from headway.telemetry.traces import NANOSECONDS

log = logging.getLogger("headway")


def provider(
    service: str, resource: Mapping[str, object], *, file: str | None = None, collector: bool = False
) -> TracerProvider:
    """Opentelemetry's own machinery, set up for `service`."""
    own = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service,
        "service.version": headway.__version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "host.name": socket.gethostname(),
    }
    made = TracerProvider(resource=Resource.create({**own, **resource}), shutdown_on_exit=False)  # type: ignore[dict-item]
    if file:
        made.add_span_processor(SimpleSpanProcessor(SpanFile(Path(file))))
    if collector:
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # `Collector` says it, and says it once
        made.add_span_processor(BatchSpanProcessor(Collector()))
    return made


class SpanFile(SpanExporter):
    """A file of JSON lines, one for each span that ended. Many processes may write the same file."""

    def __init__(self, path: Path) -> None:
        """Make sure that there is a file at `path`.

        Raises:
            OSError: there cannot be one.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write `spans`, each in one piece."""
        try:
            for span in spans:
                os.write(self._file, line(span).encode())
        except OSError as error:
            log.warning("headway: spans were not written to the file of HEADWAY_TRACES: %s", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


class Collector(OTLPSpanExporter):
    """A collector that says once if it does not take spans, and stays quiet then."""

    _said = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send `spans`."""
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS and not self._said and not self._shutdown:
            self._said = True
            log.warning("headway: the collector at %s takes no spans; work goes on without", self._endpoint)
        return result


def line(span: ReadableSpan) -> str:
    """A span as a line of JSON."""
    place, status = span.get_span_context(), span.status
    document = {
        "trace_id": format_trace_id(place.trace_id) if place else None,
        "span_id": format_span_id(place.span_id) if place else None,
        "parent": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "start": (span.start_time or 0) / NANOSECONDS,
        "end": (span.end_time or 0) / NANOSECONDS,
        "attributes": _plain(span.attributes),
        "links": [
            {"trace_id": format_trace_id(link.context.trace_id), "span_id": format_span_id(link.context.span_id)}
            for link in span.links
        ],
        "status": status.status_code.name.lower(),
        "problem": status.description,
        "resource": {key: value for key, value in span.resource.attributes.items() if not key.startswith("telemetry.")},
    }
    return json.dumps(document, default=str) + "\n"


def _plain(attributes: Attributes) -> dict[str, object]:
    return dict(attributes or {})
