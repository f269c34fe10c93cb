"""Runtime of a replica: what its middleware and its engine share. Each replica process has one.

Ray Serve builds the middleware (`middleware_stack`) and the deployment (`Replica`) apart from each other, and passes
the middleware no arguments. Both get what they share here.
"""

from functools import cache
from typing import Protocol

from starlette.types import ASGIApp

from headway.serve.capacity import Capacity
from headway.serve.config import ServeConfig
from headway.serve.control_client import ControlClient
from headway.serve.telemetry_sinks import TelemetrySinks, open_sinks
from headway.serve.tenants.key_file import KeyStore
from headway.serve.tenants.lookup import Tenants


class EngineHealth(Protocol):
    """What middleware needs to know of the engine."""

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        ...


class ReplicaRuntime:
    """Configuration, telemetry, capacity and tenants of a replica; its engine and application once they exist."""

    def __init__(self, config: ServeConfig, sinks: TelemetrySinks) -> None:
        self.config, self.sinks = config, sinks
        self.capacity = Capacity(config)
        self.tenants = Tenants(KeyStore(config.key_file)) if config.key_file else None
        """Tenants and their quotas; None: no key is needed."""
        self.engine: EngineHealth | None = None
        """The engine, once it has started."""
        self.application: ASGIApp | None = None
        """vLLM's application around the engine, once it is built."""
        self.draining = False
        """Whether the service was asked to stop, so that new requests are refused."""

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        return self.engine is not None and self.engine.healthy

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self.draining = True


@cache
def replica_runtime() -> ReplicaRuntime:
    """The runtime of this process; creates it on the first call, as the service configures it."""
    control = ControlClient.from_environment()
    config = control.configuration.config
    runtime = ReplicaRuntime(config, open_sinks(config, control))
    control.follow(on_drain=runtime.drain, in_flight=lambda: runtime.capacity.open)
    return runtime
