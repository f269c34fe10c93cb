"""Runtime of a replica: what its middleware and its engine share. Each replica process has one.

Ray Serve builds the middleware (`middleware_stack`) and the deployment (`Replica`) apart from each other, and passes
the middleware no arguments. Both get what they share here.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol

from starlette.types import ASGIApp

from headway.parent_death import end_process
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
        self.close_server: Callable[[], None] = lambda: None
        """Closes the HTTP server of this process, if it has one, once it has sent its responses; waits for it."""

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        return self.engine is not None and self.engine.healthy

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self.draining = True

    def finish(self) -> None:
        """Send all responses and the last spans: the process is about to be killed."""
        self.close_server()
        self.sinks.spans.close()


@cache
def replica_runtime() -> ReplicaRuntime:
    """The runtime of this process; creates it on the first call, as the service configures it."""
    control = ControlClient.from_environment()
    config = control.configuration.config
    runtime = ReplicaRuntime(config, open_sinks(config, control))
    control.follow(
        on_drain=runtime.drain,
        in_flight=lambda: runtime.capacity.open,
        finish=runtime.finish,
        on_lost=end_process,
    )
    return runtime
