"""Metric families exist from the start, have conventional names, and are all documented."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headway.telemetry import Trace
from headway.telemetry.phases import PHASES
from headway.telemetry.serving_metrics import MODEL_LABELS, ServingMetrics
from headway.telemetry.training_metrics import TrainingMetrics, TrainMetrics, exemplar, families

PAGE = Path(__file__).parents[3] / "docs" / "telemetry.md"
UNITS = (
    "_seconds",
    "_tokens",
    "_bytes",
    "_ratio",
    "_total",
    "_info",
    "_loss",
    "_norm",
    "_rate",
    "_attempts",
    "_ranks",
    "_open",
)


@pytest.fixture
def training() -> TrainingMetrics:
    """The families of a training process at its start."""
    return TrainingMetrics()


def test_all_series_exist_from_the_start(training: TrainingMetrics) -> None:
    """Each child is 0, so that a query distinguishes "never" from "unknown"; only the build has a value."""
    samples = [sample for family in training.registry.collect() for sample in family.samples]
    values = {(s.name, *s.labels.values()): s.value for s in samples if not s.name.endswith("_created")}
    assert values["headway_checkpoint_saves_total", "failed"] == 0
    assert values["headway_preemptions_total", "lost"] == 0
    assert values["headway_recovery_duration_seconds_count", "queue"] == 0
    assert {value for (name, *_), value in values.items() if name != "headway_build_info"} == {0}
    assert {key[1] for key in values if key[0] == "headway_train_phase_seconds_total"} == set(PHASES)


def test_names_end_in_their_unit(training: TrainingMetrics) -> None:
    """Names follow Prometheus' advice, and no family has a label of its target."""
    for name, kind in families(training.registry).items():
        assert re.fullmatch(r"headway_[a-z_]+", name)
        assert name.endswith(UNITS), name
        assert name.endswith("_total") == (kind == "counter"), name
    labels = {label for family in training.registry.collect() for sample in family.samples for label in sample.labels}
    assert not labels & {"run", "recipe", "attempt", "job", "instance"}


def test_an_observation_links_to_its_trace(training: TrainingMetrics) -> None:
    """The OpenMetrics text holds the trace id as an exemplar."""
    trace = Trace.new()
    training.train.step_duration.observe(0.3, exemplar(trace))
    training.train.step_duration.observe(0.7, exemplar(None))
    text = generate_latest(training.registry).decode()  # type: ignore[no-untyped-call]
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    exemplars = [s.exemplar for s in families["headway_train_step_duration_seconds"].samples if s.exemplar]
    assert [(each.labels, each.value) for each in exemplars] == [({"trace_id": trace.trace_id}, 0.3)]


def test_registries_are_independent() -> None:
    """Counts in one registry do not appear in another."""
    first, second = (
        TrainMetrics(CollectorRegistry()),
        TrainMetrics(CollectorRegistry()),
    )
    first.tokens.inc(5)
    values = [sample.value for family in second.tokens.collect() for sample in family.samples]
    assert values[0] == 0


def test_the_documentation_lists_exactly_the_existing_families(training: TrainingMetrics) -> None:
    """Names and types match."""
    rows = re.findall(r"^\| `(headway_[a-z_]+)` \| ([a-z]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    registry = CollectorRegistry()
    ServingMetrics(registry, **dict.fromkeys(MODEL_LABELS, "x")).register_engine(
        busy_seconds=float, computed_requests=float, waiting_requests=float, cache_usage=float
    )
    assert dict(rows) == families(training.registry) | families(registry)
