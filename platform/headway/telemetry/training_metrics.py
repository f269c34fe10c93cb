"""Metric families of a training process; those of serving are in `serving_metrics`. Imports prometheus_client.

The labels of the scrape target name the run and the attempt, so no family has labels for them: Prometheus would rename
these to `exported_run`. Every child exists from the start, at 0, so "never happened" differs from "unknown".
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

Family = TypeVar("Family", bound=MetricWrapperBase)


class TrainMetrics:
    """Progress, speed and loss of training."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.phase_seconds = children(
            Counter(
                "headway_train_phase_seconds_total", "Seconds of rank 0, by ledger phase.", ["phase"], registry=registry
            ),
            PHASES,
        )
        self.tokens = Counter("headway_train_tokens_total", "Tokens trained on by this process.", registry=registry)
        self.replayed_tokens = Counter(
            "headway_train_replayed_tokens_total",
            "Tokens trained on again because an earlier attempt did not save them.",
            registry=registry,
        )
        self.position = Gauge("headway_train_position_tokens", "Token position of the run.", registry=registry)
        self.budget = Gauge("headway_train_budget_tokens", "Token budget of the run.", registry=registry)
        self.attempts = Gauge("headway_train_attempts", "Attempts of the run so far.", registry=registry)
        self.step_duration = Histogram(
            "headway_train_step_duration_seconds",
            "Duration of a step, from requesting its batch to the update.",
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.loss = Gauge("headway_train_loss", "Loss of the last step, in nats per token.", registry=registry)
        self.held_out_loss = Gauge(
            "headway_train_held_out_loss", "Held-out loss of the last evaluation, in nats per token.", registry=registry
        )
        self.grad_norm = Gauge(
            "headway_train_grad_norm", "Gradient norm of the last step, before clipping.", registry=registry
        )
        self.learning_rate = Gauge("headway_train_learning_rate", "Learning rate of the last step.", registry=registry)
        self.decisions = children(
            Counter(
                "headway_train_decisions_total",
                "Decisions about bad batches, by action.",
                ["action"],
                registry=registry,
            ),
            ("skip", "rollback", "stop"),
        )
        self.slow_ranks = Gauge(
            "headway_train_slow_ranks", "1 while a rank slows down the others, else 0.", registry=registry
        )


class CheckpointMetrics:
    """Saves and restores of checkpoints."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.saves = children(
            Counter("headway_checkpoint_saves_total", "Saves, by outcome.", ["outcome"], registry=registry),
            ("committed", "failed"),
        )
        self.save_duration = children(
            Histogram(
                "headway_checkpoint_save_duration_seconds",
                "Save duration: the part that blocks training (block), and start to commit (upload).",
                ["stage"],
                buckets=SAVE_SECONDS,
                registry=registry,
            ),
            ("block", "upload"),
        )
        self.last_commit = Gauge(
            "headway_checkpoint_last_commit_timestamp_seconds",
            "Commit time of the newest checkpoint; without one, the claim time of the attempt.",
            registry=registry,
        )
        self.position = Gauge(
            "headway_checkpoint_position_tokens", "Token position of the newest checkpoint.", registry=registry
        )
        self.restores = children(
            Counter(
                "headway_checkpoint_restores_total",
                "Checkpoints read at the start of an attempt, by result.",
                ["outcome"],
                registry=registry,
            ),
            ("verified", "damaged"),
        )


class RecoveryMetrics:
    """Preemptions and the time to recover from them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.preemptions = children(
            Counter(
                "headway_preemptions_total",
                "Attempts that ended before the token budget: with all progress saved, or without recording an outcome "
                "(lost).",
                ["outcome"],
                registry=registry,
            ),
            ("saved", "lost"),
        )
        self.duration = children(
            Histogram(
                "headway_recovery_duration_seconds",
                "Time from the stop request to the first step of the next attempt, by stage.",
                ["stage"],
                buckets=RECOVERY_SECONDS,
                registry=registry,
            ),
            ("drain", "queue", "startup", "restore"),
        )


class StoreMetrics:
    """Requests to the object store of the run. Requests to a folder store are not counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = children(
            Counter(
                "headway_store_requests_total",
                "Requests to the object store, each retry counted, by outcome.",
                ["outcome"],
                registry=registry,
            ),
            ("answered", "failed"),
        )
        self.circuit_open = Gauge(
            "headway_store_circuit_open", "1 while the circuit breaker of the object store is open.", registry=registry
        )


class TrainingMetrics:
    """All families of a training process, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        register_build(self.registry)
        self.train = TrainMetrics(self.registry)
        self.checkpoint = CheckpointMetrics(self.registry)
        self.recovery = RecoveryMetrics(self.registry)
        self.store = StoreMetrics(self.registry)


def register_build(registry: CollectorRegistry) -> None:
    """Add the family with the version of Headway."""
    Info("headway_build", "Version of Headway.", registry=registry).info({"version": headway.__version__})


def children(family: Family, values: Sequence[str]) -> Mapping[str, Family]:
    """Create the children of a family with one label; returns them by label value."""
    return {value: family.labels(value) for value in values}


def exemplar(trace: Trace | None) -> dict[str, str] | None:
    """The exemplar that links an observation to its trace."""
    return {"trace_id": trace.trace_id} if trace else None


def families(registry: Collector) -> dict[str, str]:
    """The type of each family, by its name in queries."""
    suffix = {"counter": "_total", "info": "_info"}
    return {family.name + suffix.get(family.type, ""): family.type for family in registry.collect()}
