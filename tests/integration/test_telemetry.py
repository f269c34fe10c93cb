"""A run that is watched while it trains: its metrics, and one trace from the first attempt to the model."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headway.cli import main
from headway.recipe import load
from headway.registry import find
from headway.runs.run_log import read_records
from headway.telemetry import Trace, spans, traces
from headway.telemetry.metrics_server import LINGER_VARIABLE, PORT_VARIABLE, TARGETS_VARIABLE
from tests.integration.training import DEADLINE, Place

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spans and targets go, of a process that belongs to no trace."""
    monkeypatch.delenv(traces.TRACE_VARIABLE, raising=False)
    monkeypatch.setenv(spans.FILE_VARIABLE, str(tmp_path / "spans.jsonl"))
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path / "targets"))
    monkeypatch.setenv(PORT_VARIABLE, "127.0.0.1:0")
    monkeypatch.setenv(LINGER_VARIABLE, str(DEADLINE))
    return tmp_path


def target(folder: Path) -> tuple[int, Mapping[str, str]]:
    """Port and labels of the run, as Prometheus finds them."""
    (target,) = json.loads((folder / "targets" / "run.json").read_text(encoding="utf-8"))
    return int(target["targets"][0].rpartition(":")[2]), target["labels"]


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """What is shown there, by name and labels; every observation there is leads to a trace."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=OPENMETRICS, timeout=DEADLINE).text
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command answers."""
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_run_is_watched_from_its_first_attempt_to_its_model(
    place: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed, resumed, published: figures that agree with the journal, one trace id everywhere, nothing left behind."""
    batch, store = load(place.recipe).train.batch_tokens, ("--store", place.objects.url)
    first = place.start("run", ranks=2)
    assert first.await_event("checkpoint.committed"), first.messages
    done = [event["tokens"] for event in first.events if event["event"] == "step.done"]
    port, labels = target(folder)
    seen = scraped(port)
    assert labels.items() >= {"run": "run", "recipe": "tiny", "attempt": "1"}.items()
    assert seen["headway_train_tokens_total",] == seen["headway_train_position_tokens",] >= done[-1]
    assert seen["headway_train_tokens_total",] % batch == 0
    assert seen["headway_checkpoint_saves_total", "committed"] >= 1
    first.send(signal.SIGKILL, first.family())
    first.wait()

    second = place.start("run", ranks=1)
    assert second.await_event("attempt.ended"), second.messages
    lost, last = place.history("run").attempts
    port, labels = target(folder)
    assert labels["attempt"] == str(last.number)
    seen = scraped(port)  # the last figures: nothing moves any more
    status = document(capsys, "status", "run", *store)
    assert (status["state"], status["tokens"]) == ("done", seen["headway_train_position_tokens",])
    assert seen["headway_train_tokens_total",] == status["tokens"] - last.tokens_before
    assert seen["headway_checkpoint_position_tokens",] == place.history("run").tokens
    assert seen["headway_checkpoint_saves_total", "committed"] == len(last.commits)
    assert seen["headway_checkpoint_restores_total", "verified"] == 1
    assert seen["headway_preemptions_total", "lost"] == 1
    assert seen["headway_train_replayed_tokens_total",] % batch == 0
    steps = seen["headway_train_step_duration_seconds_count",]
    assert steps * batch == seen["headway_train_tokens_total",]
    booked = sum(value for (name, *_), value in seen.items() if name == "headway_train_phase_seconds_total")
    (row,) = (row for row in document(capsys, "ledger", "run", *store)["rows"] if row["attempt"] == last.number)
    assert booked == pytest.approx(sum(row["phases"].values()), abs=0.5)

    second.send(signal.SIGTERM, second.family()[:1])  # instead of two scrapes more
    assert second.wait() == 0
    assert list((folder / "targets").iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        scraped(port)

    document(capsys, "publish", "run", "--as", "coder", *store)
    trace = Trace.parse(lost.claim.holder.trace)
    assert trace
    assert last.claim.holder.trace == str(trace)
    model, version = find(place.objects, "coder")
    assert model.manifest(version).trace == str(trace)
    lines = [event for _, event in read_records(place.objects, "run")]
    assert {line["attempt"] for line in lines} == {lost.number, last.number}
    assert {line["trace_id"] for line in [*lines, *first.events, *second.events]} == {trace.trace_id}
    spans = [json.loads(line) for line in (folder / "spans.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {span["trace_id"] for span in spans} == {trace.trace_id}
    (root,) = (span for span in spans if span["parent"] is None)
    assert (root["name"], root["span_id"]) == ("train.launch", trace.span_id)
    assert {span["parent"] for span in spans} == {None, trace.span_id}
    begun = [span["attributes"]["headway.attempt"] for span in spans if span["name"] == "train.startup"]
    assert begun == [lost.number, last.number]
    assert {span["name"] for span in spans} == {
        "train.launch", "train.startup", "train.restore", "train.checkpoint", "train.evaluation", "train.drain",
        "registry.publish",
    }  # fmt: skip
