"""Traces follow W3C; spans go to a file and a collector, or nowhere."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headway.telemetry import Spans, Trace, current_trace, environment_trace, spans, traces

TEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARENT = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without traces."""
    for name in (traces.TRACE_VARIABLE, spans.FILE_VARIABLE, *spans.COLLECTOR_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for spans, in a folder that does not exist yet."""
    path = tmp_path / "spans" / "all.jsonl"
    monkeypatch.setenv(spans.FILE_VARIABLE, str(path))
    return path


def lines(file: Path) -> list[dict[str, Any]]:
    """The spans in a file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_trace_round_trips_as_text() -> None:
    """The flag 00 means that the spans are not recorded."""
    assert Trace.parse(TEXT) == PARENT
    assert str(PARENT) == TEXT
    assert Trace.parse(f"{TEXT[:-2]}00") == Trace(PARENT.trace_id, PARENT.span_id, sampled=False)
    assert str(Trace.parse(f"{TEXT[:-2]}02")).endswith("-00")
    assert Trace.parse(f"01{TEXT[2:]}-more") == PARENT, "a later version may have more fields"
    new = Trace.new()
    assert Trace.parse(str(new)) == new != Trace.new()


@pytest.mark.parametrize(
    "text",
    [
        None, "", "rubbish; rm -r", TEXT.upper(), f"{TEXT} ", f"{TEXT}-more", f"ff{TEXT[2:]}",
        f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01", TEXT[:-1],
    ],
)  # fmt: skip
def test_invalid_text_is_not_a_trace(text: str | None) -> None:
    """Invalid text therefore never reaches a batch file or a header."""
    assert Trace.parse(text) is None


def test_a_process_belongs_to_the_trace_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a valid one, it gets a new trace."""
    assert environment_trace() is None
    assert current_trace() != current_trace()
    monkeypatch.setenv(traces.TRACE_VARIABLE, "rubbish")
    assert environment_trace() is None
    monkeypatch.setenv(traces.TRACE_VARIABLE, TEXT)
    assert environment_trace() == current_trace() == PARENT


def test_a_span_is_a_line_of_the_file(file: Path) -> None:
    """The line has parent, times, attributes by full names, and links."""
    before, link = time.time(), Trace.new()
    with Spans("headway-train", trace=PARENT, resource={"headway.run.id": "first", "slurm.job.id": None}) as recorder:
        with recorder.span(
            "outer", links=[link], attributes={"gen_ai.request.model": "m"}, tokens=5, nothing=None
        ) as outer:
            outer.set(ranks=[0, 1])
            inner = recorder.record("inner", 10.5, 12.25, parent=outer.trace, problem="too slow")
        assert [outer.trace.trace_id, inner.trace_id] == [PARENT.trace_id] * 2
    first, second = lines(file)
    assert (first["name"], first["parent"], first["span_id"]) == ("inner", outer.trace.span_id, inner.span_id)
    assert (first["start"], first["end"]) == (10.5, 12.25)
    assert (first["status"], first["problem"]) == ("error", "too slow")
    assert (second["name"], second["trace_id"], second["parent"]) == ("outer", PARENT.trace_id, PARENT.span_id)
    assert before <= second["start"] <= second["end"] <= time.time()
    assert second["attributes"] == {"gen_ai.request.model": "m", "headway.tokens": 5, "headway.ranks": [0, 1]}
    assert second["links"] == [{"trace_id": link.trace_id, "span_id": link.span_id}]
    assert second["status"] == "unset"
    assert second["resource"]["service.name"] == "headway-train"
    assert second["resource"]["headway.run.id"] == "first"
    assert "slurm.job.id" not in second["resource"]


def test_a_span_without_a_parent_is_a_root(file: Path) -> None:
    """It starts a new trace."""
    with Spans("headway-submit") as recorder, recorder.span("launch.submit") as root:
        pass
    (line,) = lines(file)
    assert (line["parent"], line["span_id"], line["trace_id"]) == (None, root.trace.span_id, root.trace.trace_id)


def test_a_block_that_raises_is_a_span_that_failed(file: Path) -> None:
    """The span records the exception, which propagates."""
    with Spans("headway-train") as recorder, pytest.raises(RuntimeError, match="no luck"), recorder.span("block"):
        raise RuntimeError("no luck")
    (line,) = lines(file)
    assert (line["status"], line["problem"], line["attributes"]) == ("error", "no luck", {"error.type": "RuntimeError"})


def test_spans_of_several_processes_share_a_file(file: Path) -> None:
    """Each process appends its lines."""
    for name in ("one", "two"):
        with Spans("headway-train") as recorder, recorder.span(name):
            pass
    assert [line["name"] for line in lines(file)] == ["one", "two"]


def test_spans_of_an_unsampled_trace_are_not_recorded(file: Path) -> None:
    """The flag is passed on unchanged."""
    quiet = Trace(PARENT.trace_id, PARENT.span_id, sampled=False)
    with Spans("headway-train", trace=quiet) as recorder, recorder.span("block") as span:
        assert span.trace.sampled is False
    assert lines(file) == []


def test_without_a_destination_a_trace_is_passed_on() -> None:
    """Children of unrecorded spans get the parent from outside."""
    with Spans("headway-train", trace=PARENT) as recorder:
        assert not recorder.on
        with recorder.span("outer", tokens=5) as outer:
            outer.set(more=1)
            outer.fail("so what")
            assert outer.trace == PARENT
        assert recorder.record("inner", 1.0, 2.0) == PARENT
    with Spans("headway-train") as recorder, recorder.span("one") as one, recorder.span("two") as two:
        assert one.trace != two.trace, "each begins a trace of its own"


def test_spans_can_be_switched_off(file: Path) -> None:
    """A dry run records nothing in any environment."""
    with Spans("headway-submit", on=False) as recorder, recorder.span("launch.submit"):
        assert not recorder.on
    assert not file.exists()


def test_a_file_that_cannot_be_written_costs_the_spans_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process goes on, with a warning."""
    (tmp_path / "occupied").touch()
    monkeypatch.setenv(spans.FILE_VARIABLE, str(tmp_path / "occupied" / "spans.jsonl"))
    with Spans("headway-train") as recorder, recorder.span("block"):
        assert not recorder.on
    assert "no spans are recorded" in caplog.text


def test_unused_telemetry_is_not_imported() -> None:
    """OpenTelemetry, prometheus_client and structlog are imported on first use."""
    program = (
        "import sys; from headway.telemetry import Spans\n"
        "with Spans('headway-train') as spans, spans.span('block'): pass\n"
        "print(sorted({'opentelemetry', 'prometheus_client', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportTraceServiceRequest]]:
    """Requests to a collector that the environment names."""
    bodies: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield bodies
    server.shutdown()
    server.server_close()


def test_a_collector_gets_what_the_file_gets(requests: list[ExportTraceServiceRequest], file: Path) -> None:
    """Spans arrive by OTLP over HTTP, at the latest on close."""
    with Spans("headway-train", trace=PARENT) as recorder, recorder.span("block", tokens=5):
        pass
    (request,) = requests
    (resource,) = request.resource_spans
    (span,) = resource.scope_spans[0].spans
    (line,) = lines(file)
    assert (span.name, span.trace_id.hex(), span.span_id.hex()) == ("block", PARENT.trace_id, line["span_id"])
    assert {each.key for each in resource.resource.attributes} >= {"service.name", "host.name"}


def test_a_missing_collector_delays_the_end_briefly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing waits for a bounded time, warns, and raises nothing."""
    monkeypatch.setattr(spans, "CLOSE_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    caplog.set_level(logging.WARNING)
    with Spans("headway-train") as recorder:
        for _ in range(10):
            with recorder.span("block"):
                pass
        closing = time.monotonic()
    assert time.monotonic() - closing < 1.0
    assert "did not accept the last spans" in caplog.text
