"""Runtime of a replica: what its middleware and its engine share. Each replica process has one.

Ray Serve builds the middleware (`middleware_stack`) and the deployment (`Replica`) apart from each other, and passes
the middleware no arguments. Both get what they share here.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

from starlette.types import ASGIApp

from headway.serve.capacity import Capacity
from headway.serve.config import ServeConfig
from headway.serve.telemetry_sinks import TelemetrySinks, open_sinks
from headway.serve.tenants.key_file import KeyStore
from headway.serve.tenants.lookup import Tenants

DRAINING_VARIABLE = "HEADWAY_DRAINING"
"""Environment variable: the file that exists once the service was asked to stop."""


class EngineHealth(Protocol):
    """What middleware needs to know of the engine."""

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        ...


class ReplicaRuntime:
    """Configuration, telemetry, capacity and tenants of a replica; its engine and application once they exist."""

    def __init__(self, config: ServeConfig, sinks: TelemetrySinks, is_draining: Callable[[], bool]) -> None:
        """`is_draining`: returns whether the service was asked to stop."""
        self.config, self.sinks, self.is_draining = config, sinks, is_draining
        self.capacity = Capacity(config)
        self.tenants = Tenants(KeyStore(config.key_file)) if config.key_file else None
        """Tenants and their quotas; None: no key is needed."""
        self.engine: EngineHealth | None = None
        """The engine, once it has started."""
        self.application: ASGIApp | None = None
        """vLLM's application around the engine, once it is built."""

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        return self.engine is not None and self.engine.healthy


@cache
def replica_runtime() -> ReplicaRuntime:
    """The runtime of this process; creates it on the first call, as the environment configures it."""
    config = ServeConfig.from_environment()
    return ReplicaRuntime(config, open_sinks(config), is_draining=Path(os.environ[DRAINING_VARIABLE]).exists)
