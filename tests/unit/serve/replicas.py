"""What the tests of a replica's parts share: a runtime without Ray and vLLM, with a metric registry of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from headway.serve.capacity import Capacity
from headway.serve.config import ServeConfig
from headway.serve.runtime import ReplicaRuntime
from headway.serve.telemetry_sinks import open_sinks


def config(**fields: Any) -> ServeConfig:
    """A configuration with these fields."""
    return ServeConfig(**{"folder": Path("/model"), "name": "coder", **fields})


def capacity(streams: int, queue: int = 0, **options: Any) -> Capacity:
    """A capacity of so many requests."""
    return Capacity(config(streams=streams, queue=queue), **options)


def replica_runtime(is_draining: Callable[[], bool] = lambda: False, **fields: Any) -> ReplicaRuntime:
    """A runtime with this configuration."""
    settings = config(**fields)
    return ReplicaRuntime(settings, open_sinks(settings, registry=CollectorRegistry()), is_draining)
