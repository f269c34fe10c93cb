"""Metrics: every family that Headway shows, declared once, by the noun it tells of. Loads prometheus_client.

Which run, model or attempt a series is of stands in the labels of its target, not here: a label that the series
carried as well would come back as `exported_run`. Children are there from the beginning, at 0: "never happened" is
not "unknown".
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

import headway
from headway.telemetry.phases import PHASES
from headway.telemetry.traces import Trace

STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SAVE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
RECOVERY_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0)

Child = TypeVar("Child", bound=MetricWrapperBase)


class TrainMetrics:
    """How training goes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.phase_seconds = children(
            Counter(
                "headway_train_phase_seconds_total",
                "Seconds of rank 0, by the phase of the ledger that they are booked to",
                ["phase"],
                registry=registry,
            ),
            PHASES,
        )
        self.tokens = Counter("headway_train_tokens_total", "Tokens that this process trained on", registry=registry)
        self.replayed_tokens = Counter(
            "headway_train_replayed_tokens_total",
            "Tokens that an earlier attempt had trained on and did not save",
            registry=registry,
        )
        self.position = Gauge("headway_train_position_tokens", "Where the run stands", registry=registry)
        self.budget = Gauge("headway_train_budget_tokens", "Tokens that the run trains on", registry=registry)
        self.attempts = Gauge("headway_train_attempts", "Attempts at the run so far", registry=registry)
        self.step_duration = Histogram(
            "headway_train_step_duration_seconds",
            "From asking for a batch to the update",
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.loss = Gauge("headway_train_loss", "Of the last batch, in nats per token", registry=registry)
        self.held_out_loss = Gauge("headway_train_held_out_loss", "As last evaluated, in nats", registry=registry)
        self.grad_norm = Gauge("headway_train_grad_norm", "Of the last batch, before clipping", registry=registry)
        self.learning_rate = Gauge("headway_train_learning_rate", "Of the last batch", registry=registry)
        self.decisions = children(
            Counter(
                "headway_train_decisions_total", "Decisions about bad batches, by action", ["action"], registry=registry
            ),
            ("skip", "rollback", "stop"),
        )
        self.slow_ranks = Gauge("headway_train_slow_ranks", "Ranks that keep the others waiting", registry=registry)


class CheckpointMetrics:
    """What of the training is safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.saves = children(
            Counter("headway_checkpoint_saves_total", "Saves, by how they ended", ["outcome"], registry=registry),
            ("committed", "failed"),
        )
        self.save_duration = children(
            Histogram(
                "headway_checkpoint_save_duration_seconds",
                "For which training stood still (block), and from the beginning to the commit (upload)",
                ["stage"],
                buckets=SAVE_SECONDS,
                registry=registry,
            ),
            ("block", "upload"),
        )
        self.last_commit = Gauge(
            "headway_checkpoint_last_commit_timestamp_seconds",
            "Of the newest checkpoint; before there is one, of the attempt's claim",
            registry=registry,
        )
        self.position = Gauge("headway_checkpoint_position_tokens", "Of the newest checkpoint", registry=registry)
        self.restores = children(
            Counter("headway_checkpoint_restores_total", "Checkpoints read, by result", ["outcome"], registry=registry),
            ("verified", "damaged"),
        )


class RecoveryMetrics:
    """What preemptions cost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.preemptions = children(
            Counter(
                "headway_preemptions_total",
                "Ends before the budget: with all saved, or without a word",
                ["outcome"],
                registry=registry,
            ),
            ("saved", "lost"),
        )
        self.duration = children(
            Histogram(
                "headway_recovery_duration_seconds",
                "From being asked to stop to the first step of the next attempt, by stage",
                ["stage"],
                buckets=RECOVERY_SECONDS,
                registry=registry,
            ),
            ("drain", "queue", "startup", "restore"),
        )


class StoreMetrics:
    """How the object store of the run answers; a store in a folder is not counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = children(
            Counter(
                "headway_store_requests_total",
                "Requests to the object store, each try counted, by how they went",
                ["outcome"],
                registry=registry,
            ),
            ("answered", "failed"),
        )
        self.circuit_open = Gauge(
            "headway_store_circuit_open", "1 while requests are kept back, because all failed", registry=registry
        )


class TrainingMetrics:
    """All that a training process shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        build(self.registry)
        self.train = TrainMetrics(self.registry)
        self.checkpoint = CheckpointMetrics(self.registry)
        self.recovery = RecoveryMetrics(self.registry)
        self.store = StoreMetrics(self.registry)


def build(registry: CollectorRegistry) -> None:
    """Say which Headway this is."""
    Info("headway_build", "The code that runs", registry=registry).info({"version": headway.__version__})


def children(family: Child, values: Sequence[str]) -> Mapping[str, Child]:
    """The children of a family with one label, by its values, all there from the beginning."""
    return {value: family.labels(value) for value in values}


def exemplar(trace: Trace | None) -> dict[str, str] | None:
    """What leads from an observation to its trace."""
    return {"trace_id": trace.trace_id} if trace else None


def families(registry: Collector) -> dict[str, str]:
    """The type of each family, by its name as queries have it."""
    suffix = {"counter": "_total", "info": "_info"}
    return {family.name + suffix.get(family.type, ""): family.type for family in registry.collect()}
